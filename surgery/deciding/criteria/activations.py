"""Scores from what arrives at the weights that read a channel: activation-weighted magnitude, and variance.

The model is run on the user's data as it is; a mode that sees every op before torch takes it apart looks at those that
contract a weight (whether a module's own or a bare parameter, by whatever code), so that nothing is hooked or changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode, PythonKeyTracer
from torch.utils import _pytree as pytree

from surgery.analysis.capture import evaluating
from surgery.analysis.graph_capture import as_written
from surgery.batches import Batch
from surgery.coupling import Use
from surgery.deciding.pick import Floats
from surgery.deciding.study import Study
from surgery.errors import InputError
from surgery.layout import Ids
from surgery.rules.convolution import oriented


@dataclass
class Moments:
    """How many values came to each of some positions, their mean and the squares about it (mutable, float64).

    Batches are merged as Chan, Golub and LeVeque (1979) do, so that a constant has a variance of exactly 0.
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(0))
    spread: Tensor = field(default_factory=lambda: torch.zeros(0))

    def add(self, values: Tensor) -> None:
        """More values, `[values, positions]`."""
        values = values.double()
        count = values.shape[0]
        low, high = values.amin(0), values.amax(0)
        mean = torch.where(low == high, low, values.mean(0))  # a mean of equal numbers need not equal them
        spread = (values - mean).square().sum(0)
        if not self.count:
            self.count, self.mean, self.spread = count, mean, spread
            return
        total, shift = self.count + count, mean - self.mean
        self.spread = self.spread + spread + shift.square() * (self.count * count / total)
        self.mean = torch.where(shift == 0, mean, self.mean + shift * (count / total))
        self.count = total

    @property
    def variance(self) -> Tensor:
        """The variance of each position, `[positions]`."""
        return self.spread / max(self.count, 1)

    @property
    def norm(self) -> Tensor:
        """The root of the mean square of each position, `[positions]`."""
        return (self.variance + self.mean.square()).sqrt()


@dataclass(frozen=True)
class Contraction:
    """A use of a weight that can be watched.

    Attributes:
        use: The use.
        weight: The weight in its own layout, `[conv_groups, outputs per group, inputs per group, kernel elements]`.
        arriving: What arrived at its inputs, `[conv_groups · inputs per group]`.
        leaving: What it handed out, `[conv_groups · outputs per group]`.
    """

    use: Use
    weight: Tensor
    arriving: Moments
    leaving: Moments


def wanda_scores(study: Study, batches: Iterable[Batch]) -> Floats:
    """The sum of `|w| · ‖x‖` over the weights that read a channel, `[n_channels]` (after Wanda, Sun et al. 2024).

    x is what arrives there (the root of its mean square over all values). Channels that no weight reads (queries and
    keys) have the same sum over the weights that write them; those without either have no score (NaN).
    """
    read, written = _Sums(study), _Sums(study)
    for seen in watched(study, batches):
        norm = seen.arriving.norm.reshape(seen.use.ids.shape).to(seen.weight.device)
        lost = torch.einsum("goik,gi->goi", seen.weight.detach().abs().double(), norm)
        read.add(seen.use.ids, lost.sum(1))
        written.add(seen.use.rows, lost.sum(2))
    return read.or_else(written)


def variance_scores(study: Study, batches: Iterable[Batch]) -> Floats:
    """The variance of a channel over the data where weights read it, summed over these places, `[n_channels]`.

    A channel that is the same for all samples, and everywhere in space, scores 0: it could go exactly, its constant
    folded. Channels that no weight reads count by how what writes them varies; those without either have none (NaN).
    """
    read, written = _Sums(study), _Sums(study)
    for seen in watched(study, batches):
        read.add(seen.use.ids, seen.arriving.variance)
        if seen.leaving.count:
            written.add(seen.use.rows, seen.leaving.variance)
    return read.or_else(written)


class _Sums:
    """Scores of channels, as they come (mutable)."""

    def __init__(self, study: Study) -> None:
        self.channel_of = study.coupling.channel_of
        self.total = np.zeros(study.coupling.n_channels)
        self.found = np.zeros(study.coupling.n_channels, bool)

    def add(self, ids: Ids | None, values: Tensor) -> None:
        """More for the channels of some ids."""
        if ids is not None:
            channels = self.channel_of[ids].ravel()
            np.add.at(self.total, channels, values.detach().cpu().numpy().ravel())
            self.found[channels] = True

    def or_else(self, other: _Sums) -> Floats:
        """These scores, the other ones where there are none, and NaN where there are none either."""
        found: Floats = np.where(self.found, self.total, np.where(other.found, other.total, np.nan))
        return found


def watched(study: Study, batches: Iterable[Batch]) -> list[Contraction]:
    """Run the model on all batches, and say what arrived at its weights.

    Raises:
        InputError: The model fails on a batch, or computes with its weights in a way that cannot be watched.
    """
    watcher = _Watcher(study)
    with evaluating(study.model), torch.no_grad(), as_written():
        for batch in batches:
            with enable_python_dispatcher(), watcher:
                batch.run(study.model)
    seen = [one for ones in watcher.wanted.values() for one in ones if one.contraction.arriving.count]
    if not seen:
        fact = f"{type(study.model).__name__} uses none of its weights in a way that can be watched"
        raise InputError(fact, "choose an importance that looks at the weights or at their gradients")
    return [one.contraction for one in seen]


@dataclass(frozen=True)
class _Wanted:
    """Where the operand of a contraction stands among its op's arguments, and along which dims the channels lie."""

    contraction: Contraction
    operand: int
    weight: int


class _Watcher(ProxyTorchDispatchMode):
    """Torch hands every op to this mode before it takes it apart; only a mode of this family may sit there."""

    def __init__(self, study: Study) -> None:
        super().__init__(PythonKeyTracer(), "fake", pre_dispatch=True)
        self.wanted: dict[tuple[Any, int], list[_Wanted]] = {}
        program = study.program
        for use in study.coupling.uses:
            source = program.source(use.weight) if use.weight is not None else None
            leaves = pytree.tree_leaves(program.by_name[use.node].args)
            names = [leaf.name if isinstance(leaf, fx.Node) else None for leaf in leaves]
            if source is None or use.operand not in names or use.weight not in names or use.part is not None:
                continue
            name, dims = source
            weight = program.tensors[name]
            laid = weight.detach().permute(dims)
            order = (*range(use.lead, laid.dim()), *range(use.lead))
            full = oriented(laid.permute(order), use.ids.shape[0], use.orientation)
            found = _Wanted(
                Contraction(use, full, Moments(), Moments()), names.index(use.operand), names.index(use.weight)
            )
            key = program.by_name[use.node].target, weight.untyped_storage()._cdata
            self.wanted.setdefault(key, []).append(found)
        self.storages = {storage for _, storage in self.wanted}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the op, and look at what it contracts."""
        answer = func(*args, **(kwargs or {}))
        leaves = pytree.tree_leaves(args)
        for place, leaf in enumerate(leaves):
            if not isinstance(leaf, Tensor) or leaf.untyped_storage()._cdata not in self.storages:
                continue
            for one in self.wanted.get((func, leaf.untyped_storage()._cdata), ()):
                if one.weight == place:
                    _look(one, leaves[one.operand], answer)
        return answer


def _look(wanted: _Wanted, operand: Tensor, answer: Any) -> None:
    """Note what arrived, and what came of it."""
    use, seen = wanted.contraction.use, wanted.contraction
    seen.arriving.add(_laid(operand, use.dims))
    dim = use.dims[0]
    plain = isinstance(answer, Tensor) and answer.dim() == operand.dim() and len(use.dims) == 1
    if plain and use.rows is not None and answer.shape[dim] == use.rows.size:
        seen.leaving.add(_laid(answer, (dim,)))


def _laid(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
    """`[values, positions]`, the positions along some dims."""
    behind = tensor.detach().movedim(dims, tuple(range(-len(dims), 0)))
    return behind.flatten(-len(dims)).reshape(-1, math.prod(behind.shape[-len(dims) :]))
