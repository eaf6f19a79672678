"""Blocks of a residual net: what could go as a whole, once what it adds is zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx

from surgery.analysis.capture import Program
from surgery.analysis.unchanged import ADDING, LAYING, RESTING, Unchanged
from surgery.calls import short_name
from surgery.deciding.parts import Zeros
from surgery.deciding.spare import spare_modules
from surgery.deciding.study import Study
from surgery.layout import Bools
from surgery.registry import arguments

CONTRACTING = (
    *("linear", "conv1d", "conv2d", "conv3d", "convolution", "addmm", "matmul", "mm", "bmm"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
)
NORMS = ("batch_norm", "_batch_norm_with_update", "layer_norm", "group_norm", "instance_norm", "rms_norm")
"""Ops whose weight and bias, both zero, leave nothing."""

KEEPING = (
    *(*RESTING, *LAYING, "permute", "transpose", "t", "unsqueeze", "movedim", "roll", "flip", "pad", "constant_pad_nd"),
    *("relu", "relu_", "gelu", "silu", "silu_", "tanh", "hardswish", "hardswish_", "neg", "mean", "sum", "div", "div_"),
    *("relu6", "hardtanh", "hardtanh_", "leaky_relu", "elu", "mish", "avg_pool2d", "adaptive_avg_pool2d", "select"),
)
"""Ops that make zeros of zeros in their first operand."""


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a residual net that can go as a whole.

    Attributes:
        name: The smallest numbered part of the model that holds it: `"layer1.1"`.
        writes: The tensors that write what it adds: with zeros there, it adds nothing.
        modules: What goes with it.
        channels: Those that live only in there, `[n_channels]`.
    """

    name: str
    writes: tuple[str, ...]
    modules: tuple[str, ...]
    channels: Bools


def blocks_of(study: Study) -> tuple[Block, ...]:
    """The blocks of a model that can go as a whole, in its order.

    A block adds to a value `x` what it computes of it by weights, `x + f(x)`; it can go where with the last weights of
    f at zero nothing would miss the modules that compute f. Where several such sums lie in one numbered part of the
    model (attention and feed-forward), they are one block. A block whose shortcut has weights of its own is none.

    Args:
        study: Of the model; its weights may be on the meta device.
    """
    parts = _parts(study.program)
    while parts:
        silenced = frozenset().union(*(branch.silent for branches in parts.values() for branch in branches))
        unchanged = Unchanged.of(study.program, study.known, silenced)
        spare = spare_modules(study.model, unchanged, parts=tuple(parts)).paths
        going = {name: _going(study.program, branches, spare) for name, branches in parts.items()}
        stuck = [name for name, paths in going.items() if not paths]
        if not stuck:
            return tuple(_block(study, name, branches, going[name]) for name, branches in parts.items())
        parts = {name: branches for name, branches in parts.items() if name not in stuck}
    return ()


def silencing(study: Study, blocks: Iterable[Block]) -> tuple[Zeros, ...]:
    """What has to be zero for blocks to add nothing."""
    names = dict.fromkeys(name for block in blocks for name in block.writes)
    return tuple(Zeros(name, 0, tuple(range(study.program.tensors[name].shape[0]))) for name in names)


@dataclass(frozen=True)
class _Branch:
    """One sum `x + f(x)`: what is zero once f(x) is, the ops between x and it, and the tensors that write it."""

    silent: frozenset[fx.Node]
    inside: frozenset[fx.Node]
    writes: tuple[str, ...]


def _parts(program: Program) -> dict[str, list[_Branch]]:
    """All such sums by the numbered part of the model that holds each; those that hold others are left out."""
    order = {node: index for index, node in enumerate(program.nodes)}
    sums: dict[fx.Node, _Branch] = {}
    for node in program.calls:
        if short_name(node.target) not in ADDING or _settings(node).get("alpha", 1) != 1:
            continue
        operands = [_settings(node)["input"], _settings(node)["other"]]
        if not all(isinstance(one, fx.Node) and _shape(one) == _shape(node) for one in operands):
            continue
        for kept, added in (operands, operands[::-1]):
            branch = _branch(program, kept, added, order)
            if branch is not None:
                sums[node] = branch
                break
    parts: dict[str, list[_Branch]] = {}
    for branch in sums.values():
        if not any(other in branch.inside for other in sums):
            parts.setdefault(_part(program, branch), []).append(branch)
    return {name: found for name, found in parts.items() if _apart(program, found)}


def _branch(program: Program, kept: fx.Node, added: fx.Node, order: dict[fx.Node, int]) -> _Branch | None:
    """What `added` is computed of `kept` by; None where it is not, or not by weights whose zeros silence it."""
    above: set[fx.Node] = set()
    waiting = [added]
    while waiting:
        node = waiting.pop()
        if node not in above and order[node] > order[kept] and node.op == "call_function":
            above.add(node)
            waiting += node.all_input_nodes
    inside: set[fx.Node] = set()
    for node in sorted(above, key=order.__getitem__):
        if any(source is kept or source in inside for source in node.all_input_nodes):
            inside.add(node)
    weighs = any(short_name(node.target) in CONTRACTING and _weights(program, node) for node in inside)
    if added not in inside or not weighs:
        return None
    silent: set[fx.Node] = set()
    writes = _last_writes(program, added, inside, silent)
    return None if writes is None else _Branch(frozenset(silent), frozenset(inside), tuple(dict.fromkeys(writes)))


def _last_writes(program: Program, node: fx.Node, inside: set[fx.Node], silent: set[fx.Node]) -> list[str] | None:
    """The parameters that make a value zero where they are zero themselves, the last there are.

    Args:
        program: The program.
        node: The value.
        inside: How far to look.
        silent: Gets the values that are zero then.
    """
    if node not in inside:
        return None
    name, bound = short_name(node.target), _settings(node)
    own = _weights(program, node)
    operands = [one for one in (bound.get("input"), bound.get("other")) if isinstance(one, fx.Node)]
    found: list[str] | None = None
    if name in NORMS or (name in CONTRACTING and own):
        biases = [bound.get("bias"), bound.get("input") if name == "addmm" else None]
        every = [_parameter(program, bias) for bias in biases if isinstance(bias, fx.Node)]
        found = [*own, *(one for one in every if one is not None)] if own and None not in every else None
    elif name in ("mul", "mul_"):
        found = [gain for one in operands if (gain := _parameter(program, one)) is not None]
        for one in operands if not found else ():
            found = found or _last_writes(program, one, inside, silent)
    elif name in ADDING and len(operands) == 2:
        parts = [_written(program, one, inside, silent) for one in operands]
        found = None if None in parts else [write for part in parts for write in part or ()]
    elif name in KEEPING and operands:
        found = _last_writes(program, operands[0], inside, silent)
    if found:
        silent.add(node)
    return found or None


def _written(program: Program, node: fx.Node, inside: set[fx.Node], silent: set[fx.Node]) -> list[str] | None:
    own = _parameter(program, node)
    return [own] if own is not None else _last_writes(program, node, inside, silent)


def _weights(program: Program, node: fx.Node) -> list[str]:
    """The weight that an op contracts or multiplies with, where it is a parameter as it is."""
    bound = _settings(node)
    places = [bound.get(key) for key in ("weight", "mat2", "other")]
    if short_name(node.target) in ("mul", "mul_"):
        return []
    found = [_parameter(program, one) for one in places if isinstance(one, fx.Node)]
    return [one for one in found if one is not None]


def _parameter(program: Program, node: fx.Node) -> str | None:
    """The floating-point parameter that a value is, laid out in whatever way."""
    while node.op == "call_function" and short_name(node.target) in (*LAYING, "permute", "transpose", "t", "unsqueeze"):
        first = node.args[0] if node.args else None
        if not isinstance(first, fx.Node):
            return None
        node = first
    name = program.parameters.get(node.name)
    if name is None:
        return None
    tensor = program.tensors[name]
    return name if tensor.is_floating_point() and tensor.dim() else None


def _part(program: Program, branch: _Branch) -> str:
    """The smallest numbered part of the model that holds all weights of a branch; the smallest at all where none is."""
    paths = [
        program.modules_of(node.name)[-1].split(".")
        for node in branch.inside
        if any(source.name in program.parameters for source in node.all_input_nodes)
    ]
    shared: list[str] = []
    for names in zip(*paths, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    numbered = [index for index, name in enumerate(shared) if name.isdigit()]
    path = ".".join(shared[: numbered[-1] + 1] if numbered else shared)
    return path or branch.writes[0].rpartition(".")[0] or branch.writes[0]


def _apart(program: Program, branches: Sequence[_Branch]) -> bool:
    """Whether nobody else reads what writes a block."""
    inside = frozenset().union(*(branch.inside for branch in branches))
    readers = [_uses(program, name) for branch in branches for name in branch.writes]
    return all(user in inside for users in readers for user in users)


def _uses(program: Program, name: str) -> list[fx.Node]:
    """The ops that read a parameter, past those that only lay it out."""
    found, waiting = [], program.readers(name)
    while waiting:
        node = waiting.pop()
        laid = short_name(node.target) in (*LAYING, "permute", "transpose", "t", "unsqueeze")
        if laid and all(source.op == "placeholder" or _parameter(program, source) for source in node.all_input_nodes):
            waiting += node.users
        else:
            found.append(node)
    return found


def _going(program: Program, branches: Sequence[_Branch], spare: Sequence[str]) -> tuple[str, ...]:
    """The modules that go with a block: some, and with them all of its weights; else none."""
    found: dict[str, None] = {}
    for branch in branches:
        for node in branch.inside:
            around = set(program.modules_of(node.name))
            here = [path for path in spare if path in around]
            if not here and short_name(node.target) in CONTRACTING:
                return ()
            found |= dict.fromkeys(here)
    return tuple(path for path in spare if path in found)


def _block(study: Study, name: str, branches: Sequence[_Branch], modules: tuple[str, ...]) -> Block:
    coupling = study.coupling
    elsewhere = np.zeros(coupling.n_channels, bool)
    within = np.zeros(coupling.n_channels, bool)
    for axis in coupling.axes.values():
        inside = any(axis.name.startswith(f"{path}.") for path in modules)
        (within if inside else elsewhere)[coupling.channel_of[axis.ids]] = True
    writes = tuple(dict.fromkeys(write for branch in branches for write in branch.writes))
    return Block(name, writes, modules, within & ~elsewhere)


def _settings(node: fx.Node) -> dict[str, Any]:
    return arguments(node.target, node.args, node.kwargs) if node.op == "call_function" else {}


def _shape(node: fx.Node) -> tuple[object, ...]:
    value = node.meta.get("val")
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else ()
