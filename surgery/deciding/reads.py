"""What each use of channels demands: which columns are read, which constants could be folded, and where."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from surgery.analysis.capture import Program
from surgery.analysis.constants import Constants
from surgery.coupling import Coupling, Use
from surgery.known import Known, Pattern
from surgery.layout import Bools, Ids
from surgery.rules.convolution import leads_last, pattern_of

Floats = npt.NDArray[np.float64]

BIASED_MODULES = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
"""Modules whose forward hands `self.bias` to the op, so that a bias can be made where there is none."""


@dataclass(frozen=True)
class Reading:
    """One use, with what is known there.

    Attributes:
        use: The use.
        channels: Channel of every input, `[g, i]`.
        rows: Channel of every output, `[g, o]`, or None where every reader counts.
        pattern: Which weights are not zero; None where each input counts as read.
        constant: Which inputs are constant along everything but their dim, `[g, i]`.
        value: Their constants (0 where they vary), `[g, i]`.
        slot: Name of the bias that a fold is written to (it may have to be made), or None: no fold.
        weight_name: Name of the weight where it is a parameter read here alone, or None: no carrier.
        refusal: Why a constant cannot be folded, where slot is None.
    """

    use: Use
    channels: Ids
    rows: Ids | None
    pattern: Pattern | None
    constant: Bools
    value: Floats
    slot: str | None
    weight_name: str | None
    refusal: str

    @cached_property
    def foldable(self) -> Bools:
        """Inputs that may go although they are read: constants that are zero, or can be folded, `[g, i]`."""
        if self.use.weight is None:
            zero: Bools = self.constant & (self.value == 0)
            return zero
        may = self.slot is not None and not self.use.borders
        able: Bools = self.constant & ((self.value == 0) | may | self.carries)
        return able

    @property
    def carries(self) -> bool:
        """Whether an input that stays could take over the constants that meet the border here."""
        return self.use.borders and self.weight_name is not None and self.channels.shape[1] > 1

    def read_by(self, alive: Bools) -> Bools:
        """Which inputs an alive output channel reads, `[g, i]`."""
        if self.pattern is None:
            read = np.ones(self.channels.shape, bool)
            return read if self.rows is None else read & alive[self.rows].any(1, keepdims=True)
        return self.pattern.columns if self.rows is None else self.pattern.columns_of(alive[self.rows])


def readings(model: nn.Module, program: Program, coupling: Coupling, known: Constants) -> list[Reading]:
    """Every use of the program, the last first."""
    made = [_reading(model, program, coupling, known, use) for use in coupling.uses]
    return made[::-1]


def _reading(model: nn.Module, program: Program, coupling: Coupling, known: Constants, use: Use) -> Reading:
    values, steady = arriving(known, use)
    shape = use.ids.shape
    weight: Known | None = known.known[use.weight] if use.weight is not None else None
    pattern = None
    if weight is not None and weight.everything:
        pattern = pattern_of(leads_last(weight, use.lead), shape[0], use.orientation, known.memo)
    slot, refusal = _slot(model, program, use)
    if use.weight is not None and pattern is None:
        slot, refusal = None, "its weight varies with the input"
    if pattern is None and use.partner is not None:
        absent = _zero_in_partner(known, use.partner, shape)
        values, steady = np.where(absent, 0.0, values), steady | absent
    return Reading(
        use=use,
        channels=coupling.channel_of[use.ids],
        rows=None if use.rows is None else coupling.channel_of[use.rows],
        pattern=pattern,
        constant=steady,
        value=np.where(steady, values, 0.0),
        slot=slot,
        weight_name=_own_weight(program, use),
        refusal=refusal,
    )


def arriving(known: Constants, use: Use) -> tuple[Floats, Bools]:
    """`(value, constant)` of what arrives at a use, each `[g, i]`; nothing is constant where no node holds it."""
    if use.operand is None:
        return np.zeros(use.ids.shape), np.zeros(use.ids.shape, bool)
    operand = known.known[use.operand]
    pieces = [operand] if use.part is None else [_layer(operand[use.part[0]], place) for place in use.part[1]]
    found = [piece.along(*use.dims) for piece in pieces]
    value, constant = (torch.cat(sides) if len(sides) > 1 else sides[0] for sides in zip(*found, strict=True))
    shape = use.ids.shape
    return value.detach().to("cpu", torch.float64).numpy().reshape(shape), constant.numpy().reshape(shape)


def _layer(states: Known, place: int) -> Known:
    """One layer's hidden state of all of them, `[1, b, h]`."""
    return states.held(0).map(lambda array: array.narrow(0, place, 1), (1, *states.shape[1:]))


def _zero_in_partner(known: Constants, partner: tuple[str, tuple[int, ...]], shape: tuple[int, ...]) -> Bools:
    """Where the other side of a product is zero throughout, `[rows, width]`; one of its rows may answer to several."""
    node, dims = partner
    operand: Known = known.known[node]
    value, constant = operand.along(*dims)
    zero: Bools = (constant & (value == 0)).numpy().reshape(-1, shape[1])
    return np.repeat(zero, shape[0] // zero.shape[0], axis=0)


def _slot(model: nn.Module, program: Program, use: Use) -> tuple[str | None, str]:
    """The bias that a fold can be written to, or why there is none."""
    if use.weight is None:
        return None, "a sum over the channels has no bias"
    if use.bias is not None:
        name = program.parameters.get(use.bias)
        if name is None:
            return None, "its bias is computed in forward"
        if not _read_by_contractions_only(program, name):
            return None, f"{name} is read elsewhere, too"
        return name, ""
    name = program.parameters.get(use.weight)
    module_path = program.module_of(use.node)
    try:
        module = model.get_submodule(module_path)
    except AttributeError:
        return None, "its module cannot be found"
    if not isinstance(module, BIASED_MODULES) or getattr(module, "bias", 0) is not None:
        return None, "it has no bias, and its code takes none"
    if name is not None and not any(alias == _joined(module_path, "weight") for alias in program.aliases[name]):
        return None, "it has no bias, and its weight is another module's"
    return _joined(module_path, "bias"), ""


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _read_by_contractions_only(program: Program, bias: str) -> bool:
    """Whether a bias is only ever added behind a convolution or a linear layer."""
    known = ("aten.conv", "aten.linear", "aten.addmm", "aten.lstm", "aten.gru", "aten.rnn")
    return all(str(user.target).startswith(known) for user in program.readers(bias))


def _own_weight(program: Program, use: Use) -> str | None:
    """The weight's name where this use is its only reader."""
    name = program.parameters.get(use.weight) if use.weight is not None else None
    return name if name is not None and len(program.readers(name)) == 1 else None
