"""Recurrent layers: a hidden unit is one row of every gate, one column of the recurrence, and one output.

Weights as PyTorch lays them out: per layer and direction `w_ih [gates * H, I]`, `w_hh [gates * H, H]` and their biases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Ids, Layout
from surgery.registry import rule
from surgery.rules.convolution import pattern_of

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
MAKING = {"lstm": 2, "gru": 2, "rnn_tanh": 0, "rnn_relu": 0}
"""The gate that what a unit holds is made of: while it is zero, the unit stays at zero."""


@dataclass(frozen=True)
class _Cell:
    """One layer in one direction: its weights, `Value` or `Known`."""

    layer: int
    w_ih: Any
    w_hh: Any
    b_ih: Any = None
    b_hh: Any = None


def _cells(params: Sequence[Any], has_biases: bool, directions: int, layers: int) -> Iterator[_Cell] | None:
    each = 4 if has_biases else 2
    if len(params) != each * directions * layers:  # projections
        return None
    runs = [params[i : i + each] for i in range(0, len(params), each)]
    return (_Cell(index // directions, *run) for index, run in enumerate(runs))


@rule("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")
def recurrent(
    call: Call,
    input: Value,
    hx: Any,
    params: list[Value],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    **_: Any,
) -> tuple[Layout, ...]:
    """`x [t, b, i] (or b, t) -> y [t, b, directions * h]`, and the last state `[layers * directions, b, h]`."""
    directions = 2 if bidirectional else 1
    states = hx if isinstance(hx, list | tuple) else [hx]
    cells = _cells(params, has_biases, directions, num_layers)
    if cells is None:
        call.hold_all([input, *states, *params], f"{call.name} with projections has no rule")
        return tuple(Layout(shape) for shape in call.shapes)
    layout, arriving = call.channels(input, 2)
    call.only(Value(input.node, layout), [2], f"{call.name} runs over it")
    gates = GATES[call.name]
    made: list[Ids] = []
    for index, cell in enumerate(cells):
        if index and index % directions == 0:
            arriving = np.concatenate(made[-directions:])
        made.append(_cell(call, input, cell, index, arriving, gates, directions))
    table = np.stack(made)
    if table.shape[1] > 1:
        call.uniform(table, rows_stay=True)
    for state in states:
        _start(call, state, table)
    last = np.concatenate(made[-directions:])
    lasting = (table[:, None, :],) if table.shape[1] > 1 else ()
    output = Layout(call.shape, call.placed(last, 3, 2))
    return (output, *(Layout(shape, lasting) for shape in call.shapes[1:]))


def _cell(call: Call, input: Value, cell: _Cell, index: int, arriving: Ids | None, gates: int, directions: int) -> Ids:
    """Tie what belongs to each hidden unit and record who reads what; the units, `[h]`."""
    rows = _rows(call, cell.w_ih, gates)
    units = rows[0]
    for weight in (cell.w_ih, cell.w_hh, cell.b_ih, cell.b_hh):
        if weight is not None:
            call.tie(_rows(call, weight, gates), units[None, :])
    columns, again = cell.w_ih.layout.block_of(1), cell.w_hh.layout.block_of(1)
    if again is not None:
        call.tie(again.ravel(), units)
    if columns is not None and arriving is not None:
        call.tie(columns.ravel(), arriving)
    elif columns is not None:
        call.pin(columns, f"{call.name} meets channels that are fixed")
    elif arriving is not None:
        call.pin(arriving, f"{call.name}: the weight's inputs are fixed")
    readers = rows.reshape(1, -1)
    node = Value(call.node, Layout(call.shape))
    if arriving is not None and cell.layer == 0:
        call.use(input, 2, arriving.reshape(1, -1), rows=readers, weight=cell.w_ih, bias=cell.b_ih)
    elif arriving is not None:
        below = tuple(range((cell.layer - 1) * directions, cell.layer * directions))
        call.use(node, 2, arriving.reshape(1, -1), rows=readers, weight=cell.w_ih, bias=cell.b_ih, part=(1, below))
    call.use(node, 2, units.reshape(1, -1), rows=readers, weight=cell.w_hh, bias=cell.b_hh, part=(1, (index,)))
    made: Ids = units
    return made


def _rows(call: Call, weight: Value, gates: int) -> Ids:
    """The ids of a weight's dim 0, `[gates, h]`; one gate of one unit has none of its own."""
    block = weight.layout.block_of(0)
    ids = call.fresh(weight.shape[0]) if block is None else block.ravel()
    rows: Ids = ids.reshape(gates, -1)
    return rows


def _start(call: Call, state: Value, table: Ids) -> None:
    """The state at the beginning: zeros that the code makes follow; what comes from outside holds the units."""
    block = state.layout.block_of(2)
    if block is not None and block.shape[1] == 1:
        call.tie(block[:, 0, :], table)
    elif block is not None or not state.settled:
        call.hold_all(state, f"{call.name} begins with it")
        call.pin(table, f"{call.name} begins with a state that cannot shrink")


@recurrent.known
def _known_recurrent(
    call: KnownCall,
    input: Known,
    hx: Any,
    params: list[Known],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    **_: Any,
) -> tuple[Known, ...]:
    """A unit is zero for ever where its state begins at zero and the gate that fills it is zero."""
    directions = 2 if bidirectional else 1
    cells = _cells(params, has_biases, directions, num_layers)
    states = hx if isinstance(hx, list | tuple) else [hx]
    resting = all(state.everything and not bool(state.value.any()) for state in states)
    if cells is None or not resting or not all(known.everything for known in params):
        return tuple(Known.anything(shape) for shape in call.shapes)
    value, constant = input.along(2)
    arriving = ~(constant & (value == 0))
    silent: list[Tensor] = []
    for index, cell in enumerate(cells):
        if index and index % directions == 0:
            arriving = ~torch.cat(silent[-directions:])
        silent.append(_silent(call, cell, arriving))
    last = torch.cat(silent[-directions:]).reshape(1, 1, -1)
    table = torch.stack(silent).unsqueeze(1)
    zero = torch.zeros(1, dtype=call.dtype).reshape(1, 1, 1)
    return (Known(call.shape, zero, ~last), *(Known(shape, zero, ~table) for shape in call.shapes[1:]))


def _silent(call: KnownCall, cell: _Cell, arriving: Tensor) -> Tensor:
    """Which units are never filled, `[h]`."""
    gate, gates = MAKING[call.name], GATES[call.name]
    reading = torch.zeros(cell.w_ih.shape[0], dtype=torch.bool)
    for weight, inputs in ((cell.w_ih, arriving), (cell.w_hh, torch.ones(cell.w_hh.shape[1], dtype=torch.bool))):
        pattern = pattern_of(weight, 1, "out_in", call.memo)
        reading |= torch.from_numpy(pattern.rows_on(inputs.numpy().reshape(1, -1)).reshape(-1))
    if cell.b_ih is not None:
        one, other = (bias.full().to("cpu", call.dtype) for bias in (cell.b_ih, cell.b_hh))
        reading |= (one != 0) | (other != 0) if call.name == "gru" else one + other != 0
    quiet: Tensor = ~reading.reshape(gates, -1)[gate]
    return quiet
