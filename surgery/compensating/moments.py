"""Streaming normal equations: what least squares needs of any number of rows, in float64.

The weights of a layer's kept inputs are corrected so that what it answers on the pruned net's inputs is nearest to what
it answered in the dense net (He et al. 2017, Channel Pruning for Accelerating Very Deep Neural Networks; layer by layer
as in Frantar and Alistarh 2022, Optimal Brain Compression). The ridge draws towards the weights as they are, in
proportion to how much each input varies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-10, 1e-6, 1e-4, 1e-2, 1e-1, 1.0)
"""Strengths that are tried, over the variance of each input; the held-out rows choose."""


@dataclass(frozen=True)
class Correction:
    """What is added to the weights `[g, o, m]` and to the bias `[g, o]`, and the squared error that is left."""

    weight: Tensor
    bias: Tensor
    error: float


class Moments:
    """Sums over rows (mutable): of inputs `x [n, g, m]` and of what is missing in the outputs `r [n, g, o]`.

    Attributes:
        n: How many rows.
        x, r: Their sums, `[g, m]` and `[g, o]`.
        xx, rx: Of their products, `[g, m, m]` and `[g, o, m]`.
        rr: Of `r` squared.
    """

    def __init__(self) -> None:
        self.n = 0
        self.rr = 0.0
        self.x = self.r = self.xx = self.rx = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor, r: Tensor) -> None:
        """Take in rows: x [n, g, m], r [n, g, o]."""
        x, r = (side.to(torch.float64).transpose(0, 1) for side in (x, r))  # (g, n, m), (g, n, o)
        self.n += x.shape[1]
        self.rr += float(r.square().sum())
        self.x, self.r = self.x + x.sum(1), self.r + r.sum(1)
        self.xx, self.rx = self.xx + x.mT @ x, self.rx + r.mT @ x

    @property
    def finite(self) -> bool:
        """Whether every number is."""
        return bool(self.xx.isfinite().all() and self.rx.isfinite().all() and self.r.isfinite().all())

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """The squared error that a correction leaves, summed over all rows."""
        crossed = (weight * self.rx).sum() + (bias * self.r).sum()
        own = ((weight @ self.xx) * weight).sum() + self.n * bias.square().sum()
        both = (bias * (weight @ self.x.unsqueeze(-1)).squeeze(-1)).sum()
        return self.rr + float(own + 2 * both - 2 * crossed)

    def solve(self, ridge: float, *, with_bias: bool) -> tuple[Tensor, Tensor] | None:
        """The correction that leaves the least on these rows; None where the equations cannot be solved."""
        xx, rx = self.xx / self.n, self.rx / self.n
        mean_x, mean_r = self.x / self.n, self.r / self.n
        if with_bias:
            xx = xx - mean_x.unsqueeze(-1) * mean_x.unsqueeze(-2)
            rx = rx - mean_r.unsqueeze(-1) * mean_x.unsqueeze(-2)
        varies = xx.diagonal(dim1=-2, dim2=-1).clamp(min=0)
        scale = varies.mean(-1, keepdim=True)
        floor = torch.where(scale > 0, scale * 1e-10, torch.ones_like(scale))
        factor, failed = torch.linalg.cholesky_ex(xx + torch.diag_embed(ridge * varies + floor))
        if bool(failed.any()):
            return None
        weight = torch.cholesky_solve(rx.mT, factor).mT
        bias = mean_r - (weight @ mean_x.unsqueeze(-1)).squeeze(-1) if with_bias else torch.zeros_like(mean_r)
        return weight, bias


def best(fit: Moments, held: Moments, *, with_bias: bool, with_weights: bool = True) -> Correction | None:
    """The correction learnt on some rows that leaves the least on others; None where leaving all as it is is best."""
    none = torch.zeros_like(fit.rx)
    candidates = [(none, fit.r / fit.n)] if with_bias else []
    ridges = RIDGES if with_weights else ()
    candidates += [one for ridge in ridges if (one := fit.solve(ridge, with_bias=with_bias)) is not None]
    tried = [Correction(weight, bias, held.error(weight, bias)) for weight, bias in candidates]
    found = min(tried, key=lambda one: one.error, default=None)
    return found if found is not None and found.error < held.rr else None
