"""What an operation hands over: the slim model, its plan, its proof, and a report for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from surgery.deciding.parts import Rewrite
from surgery.inputs import Inputs
from surgery.plans import Plan
from surgery.proof.prove import Proof
from surgery.sources.configs import Configured

GROUPS_SHOWN = 12


@dataclass(frozen=True)
class Result:
    """A slim model and everything that is to be said of it.

    Attributes:
        model: The slim model: the user's own class with smaller tensors (where its code insists on sizes, with the new
            ones written into it for this model: `plan.rewrites`), or (see `kind`) its captured graph.
        plan: What was cut.
        proof: Masked against slim; None with `prove=False`.
        params_before, params_after: Elements of the parameters, shared ones counted once.
        macs_before, macs_after: Multiply-accumulates of one call on the example inputs.
        notes: What else the reader should know.
        inputs: The example inputs.
        configured: The class and config of a model of transformers before the cut; None for other models.
        source_sha256: The hash of the weights that were cut, masks applied: of every tensor's name, type, shape, bytes.
        training: What was trained after the cut (and is not part of the proof), run by run, as plain data.
        earlier: What was cut before that, oldest first, where a net was cut several times while it trained; `plan` and
            `proof` are of the last time, the numbers before are of the net as it was at first.
        origin: The directory that it was read from (`surgery.checkpoints.reopen`); None for one that was cut here.
    """

    model: nn.Module
    plan: Plan
    proof: Proof | None
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    notes: tuple[str, ...] = ()
    inputs: Inputs | None = None
    configured: Configured | None = None
    source_sha256: str = ""
    training: tuple[Mapping[str, Any], ...] = ()
    earlier: tuple[Plan, ...] = ()
    origin: Path | None = None

    @property
    def plans(self) -> tuple[Plan, ...]:
        """All that was cut, in order."""
        return (*self.earlier, self.plan)

    @property
    def kind(self) -> Literal["class", "graph"]:
        """Whether `model` is of the user's class, or the captured graph (`plan.graph.reason` says why)."""
        return "class" if self.plan.graph is None else "graph"

    def __str__(self) -> str:
        lines = [
            f"parameters {_change(self.params_before, self.params_after)}",
            f"macs       {_change(self.macs_before, self.macs_after)}",
            *([f"cut {len(self.plans)} times while it trained; of the last time:"] if self.earlier else []),
            *self._bypassed(),
            *self._graph(),
            *self._code(),
            *self._groups(),
            *self._stranded(),
            *([str(self.plan.aim)] if self.plan.aim is not None else []),
            *(f"note: {note}" for note in self.notes),
            str(self.proof) if self.proof is not None else "not proven (prove=False)",
        ]
        return "\n".join(lines)

    def _bypassed(self) -> list[str]:
        count = len(self.plan.bypasses)
        modules = "one module went" if count == 1 else f"{count} modules went"
        return [f"{modules} as a whole: {self.plan.named_bypasses()}"] if count else []

    def _graph(self) -> list[str]:
        if self.plan.graph is None:
            return []
        return [f"handed back as its captured graph, for {self.plan.graph.reason} (keep_class=True leaves that whole)"]

    def _code(self) -> list[str]:
        """What was written into the code of modules."""
        rewrites = self.plan.rewrites
        if not rewrites:
            return []
        first = rewrites[0]
        place = ".".join(part for part in (first.module, first.functions[-1]) if part)
        count = len({rewrite.module for rewrite in rewrites})
        code = "the code of one module" if count == 1 else f"the code of {count} modules"
        said = f"{code} runs with numbers in the place of sizes that it insists on, as in {place}: {_change_of(first)}"
        return [f"{said} (keep_class=True leaves it alone)"]

    def _groups(self) -> list[str]:
        cut = [group for group in self.plan.groups if group.removed]
        if not cut:
            if self.plan.bypasses:
                return ["of what is left, no channel is dead"]
            return ["nothing was removed: no channel is dead", *self._alive()]
        lines = [str(self.plan).splitlines()[bool(self.plan.bypasses)].removeprefix("plan: ").strip()]
        lines += [f"  {g.name}: {g.channels} -> {g.channels - g.removed}" for g in cut[:GROUPS_SHOWN]]
        lines += [f"  ... and {len(cut) - GROUPS_SHOWN} more groups"] if len(cut) > GROUPS_SHOWN else []
        folds, carriers = len(self.plan.folds), len(self.plan.carries)
        if folds or carriers:
            lines.append(
                f"  {folds} biases take up removed constants; {carriers} channels were kept to carry them over borders"
            )
        return lines

    def _alive(self) -> list[str]:
        """Why the largest groups stay, when nothing goes."""
        largest = sorted(self.plan.groups, key=lambda group: -group.channels)[:3]
        return [f"  {self.plan.explain_group(group)}" for group in largest]

    def _stranded(self) -> list[str]:
        lines = []
        for group in self.plan.groups:
            if not group.stranded:
                continue
            lines.append(f"  stranded: {group.stranded} zeroed channels of {group.name} stay")
            lines += [f"    {count}: {why}" for why, count in group.blockers[:3]]
            if group.keep_alive:
                keepers = ", ".join(f"{name} ({count})" for name, count in group.keep_alive[:4])
                lines.append(f"    written by {keepers}")
        if apart := sum(group.alignable for group in self.plan.groups):
            stranded = sum(group.stranded for group in self.plan.groups)
            lines.append(
                f"  stranded in all: {stranded}; for {apart} of them masks disagree: `surgery align` makes them agree, "
                "`surgery explain` says what that frees"
            )
        return lines


def _change_of(rewrite: Rewrite) -> str:
    """One number in the place of an expression, in words."""
    entry = "" if rewrite.index is None else f"[{rewrite.index}]"
    new = "what follows" if rewrite.new == -1 else rewrite.new
    return f"`{rewrite.text}{entry}` is {new}, was {rewrite.old}"


def _change(before: int, after: int) -> str:
    less = f"-{100 * (1 - after / before):.1f} %" if after < before else "unchanged"
    return f"{before:,} -> {after:,} ({less})"
