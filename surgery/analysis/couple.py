"""Run a program on unit ids: every op's rule says how ids flow, and writes down ties, pins and uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

import surgery.rules  # noqa: F401  # fills the rule table
from surgery.analysis.capture import Program, shapes_of
from surgery.analysis.writes import written_argument
from surgery.calls import Call, Value
from surgery.coupling import UNUSED, Axis, Coupling, Ledger, LedgerError, NormSite, Pin, Uniform
from surgery.layout import Ids, Layout, on_dim
from surgery.registry import Rule, arguments, find_rule

WHOLE = (torch.int64, torch.int32)
MANY = 1024
"""A list of positions in the code is shorter than this."""

HANDING_ON = ("lift_fresh_copy", "lift_fresh", "to", "_to_copy", "clone", "detach", "detach_", "alias")

Placed = Callable[[str, tuple[int, ...], Ledger], Layout]
"""How a parameter `(canonical name, shape)` gets its ids."""


def couple(program: Program, norms: Mapping[str, NormSite] | None = None) -> Coupling:
    """The coupling of a program: its channels, pins with reasons, rectangles and uses.

    Args:
        program: The program.
        norms: Norms that a cut can make up for, by the node that averages (`norm_sites`).
    """
    ledger = Ledger()
    run(program, ledger, fresh_axes, norms=norms)
    _rectangles(ledger)
    return ledger.close()


def fresh_axes(name: str, shape: tuple[int, ...], ledger: Ledger) -> Layout:
    """Fresh ids on every dim of a parameter that has more than one position."""
    blocks = []
    for dim, size in enumerate(shape):
        if size > 1:
            ids = ledger.fresh(size)
            ledger.axes[name, dim] = Axis(name, dim, ids)
            blocks.append(on_dim(ids, len(shape), dim))
    return Layout(shape, tuple(blocks))


def run(
    program: Program,
    ledger: Ledger,
    place: Placed,
    call_type: type[Call] = Call,
    norms: Mapping[str, NormSite] | None = None,
) -> None:
    """Run the program's rules in order, writing into `ledger`."""
    norms = norms or {}
    heard = _heard(program)
    env: dict[fx.Node, Any] = {}
    parameters: dict[str, Layout] = {}
    for node in program.nodes:
        if node.op == "placeholder":
            env[node] = _placeholder(program, node, ledger, place, parameters)
        elif node.op == "output":
            _pin_outputs(node, env, ledger)
        elif node.op == "call_function":
            env[node] = _step(
                node, env, ledger, call_type, norms.get(node.name), idle=node not in heard and _reduces(node)
            )
            written = written_argument(node)
            if written is not None and isinstance(env[node], Value):
                env[written] = env[node]
        else:
            env[node] = None


def _placeholder(
    program: Program, node: fx.Node, ledger: Ledger, place: Placed, parameters: dict[str, Layout]
) -> Value | None:
    shapes = shapes_of(node)
    if not shapes:
        return None
    name = program.parameters.get(node.name)
    if name is None:
        layout = Layout(shapes[0])
    elif name in parameters:
        layout = parameters[name]
    else:
        layout = parameters[name] = place(name, shapes[0], ledger)
        reason = f"{name} is written in forward" if name in program.mutated else UNUSED
        if name in program.mutated or name in program.unused:
            for block in layout.blocks:
                ledger.pins.append(Pin(block.ravel(), reason, node.name))
    ledger.layouts[node.name] = layout
    settled = name is not None and name not in program.given
    return Value(node.name, layout, name, settled=settled, numbers=_numbers(program.lifted.get(node.name)))


def _numbers(written: Tensor | None) -> tuple[int, ...] | None:
    """What a short list of whole numbers in the code says."""
    if written is None or written.is_meta or written.dim() != 1 or written.dtype not in WHOLE or len(written) > MANY:
        return None
    return tuple(written.tolist())


def _heard(program: Program) -> set[fx.Node]:
    """Nodes that reach an output, write into something or answer with no tensor (they check what they are given)."""
    heard: set[fx.Node] = set()
    for node in reversed(program.nodes):
        checks = node.op == "output" or not shapes_of(node)
        if checks or node in heard or written_argument(node) is not None:
            heard |= {node, *node.all_input_nodes}
    return heard


def _reduces(node: fx.Node) -> bool:
    """Whether an op only reads along a dim that it takes away: what others keep of their operands' sizes has to fit."""
    rule = find_rule(node.target)
    return rule is not None and rule.couple.__module__ == "surgery.rules.reductions"


def _step(
    node: fx.Node,
    env: dict[fx.Node, Any],
    ledger: Ledger,
    call_type: type[Call],
    norm: NormSite | None,
    *,
    idle: bool,
) -> Any:
    """One op: its rule's answer, checked for ids that got lost."""
    bound = fx.map_arg(arguments(node.target, node.args, node.kwargs), env.get)
    shapes = shapes_of(node)
    operands = _values(bound)
    call = call_type(node.name, _op_name(node), shapes or ((),), ledger)
    call.norm, call.idle = norm, idle
    rule = find_rule(node.target)
    if rule is None:
        answer = _unruled(call, operands, shapes)
    else:
        try:
            answer = rule.couple(call, **bound)
        except LedgerError:
            raise
        except Exception as error:  # a fault of a rule must not cost the user the whole analysis
            answer = _unruled(call, operands, shapes, f"the rule for {call.op} failed: {type(error).__name__}: {error}")
        else:
            _conserve(call, rule, operands, answer)
    settled = all(value.settled for value in operands)
    named = _named(node, answer, ledger, settled)
    if isinstance(named, Value) and call.name in HANDING_ON and len(operands) == 1:
        return replace(named, numbers=operands[0].numbers)
    return named


def _op_name(node: fx.Node) -> str:
    return str(node.target) if not callable(node.target) or hasattr(node.target, "_schema") else _callable_name(node)


def _callable_name(node: fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target))


def _values(bound: dict[str, Any]) -> list[Value]:
    found: list[Value] = []

    def visit(item: Any) -> None:
        if isinstance(item, Value):
            found.append(item)
        elif isinstance(item, list | tuple):
            for one in item:
                visit(one)
        elif isinstance(item, dict):
            for one in item.values():
                visit(one)

    visit(bound)
    return found


def _unruled(call: Call, operands: Sequence[Value], shapes: Sequence[tuple[int, ...]], reason: str = "") -> Any:
    """Nobody knows what it does: whatever reaches it stays."""
    if any(value.layout.blocks for value in operands):
        call.ledger.unruled.setdefault(call.op, []).append(call.node)
        call.hold_all(operands, reason or f"no rule for {call.op}")
    outputs = tuple(Layout(shape) for shape in shapes)
    return outputs[0] if len(outputs) == 1 else outputs or None


def _conserve(call: Call, rule: Rule, operands: Sequence[Value], answer: Any) -> None:
    """Ids are conserved: each that came in went out, was used or pinned, or tied to one that was. The lost are held."""
    if rule.drops:
        _alone(call, operands, answer)
        return
    incoming = [block for value in operands for block in value.layout.blocks]
    if not incoming:
        return
    outputs = answer if isinstance(answer, tuple) else (answer,)
    layouts = [out.layout if isinstance(out, Value) else out for out in outputs]
    outgoing = [block for layout in layouts if isinstance(layout, Layout) for block in layout.blocks]
    places = {_place(ids) for ids in (*outgoing, *call.accounted)}
    unsure = [block for block in incoming if _place(block) not in places]
    if not unsure:
        return
    for ids in _lost(call, unsure, [*outgoing, *call.accounted]):
        call.pin(ids, f"{call.op} lost track of it (a fault of its rule)")


def _place(ids: Ids) -> tuple[int, int]:
    """Where an array lies: views of all of it are at the same place."""
    return ids.__array_interface__["data"][0], ids.nbytes


def _lost(call: Call, blocks: Sequence[Ids], kept: Sequence[Ids]) -> list[Ids]:
    """Units of some blocks that are neither among those kept nor tied to one that is."""
    seen = call.ledger.scratch()
    touched = [*kept, *(side for tie in call.tied for side in tie)]
    try:
        for ids in kept:
            seen[ids] = True
        lost: list[Ids] = []
        for ties in (call.tied, call.tied[::-1]):  # to and fro: ties of one call reach each other
            for left, right in ties:
                seen[right[seen[left]]] = True
                seen[left[seen[right]]] = True
            lost = [block[~seen[block]] for block in blocks if not seen[block].all()]
            if not lost:
                break
        return lost
    finally:
        for ids in touched:
            seen[ids] = False


def _alone(call: Call, operands: Sequence[Value], answer: Any) -> None:
    """A single position taken by its number carries no id on: which one it is rests on all that it is counted among."""
    if not isinstance(answer, Layout):
        return
    outgoing = np.concatenate([block.ravel() for block in answer.blocks if block.size > 1] or [np.empty(0, np.int64)])
    for value in operands:
        for block in value.layout.blocks:
            if not np.isin(block, outgoing).any() and not any(ids is block for ids in call.accounted):
                call.pin(block, f"{call.name} takes a position alone")


def _named(node: fx.Node, answer: Any, ledger: Ledger, settled: bool) -> Any:
    """The answer as named values, written into the ledger."""
    if isinstance(answer, Value):
        answer = answer.layout
    if isinstance(answer, Layout):
        ledger.layouts[node.name] = answer
        return Value(node.name, answer, settled=settled)
    if isinstance(answer, tuple | list):
        layouts = tuple(a.layout if isinstance(a, Value) else a for a in answer)
        ledger.layouts[node.name] = layouts
        return tuple(Value(node.name, layout, settled=settled) for layout in layouts)
    return None


def _pin_outputs(node: fx.Node, env: dict[fx.Node, Any], ledger: Ledger) -> None:
    for argument in node.all_input_nodes:
        value = env.get(argument)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Value):
                for block in one.layout.blocks:
                    ledger.pins.append(Pin(block.ravel(), "it is an output of the model", argument.name))


def _rectangles(ledger: Ledger) -> None:
    """No dim may come to nothing, and a joint block stays a rectangle, at every place where ids lie."""
    seen: set[tuple[tuple[int, ...], bytes]] = set()
    places: set[tuple[tuple[int, ...], ...]] = set()  # many values share an array, which lives on in its layout
    for node, value in list(ledger.layouts.items()):
        for layout in value if isinstance(value, tuple) else (value,):
            for block in layout.blocks if isinstance(layout, Layout) else ():
                sizes = tuple(size for size in block.shape if size > 1)
                if (place := (sizes, block.strides, _place(block))) in places:
                    continue
                places.add(place)
                key = (sizes, block.tobytes())
                if key in seen:
                    continue
                seen.add(key)
                flat = block.reshape(sizes)
                ledger.uniforms.append(Uniform((block.reshape(1, -1),), True, node))
                for level in range(1, len(sizes)):
                    rows: Ids = flat.reshape(int(np.prod(sizes[:level])), -1)
                    ledger.uniforms.append(Uniform((rows,), False, node))
