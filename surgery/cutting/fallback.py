"""Where a model's own code, as it is, cannot run narrower: write sizes into it, or cut it as a captured graph.

Each only if it removes more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from surgery.analysis.capture import evaluating, ops_called, prepared
from surgery.analysis.graph_modules import GraphModel, rebound
from surgery.analysis.graph_specs import spec_of
from surgery.analysis.graphs import as_graph
from surgery.analysis.standing import standing_in
from surgery.coupling import Coupling
from surgery.cutting.operate import Operation, operate
from surgery.deciding.cuts import Cuts
from surgery.deciding.study import Study
from surgery.deciding.widths import ANY, Widths
from surgery.errors import CaptureError, InputError
from surgery.inputs import Inputs
from surgery.layout import Bools, Ids

WORTH = 0.95
"""Code is rewritten, or a graph handed back, where it leaves at most this share of what would be left without."""

C = TypeVar("C", bound=Cuts)


def operate_anyhow(
    study: Study,
    kind: type[C],
    *,
    allowed: Bools | None = None,
    columns: Bools | None = None,
    widths: Widths = ANY,
    kept: Sequence[tuple[Ids, str]] = (),
    keep_class: bool = False,
) -> Operation[C]:
    """`operate`; where the model's code holds channels back, with sizes written into it, or on its graph.

    Arguments as for `operate`; with `keep_class` the model as it is is all that is tried.
    """
    settings: dict[str, Any] = {"allowed": allowed, "columns": columns, "widths": widths, "kept": kept}
    known = None if keep_class else study.memo.get("steps")  # its code was rewritten before, and is again
    own = operate(study, kind, **settings, rewriting=known)
    if keep_class or not own.forced:
        return own
    if known is None:
        coded = operate(study, kind, **settings, rewriting=own.steps)
        if coded.cuts.elements_left <= WORTH * own.cuts.elements_left:
            own = coded
            study.memo["steps"] = coded.steps
    whole = graph_study(study) if own.forced else None
    if whole is None:
        return own
    there = _Translation(study.coupling, whole.coupling)
    other = operate(
        whole,
        kind,
        allowed=None if allowed is None else there(allowed),
        columns=None if columns is None else there(columns),
        widths=widths,
        kept=[(np.flatnonzero(there(_flags(channels, study.coupling))), why) for channels, why in kept],
    )
    if other.cuts.elements_left > WORTH * own.cuts.elements_left:
        return own
    assert isinstance(whole.model, GraphModel), "made so"
    cuts = replace(other.cuts, graph=spec_of(whole.model, study.inputs, own.forced))
    alive = ~_Translation(whole.coupling, study.coupling)(~other.alive)
    return Operation(whole.model, cuts, alive, own.forced)


def graph_study(study: Study) -> Study | None:
    """The study of the model as a graph, on the model's own tensors; None where no graph does all that it does."""
    if "graph" not in study.memo and not _one_way(study.model, study.inputs):
        study.memo["graph"] = None
    if "graph" not in study.memo:
        try:
            whole = as_graph(study.model, study.inputs)
            fits = not _refuses_more(whole, study.model, study.inputs)
            study.memo["graph"] = Study.of(whole, study.inputs) if fits else None
        except (CaptureError, InputError):
            study.memo["graph"] = None
    known: Study | None = study.memo["graph"]
    if known is None:
        return None
    return replace(known, stored=study.stored).with_weights_of(rebound(known.model, study.model))


def _one_way(model: nn.Module, inputs: Inputs) -> bool:
    """Whether the model's code calls the same ops at other sizes (quick; where that is not known, it may)."""
    here = ops_called(model, inputs)
    if here is None:
        return True
    found = (ops_called(model, candidate) for candidate in inputs.resized(0))
    return all(there == here for there in found if there is not None)


def _refuses_more(whole: nn.Module, model: nn.Module, inputs: Inputs) -> bool:
    """Whether the model takes a batch or a size that its graph does not: code that counts in Python, as windows do."""
    batches = [batch for size in (1, 3) if (batch := inputs.with_batch(size, size)) is not None]
    with evaluating(model), evaluating(whole), torch.no_grad():
        return any(
            _runs(model, other) and not _runs(whole, other)
            for other in (*batches, *inputs.resized(0), *inputs.stretched(3))
        )


def _runs(model: nn.Module, inputs: Inputs) -> bool:
    try:
        with prepared(model), standing_in(model, inputs):
            inputs.call(model)
    except Exception:  # a model may refuse a shape with any error
        return False
    return True


def _flags(channels: Ids, coupling: Coupling) -> Bools:
    flags = np.zeros(coupling.n_channels, bool)
    flags[channels] = True
    return flags


class _Translation:
    """Channels of one coupling in terms of another of the same tensors: one counts where all of its units do."""

    def __init__(self, here: Coupling, there: Coupling) -> None:
        pairs = [(axis, there.axes[key]) for key, axis in here.axes.items() if key in there.axes]
        same = [(a, b) for a, b in pairs if a.ids.shape == b.ids.shape]
        empty = np.empty(0, np.int64)
        self.source = np.concatenate([here.channel_of[a.ids].ravel() for a, _ in same] or [empty])
        self.target = np.concatenate([there.channel_of[b.ids].ravel() for _, b in same] or [empty])
        self.size = there.n_channels

    def __call__(self, flags: Bools) -> Bools:
        """The flags of the other coupling's channels."""
        total = np.bincount(self.target, minlength=self.size)
        held = np.bincount(self.target, flags[self.source], minlength=self.size)
        translated: Bools = (total > 0) & (held == total)
        return translated
