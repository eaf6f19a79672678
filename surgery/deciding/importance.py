"""Scores per channel: how much is lost with it. Bigger is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from surgery.deciding.build import sides_of
from surgery.deciding.study import Study
from surgery.errors import InputError

Scores = Mapping[str, Tensor | Sequence[float]]
"""Scores over dim 0 of parameters, by name."""

IMPORTANCES: dict[str, int] = {"l1": 1, "l2": 2}
"""Norms of everything that writes a channel (Li et al. 2017, Pruning Filters for Efficient ConvNets)."""


def importance_scores(study: Study, importance: str | Callable[[nn.Module], Scores]) -> npt.NDArray[np.float64]:
    """One score per channel, `[n_channels]`; channels that no weight writes score 0.

    Raises:
        InputError: A function's scores name no parameter, or have the wrong length, or are not finite.
    """
    if isinstance(importance, str):
        return _norms(study, IMPORTANCES[importance])
    given = importance(study.model)
    scores = np.zeros(study.coupling.n_channels)
    for name, values in given.items():
        axis = study.coupling.axes.get((name, 0))
        if axis is None:
            raise InputError(f"importance scored {name!r}, which has no channels on dim 0", "score parameters by name")
        array = np.asarray(torch.as_tensor(values).detach().cpu(), np.float64)
        if array.shape != axis.ids.shape:
            raise InputError(
                f"importance gave {name} scores of shape {list(array.shape)}", f"give one per row: [{axis.ids.size}]"
            )
        if not np.isfinite(array).all():
            raise InputError(f"importance gave {name} scores that are not finite", "give finite numbers")
        np.add.at(scores, study.coupling.channel_of[axis.ids], array)
    return scores


def _norms(study: Study, order: int) -> npt.NDArray[np.float64]:
    """The norm of all weight slices that write a channel, together."""
    coupling, program = study.coupling, study.program
    total = np.zeros(coupling.n_channels)
    producers, _ = sides_of(program, coupling)
    for name, dim in producers:
        axis = coupling.axes.get((name, dim))
        if axis is None:
            continue
        weight = program.tensors[name].detach()
        if axis.ids.ndim == 2:  # a grouped transposed convolution: [g·i, o, ...] -> (g, o)
            rows = weight.unflatten(0, (axis.ids.shape[0], -1)).transpose(1, 2).flatten(0, 1).flatten(1)
        else:
            rows = weight.movedim(dim, 0).flatten(1)
        slices = torch.linalg.vector_norm(
            rows, order, dim=1, dtype=torch.float64 if rows.dtype == torch.float64 else torch.float32
        )
        np.add.at(total, coupling.channel_of[axis.ids].ravel(), slices.cpu().double().numpy() ** order)
    scores: npt.NDArray[np.float64] = total ** (1 / order)
    return scores
