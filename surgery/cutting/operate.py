"""The operation: decide, cut a copy, look at the result again, and keep what did not work out, until it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from torch import nn

from surgery.coupling import Bools
from surgery.cutting.cut import cut_
from surgery.cutting.recheck import Mismatch, recheck
from surgery.cutting.repair import find_edits, uneven
from surgery.cutting.sharing import sharing_copy
from surgery.deciding.build import build
from surgery.deciding.cuts import Cuts
from surgery.deciding.dead import decide, needs_fold
from surgery.deciding.study import Study
from surgery.layout import Ids, Layout

C = TypeVar("C", bound=Cuts)

Kept = list[tuple[Ids, str]]
"""Channels that must stay, each with its sentence."""


@dataclass(frozen=True)
class Operation(Generic[C]):
    """A slim model, the cuts that made it, and which channels live on (`[n_channels]`).

    What stays whole in the slim model lies in the memory of the study's model.
    """

    slim: nn.Module
    cuts: C
    alive: Bools


def operate(
    study: Study,
    kind: type[C],
    *,
    allowed: Bools | None = None,
    columns: Bools | None = None,
    round_to: int = 1,
    kept: Sequence[tuple[Ids, str]] = (),
) -> Operation[C]:
    """Cut a copy of the study's model of everything that is dead, and check the copy op by op.

    Args:
        study: The model, its weights masked.
        kind: The class of the cuts to make.
        allowed: Only these channels may go; None allows all.
        columns: Channels whose consumers' columns were zeroed as well.
        round_to: Widths are kept at multiples of this.
        kept: Channels that must stay.
    """
    staying: Kept = list(kept)
    banned: set[str] = set()
    while True:
        decision = decide(study.case, allowed=allowed, round_to=round_to, kept=staying)
        unequal = uneven(study.model, study.program, study.coupling, decision.alive, banned)
        if unequal is not None:
            staying.append(unequal)
            continue
        cuts = build(kind, study.program, study.coupling, study.known, study.readings, decision, columns=columns)
        if cuts.empty:
            return Operation(sharing_copy(study.model), cuts, decision.alive)
        edits = find_edits(study.model, study.program, study.coupling, decision.alive, banned)
        cuts = replace(cuts, edits=edits)
        slim = cut_(sharing_copy(study.model), cuts)
        mismatch = recheck(study.program, study.coupling, decision.alive, cuts, slim, study.inputs)
        if mismatch is None:
            return Operation(slim, cuts, decision.alive)
        if mismatch.module not in banned and any(edit.module == mismatch.module for edit in edits):
            banned.add(mismatch.module)
            continue
        staying.append(_blamed(study, decision.alive, mismatch))


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
        channels = _removed_at(study, alive, names)
        if channels.size:
            break
    # channels that the code makes (padding) are the likeliest to be so many by a number in the code
    made = [study.coupling.channel_of[ids] for _, ids in study.coupling.anonymous]
    likeliest = channels[np.isin(channels, np.concatenate(made))] if made else channels
    channels = likeliest if likeliest.size else channels
    return channels, f"the code at {place} cannot run narrower: {mismatch.fact}"


def _removed_at(study: Study, alive: Bools, names: Sequence[str]) -> Ids:
    found = [np.empty(0, np.int64)]
    for name in names:
        value = study.coupling.layouts.get(name)
        for layout in value if isinstance(value, tuple) else (value,):
            if isinstance(layout, Layout):
                found += [study.coupling.channel_of[block].ravel() for block in layout.blocks]
    channels = np.unique(np.concatenate(found))
    gone: Ids = channels[~alive[channels]]
    return gone
