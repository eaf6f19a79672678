"""Scores per channel: how much is lost with it. Bigger is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgery.coupling import Axis
from surgery.deciding.atoms import picked_together
from surgery.deciding.build import sides_of
from surgery.deciding.criteria import (
    NOTHING,
    PEERS,
    WANTED,
    Feed,
    is_peer,
    named_scores,
    peer_scores,
    slices,
    variance_scores,
    wanda_scores,
)
from surgery.deciding.pick import Floats
from surgery.deciding.study import Study
from surgery.deciding.widths import axes_of_groups
from surgery.errors import InputError, first_line
from surgery.iterating import check_data
from surgery.pieces import pieces

Scores = Mapping[str, Tensor | Sequence[float]]
"""Scores over dim 0 of parameters by name, or over another dim by `name:dim`."""

_log = logging.getLogger("surgery")

Importance = Callable[[Any], Any]
"""A function of the model that returns `Scores`, or a criterion written for torch-pruning's `Importance` (or its class,
which is made without arguments)."""

NORMS: dict[str, int] = {"l1": 1, "l2": 2}
"""Norms of everything that writes a channel (Li et al. 2017, Pruning Filters for Efficient ConvNets)."""

WATCHING = {"variance": variance_scores, "wanda": wanda_scores}
"""Scores of what flows through a channel."""

IMPORTANCES = (*NORMS, *PEERS, *WATCHING)
"""Every importance that has a name."""

DATA_DRIVEN = ("hessian", "obdc", "taylor", *WATCHING)
"""Those that look at data."""


def check_importance(importance: object, data: object) -> None:
    """Refuse an importance that there is not, or that lacks data, and what is no data, before anything is run.

    Raises:
        InputError: So it is.
    """
    if data is not None:
        check_data(data)
    if isinstance(importance, str):
        if importance not in IMPORTANCES:
            names = ", ".join(IMPORTANCES)
            raise InputError(f"unknown importance {importance!r}", f"choose one of {names}, or pass a function")
        if importance in DATA_DRIVEN and data is None:
            raise InputError(f"importance {importance!r} looks at data, and none was given", WANTED)
    elif not callable(importance):
        fact = f"importance is a {type(importance).__name__}"
        raise InputError(fact, "pass a name, a criterion of torch-pruning, or a function of the model")


def importance_scores(
    study: Study, importance: str | Importance, feed: Feed = NOTHING, gone: Collection[str] = ()
) -> Floats:
    """One score per channel, `[n_channels]`; NaN where there is no opinion.

    Channels that no weight writes score 0 by norms; those that a function leaves out, too.

    Args:
        study: The model.
        importance: What a channel is worth.
        feed: The user's data.
        gone: Tensors that the user's model has, and this one no longer: what a function says of them does not count.

    Raises:
        InputError: A function's scores name no parameter, or have the wrong length, or are not finite; a criterion
            fails, or the data or the loss does.
    """
    if isinstance(importance, type):
        importance = importance()
    if isinstance(importance, str) and importance in NORMS:
        return _norms(study, NORMS[importance])
    if isinstance(importance, str) and importance in WATCHING:
        scores = WATCHING[importance](study, feed.batches(study, importance))
    elif isinstance(importance, str):
        scores = named_scores(study, importance, feed)
    elif is_peer(importance):
        scores = peer_scores(study, importance, feed)
    else:
        scores = _given(study, importance, gone)
        if not is_comparable(importance):
            return scores
    _tell_unscored(study, scores, name_of(importance))
    return scores


def name_of(importance: str | Importance) -> str:
    """What to call an importance."""
    if isinstance(importance, str):
        return importance
    return getattr(importance, "__name__", type(importance).__name__)


def is_comparable(importance: str | Importance) -> bool:
    """Whether scores of different groups can be held against each other as they are: the importance says so itself.

    Any callable does by an attribute `comparable` that is True, as `surgery.Sensitivity` has it.
    """
    return getattr(importance, "comparable", False) is True


def _tell_unscored(study: Study, scores: Floats, name: str) -> None:
    """Say which groups are left alone, for want of an opinion.

    Raises:
        InputError: All of them.
    """
    coupling = study.coupling
    free = coupling.reported & (coupling.pin_of < 0)
    together = picked_together(coupling)  # of what goes as a whole, such as a head, some may be scored
    silent = free & ~np.isin(together, together[~np.isnan(scores)])
    if free.any() and not (free & ~silent).any():
        fact = f"importance {name!r} scores no channel of {type(study.model).__name__} that may go"
        raise InputError(fact, "choose one that looks at the kinds of layers that it has, such as 'l2' or 'taylor'")
    if silent.any():
        of_groups = axes_of_groups(coupling)
        groups = [of_groups[group] for group in np.unique(coupling.group_of[silent])]
        tensors = study.program.tensors
        weights = [[axis.name for axis in axes if tensors[axis.name].is_floating_point()] for axes in groups]
        names = sorted({found[0] for found in weights if found})  # not tables of indices
        if not names:
            return
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        _log.warning("importance %s has no opinion of %s%s: they stay whole", name, ", ".join(names[:3]), more)


def _given(study: Study, importance: Importance, gone: Collection[str]) -> Floats:
    """The scores that a user's function returns.

    Of channels that it leaves out 0, and of those that it scores on several axes the sum; of comparable ones the last
    that is a number, and NaN where there is none.
    """
    try:
        given = importance(study.model)
    except InputError:
        raise
    except Exception as error:  # the user's own code
        fact = f"the importance function raised {first_line(error)}"
        raise InputError(fact, "it is called with the model, with depth= with what is left of it") from error
    if not isinstance(given, Mapping):
        fact = f"the importance function returned a {type(given).__name__}"
        raise InputError(fact, "return scores by name: {'conv1.weight': one per row}")
    comparable = is_comparable(importance)
    scores = np.full(study.coupling.n_channels, np.nan if comparable else 0.0)
    for name, values in given.items():
        if name in gone or str(name).rpartition(":")[0] in gone:
            continue
        axis = _axis(study, name)
        array = np.asarray(torch.as_tensor(values).detach().cpu(), np.float64)
        if array.shape not in (axis.ids.shape, (axis.ids.size,)):
            raise InputError(
                f"importance gave {name} scores of shape {list(array.shape)}", f"give one per row: [{axis.ids.size}]"
            )
        known = np.isfinite(array) | (np.isnan(array) & comparable)
        if not known.all():
            raise InputError(f"importance gave {name} scores that are not finite", "give finite numbers")
        channels, array = study.coupling.channel_of[axis.ids].ravel(), array.ravel()
        if comparable:
            said = ~np.isnan(array)
            scores[channels[said]] = array[said]
        else:
            np.add.at(scores, channels, array)
    return scores


def _axis(study: Study, name: str) -> Axis:
    """The axis that scores are given of: dim 0 of a parameter, or `parameter:dim`.

    Raises:
        InputError: There is none.
    """
    parameter, _, dim = str(name).rpartition(":")
    found = study.coupling.axes.get((name, 0))
    if found is None and dim.isdigit():
        found = study.coupling.axes.get((parameter, int(dim)))
    if found is None:
        where = f"dim {dim}" if dim.isdigit() else "dim 0"
        raise InputError(f"importance scored {name!r}, which has no channels on {where}", "score parameters by name")
    return found


def _norms(study: Study, order: int) -> Floats:
    """The norm of all weight slices that write a channel, together."""
    coupling, program = study.coupling, study.program
    total = np.zeros(coupling.n_channels)
    producers, _ = sides_of(program, coupling)
    for name, dim in producers:
        axis = coupling.axes.get((name, dim))
        if axis is None:
            continue
        weight = program.tensors[name].detach()
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        norms, done = torch.empty(axis.ids.size, dtype=wide), 0
        for rows in pieces(slices(weight, axis).flatten(1)):
            norms[done : (done := done + len(rows))] = torch.linalg.vector_norm(rows, order, dim=1, dtype=wide)
        np.add.at(total, coupling.channel_of[axis.ids].ravel(), norms.double().numpy() ** order)
    scores: Floats = total ** (1 / order)
    return scores
