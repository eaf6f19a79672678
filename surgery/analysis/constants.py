"""Run a program on what is known: which values do not vary with the input, and what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

import surgery.rules  # noqa: F401  # fills the rule table
from surgery.analysis.capture import Program, shapes_of
from surgery.analysis.writes import written_argument
from surgery.calls import KnownCall
from surgery.known import MAX_ELEMENTS, Known, Memo
from surgery.registry import arguments, find_rule
from surgery.rules.pointwise import run


@dataclass(frozen=True)
class Constants:
    """What is known of every value of a program, by node name (`Known`, or a tuple of them).

    `memo` holds what was found of the weights on the way, for whoever asks again.
    """

    known: Mapping[str, Any]
    memo: Memo


def constants(program: Program, dtype: torch.dtype = torch.float64, memo: Memo | None = None) -> Constants:
    """Propagate the parameters' values; arithmetic is done in `dtype`. `memo` is that of an earlier pass."""
    memo = {} if memo is None else memo
    env: dict[fx.Node, Any] = {}
    by_name: dict[str, Any] = {}
    with torch.no_grad():
        for node in program.nodes:
            if node.op == "placeholder":
                env[node] = _placeholder(program, node)
            elif node.op == "call_function":
                env[node] = _step(node, env, dtype, memo)
                written = written_argument(node)
                if written is not None and isinstance(env[node], Known):
                    env[written] = env[node]
            else:
                env[node] = None
            by_name[node.name] = env[node]
    return Constants(by_name, memo)


def _placeholder(program: Program, node: fx.Node) -> Known | None:
    shapes = shapes_of(node)
    if not shapes:
        return None
    name = program.parameters.get(node.name)
    tensor: Tensor | None = program.tensors[name] if name is not None else program.lifted.get(node.name)
    if tensor is None or tensor.is_meta or name in program.mutated:
        return Known.anything(shapes[0])
    exactly = Known.exactly(tensor.detach().cpu())
    # parameters were checked when they came in; a buffer may be a mask of infinities
    return exactly if isinstance(tensor, nn.Parameter) else Known.of(exactly.shape, exactly.value, exactly.varies)


def _step(node: fx.Node, env: dict[fx.Node, Any], dtype: torch.dtype, memo: Memo) -> Any:
    bound = fx.map_arg(arguments(node.target, node.args, node.kwargs), env.get)
    shapes = shapes_of(node)
    if not shapes:
        return None
    call = KnownCall(node.target, bound, shapes, dtype, memo)
    rule = find_rule(node.target)
    if rule is not None and rule.knows is not None:
        try:
            return rule.knows(call, **bound)
        except Exception:  # a fault of a rule must not cost the user the whole analysis; what is not known varies
            return call.anything()
    return _computed(call, bound) if rule is not None or not _operands(bound) else call.anything()


def _operands(bound: dict[str, Any]) -> list[Known]:
    return [v for a in bound.values() for v in (a if isinstance(a, list | tuple) else [a]) if isinstance(v, Known)]


def _computed(call: KnownCall, bound: dict[str, Any]) -> Any:
    """Without a constant rule: run the op where nothing varies; otherwise everything does."""
    operands = _operands(bound)
    size = max([torch.Size(shape).numel() for shape in call.shapes] + [torch.Size(k.shape).numel() for k in operands])
    if size > MAX_ELEMENTS or not all(k.everything for k in operands) or not hasattr(call.target, "_schema"):
        return call.anything()
    if torch.Tag.nondeterministic_seeded in call.target.tags:
        return call.anything()
    values = {key: _widened(value, call.dtype) for key, value in bound.items()}
    try:
        answer = run(call.target, values)
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return call.anything()
    outputs = answer if isinstance(answer, tuple | list) else (answer,)
    known = tuple(Known.of(tuple(o.shape), o, torch.zeros([1] * o.dim(), dtype=torch.bool)) for o in outputs)
    return known if isinstance(answer, tuple | list) else known[0]


def _widened(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Known):
        full = value.full()
        return full.detach().to("cpu", dtype) if full.is_floating_point() else full.cpu()
    if isinstance(value, list | tuple):
        return type(value)(_widened(v, dtype) for v in value)
    return value
