"""A study: everything that is known of one model on one set of inputs, ready to be decided on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from surgery.analysis.capture import Program, capture
from surgery.analysis.constants import Constants, constants
from surgery.analysis.couple import couple
from surgery.analysis.graph_modules import with_origins
from surgery.analysis.norms import norm_sites
from surgery.analysis.unchanged import Unchanged
from surgery.coupling import Coupling
from surgery.deciding.case import Case
from surgery.deciding.reads import Reading, arriving, readings
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.registry import arguments
from surgery.tensors import named_tensors


@dataclass(frozen=True)
class Study:
    """A captured model and its coupling; what is constant and read follows on demand (it needs the weights).

    `memo` holds what was found of the model's code, for all studies of it with other weights. `stored` holds, by every
    name, what stands for tensors that the model has on the meta device and whose values are elsewhere; else nothing.
    """

    model: nn.Module
    inputs: Inputs
    program: Program
    coupling: Coupling
    memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    stored: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def of(model: nn.Module, inputs: Inputs) -> Study:
        """Capture and couple a model whose masks are baked.

        Raises:
            CaptureError: The model refused the inputs or cannot be captured.
            InputError: The model has no parameters, or draws random numbers in eval mode.
        """
        if not any(parameter.is_floating_point() for parameter in model.parameters()):
            kind = "no floating-point parameters" if any(True for _ in model.parameters()) else "no parameters"
            raise InputError(f"{type(model).__name__} has {kind}", "pass a model with weights to cut")
        program = with_origins(capture(model, inputs), model)
        _refuse_random(program)
        return Study(model, inputs, program, couple(program, norm_sites(model, program)))

    def with_weights_of(self, model: nn.Module) -> Study:
        """The same study for a model of the same shapes with other weights; nothing is captured again."""
        own = {**named_tensors(model), **self.stored}
        tensors = {name: own[name] for name in self.program.tensors}
        return Study(model, self.inputs, replace(self.program, tensors=tensors), self.coupling, self.memo, self.stored)

    def with_stored(self, stored: Mapping[str, Tensor]) -> Study:
        """The same study of a model on the meta device, with what stands for its tensors."""
        return replace(self, stored=stored).with_weights_of(self.model)

    def forget(self) -> None:
        """Let go of everything that was found of the weights, so that they can be replaced and their memory freed."""
        for name in ("known", "unchanged", "readings", "case"):
            vars(self).pop(name, None)
        self.memo.clear()

    @cached_property
    def known(self) -> Constants:
        """What does not vary, in float64."""
        return constants(self.program)

    @cached_property
    def unchanged(self) -> Unchanged:
        """What is computed for nothing."""
        return Unchanged.of(self.program, self.known)

    @cached_property
    def readings(self) -> list[Reading]:
        """Every use, the last first."""
        return readings(self.model, self.program, self.coupling, self.known)

    @cached_property
    def case(self) -> Case:
        """What a decision rests on."""
        case = Case(self.coupling, self.readings, self.program.where)
        bordered = [i for i, r in enumerate(self.readings) if r.carries and (r.constant & (r.value != 0)).any()]
        if bordered:
            run_time = constants(self.program, self.dtype, self.known.memo)
            for index in bordered:
                use = self.readings[index].use
                case.run_time_values[index], _ = arriving(run_time, use)
        return case

    @property
    def dtype(self) -> torch.dtype:
        """The model's own floating-point precision."""
        found = (t.dtype for t in self.program.tensors.values() if t.is_floating_point())
        return next(found, torch.float32)


def _refuse_random(program: Program) -> None:
    """Live random ops make equality meaningless: `F.dropout` without `training=` stays live in eval mode."""
    for node in program.nodes:
        if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
            continue
        settings = arguments(node.target, node.args, node.kwargs)  # dropout, lstm, attention: each its own words
        switches = [settings[name] for name in ("p", "dropout", "dropout_p", "train", "training") if name in settings]
        live = all(switch is None or bool(switch) for switch in switches)
        if live and node.users:
            raise InputError(
                f"the model draws random numbers in eval mode: {node.target} at {program.where(node.name)}",
                "pass training=self.training to it, so that eval mode switches it off",
            )
