"""The operation: decide, cut a copy, look at the result again, and keep what did not work out, until it holds."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from torch import nn

from surgery.analysis.capture import recorded
from surgery.analysis.graph_modules import GraphModel, rebound, with_origins
from surgery.cutting.cut import cut_
from surgery.cutting.expressions import calls_of, find_rewrites
from surgery.cutting.recheck import Mismatch, compare, recheck
from surgery.cutting.repair import eps_edits, find_edits, uneven
from surgery.cutting.rewriting import literal_edits
from surgery.cutting.twins import hollow_copy, sharing_copy
from surgery.deciding.build import build
from surgery.deciding.cuts import Cuts
from surgery.deciding.dead import decide, needs_fold
from surgery.deciding.parts import Edit, Rewrite
from surgery.deciding.rescaling import unscalable
from surgery.deciding.study import Study
from surgery.deciding.widths import ANY, Widths
from surgery.layout import Bools, Ids, Layout, covered

C = TypeVar("C", bound=Cuts)

Steps = dict[tuple[type[nn.Module], str], int]
"""By class and name of modules, which of the things that can be tried with their code was the last."""
PLAIN = 3
"""How many of them leave the code and all sizes as they would be."""

Kept = list[tuple[Ids, str]]
"""Channels that must stay, each with its sentence."""


@dataclass(frozen=True)
class Operation(Generic[C]):
    """Cuts that hold, and which channels live on (`[n_channels]`).

    `forced` says where the model's own code could not run narrower, or is empty; `steps`, what its modules took.
    """

    model: nn.Module
    cuts: C
    alive: Bools
    forced: str = ""
    steps: Steps = field(default_factory=dict)

    @staticmethod
    def nothing(study: Study, kind: type[C]) -> Operation[C]:
        """The operation that cuts nothing."""
        return Operation(study.model, kind(axes=()), np.ones(study.coupling.n_channels, bool))

    def of(self, model: nn.Module) -> nn.Module:
        """The cuts carried out on a copy of another model of the same shapes (in float64, say)."""
        copied = copy.deepcopy(model)
        if self.cuts.graph is None:
            return cut_(copied, self.cuts)
        dtype = next(parameter.dtype for parameter in copied.parameters() if parameter.is_floating_point())
        return cut_(rebound(self.model, copied).to(dtype), self.cuts)

    @cached_property
    def slim(self) -> nn.Module:
        """The slim model; what stays whole lies in the memory of the one that was cut."""
        copied = sharing_copy(self.model)
        return copied if self.cuts.empty else cut_(copied, self.cuts)


def operate(
    study: Study,
    kind: type[C],
    *,
    allowed: Bools | None = None,
    columns: Bools | None = None,
    widths: Widths = ANY,
    kept: Sequence[tuple[Ids, str]] = (),
    rewriting: Steps | None = None,
) -> Operation[C]:
    """Cut a copy of the study's model of everything that is dead, and check the copy op by op.

    Args:
        study: The model, its weights masked.
        kind: The class of the cuts to make.
        allowed: Only these channels may go; None allows all.
        columns: Channels whose consumers' columns were zeroed as well.
        widths: What is asked of the widths that stay.
        kept: Channels that must stay.
        rewriting: With it the code of modules may get numbers written into it; what others took on the way there.
    """
    staying: Kept = list(kept)
    forced = ""
    tries = _Tries(study.model, rewriting)
    while True:
        decision = decide(study.case, allowed=allowed, widths=widths, kept=staying)
        unequal = uneven(study.model, study.program, study.coupling, decision.alive, tries.evened)
        forced = forced or (unequal[1] if unequal is not None else "")
        unequal = unequal or unscalable(study.program, study.coupling, decision.alive)
        if unequal is not None:
            staying.append(unequal)
            continue
        cuts = build(kind, study.program, study.coupling, study.known, study.readings, decision, columns=columns)
        if cuts.empty:
            return Operation(study.model, cuts, decision.alive, forced, tries.taken)
        cuts = replace(
            cuts, edits=_edits(study, decision.alive, tries), rewrites=_rewrites(study, decision.alive, tries)
        )
        mismatch = _check(study, decision.alive, cuts)
        if mismatch is None:
            return Operation(study.model, cuts, decision.alive, forced, tries.taken)
        if tries.another(mismatch.module):
            continue
        blamed = _blamed(study, decision.alive, mismatch)
        forced = forced or blamed[1]
        staying.append(blamed)


def _edits(study: Study, alive: Bools, tries: _Tries) -> tuple[Edit, ...]:
    """The numbers to set: in the graph where the model is one, else in its modules."""
    if isinstance(study.model, GraphModel):
        literals = literal_edits(study.model, study.program, study.coupling, alive)
        return (*literals, *eps_edits(study.coupling, alive))
    return find_edits(study.model, study.program, study.coupling, alive, tries.banned, tries.bold)


def _rewrites(study: Study, alive: Bools, tries: _Tries) -> tuple[Rewrite, ...]:
    """The numbers to write into the code of modules."""
    modules = tries.coded
    if modules and "calls" not in study.memo:
        study.memo["calls"] = calls_of(study.model, study.program, study.inputs)
    calls = study.memo["calls"] if modules else {}
    return find_rewrites(study.model, study.program, study.coupling, alive, calls, modules)


class _Tries:
    """What has been tried to make modules' code run narrower; modules of one class are treated alike.

    First their numbers are set where they equal a changed size and no other; then wherever they equal one; then left
    alone (the code may take its sizes from the tensors). Where `rewriting` is allowed, their code is tried with numbers
    in the place of what it computes, with attributes set and with attributes left alone. Then they are set, with all
    sizes kept equal that one number may stand for; then left alone for good.
    """

    def __init__(self, model: nn.Module, rewriting: Steps | None) -> None:
        self.model = model
        coded = [] if rewriting is None else [{"coded"}, {"coded", "banned"}]
        self.steps = [set(), {"bold"}, {"banned"}, *coded, {"evened", "bold"}, {"evened", "banned"}]
        self.step: Steps = dict(rewriting or {})

    def another(self, path: str) -> bool:
        """Whether something else can be tried in the module; in a graph there is nothing to guess."""
        if isinstance(self.model, GraphModel):
            return False
        kind = self._kind(path, self.model.get_submodule(path))
        step = self.step.get(kind, 0) + 1
        self.step[kind] = min(step, len(self.steps) - 1)
        return step < len(self.steps)

    @property
    def taken(self) -> Steps:
        """What every kind of module came to; with their code, where they gave up pieces or did not come out at all."""
        return {kind: PLAIN if "evened" in self.steps[step] else step for kind, step in self.step.items()}

    @property
    def bold(self) -> set[str]:
        """Modules of which all numbers are set that equal a changed size."""
        return self._at("bold")

    @property
    def banned(self) -> set[str]:
        """Modules whose numbers are left alone."""
        return self._at("banned")

    @property
    def coded(self) -> set[str]:
        """Modules whose code gets numbers written into it."""
        return self._at("coded")

    @property
    def evened(self) -> set[str]:
        """Modules of which sizes that were equal stay so."""
        return self._at("evened")

    def _at(self, word: str) -> set[str]:
        kinds = {kind for kind, step in self.step.items() if word in self.steps[step]}
        modules = self.model.named_modules(remove_duplicate=False) if kinds else ()
        return {path for path, module in modules if self._kind(path, module) in kinds}

    def _kind(self, path: str, module: nn.Module) -> tuple[type[nn.Module], str]:
        """The class and the name in the parent; layers of a list are alike."""
        name = path.rpartition(".")[2]
        return type(module), "" if name.isdigit() else name


def _check(study: Study, alive: Bools, cuts: Cuts) -> Mismatch | None:
    """Whether the slim model is as planned: on its shapes alone where they will do, else on the model itself."""
    devices = {parameter.device for parameter in study.model.parameters()}
    if len(devices) == 1:
        hollow = cut_(hollow_copy(study.model), cuts)
        device = devices.pop()
        after = recorded(hollow, study.inputs, None if device.type == "meta" else device)
        after = after if after is None else with_origins(after, hollow)
        if after is not None and compare(study.program, study.coupling, alive, cuts, after) is None:
            return None
    slim = cut_(sharing_copy(study.model), cuts)
    return recheck(study.program, study.coupling, alive, cuts, slim, study.inputs)


def _blamed(study: Study, alive: Bools, mismatch: Mismatch) -> tuple[Ids, str]:
    """The removed channels at the place of a mismatch; all of its module's, or of the model's, where there are none."""
    program = study.program
    place = program.where(mismatch.nodes[0]) if mismatch.nodes else mismatch.module or "the model"
    if mismatch.bias:
        folded = [r.channels[needs_fold(r, alive)] for r in study.readings if r.slot == mismatch.bias]
        return np.unique(np.concatenate(folded)), f"a constant that cannot be folded into {place}: {mismatch.fact}"
    inside = [
        n.name for n in program.nodes if n.op == "call_function" and mismatch.module in program.modules_of(n.name)
    ]
    everywhere = [n.name for n in program.nodes]
    for names in (mismatch.nodes, inside, everywhere):
        narrowed = _removed_at(study, alive, names, rows_only=True)
        channels = narrowed if narrowed.size else _removed_at(study, alive, names)
        if channels.size:
            break
    # channels that the code makes (padding) are the likeliest to be so many by a number in the code
    made = [study.coupling.channel_of[ids] for _, _, ids in study.coupling.anonymous]
    likeliest = channels[np.isin(channels, np.concatenate(made))] if made else channels
    channels = likeliest if likeliest.size else channels
    return channels, f"the code at {place} cannot run narrower: {mismatch.fact}"


def _removed_at(study: Study, alive: Bools, names: Sequence[str], *, rows_only: bool = False) -> Ids:
    """The channels that went at some nodes; with `rows_only` those of rows that stay (heads that became narrower)."""
    found = [np.empty(0, np.int64)]
    for name in names:
        value = study.coupling.layouts.get(name)
        for layout in value if isinstance(value, tuple) else (value,):
            if isinstance(layout, Layout):
                for block in layout.blocks:
                    channels = study.coupling.channel_of[block]
                    if rows_only:
                        dims = covered(block)
                        rows = (
                            np.moveaxis(channels, dims[-1], -1).reshape(-1, block.shape[dims[-1]]) if dims else channels
                        )
                        channels = rows[alive[rows].any(1)] if len(dims) > 1 else np.empty(0, np.int64)
                    found.append(channels.ravel())
    channels = np.unique(np.concatenate(found))
    gone: Ids = channels[~alive[channels]]
    return gone
