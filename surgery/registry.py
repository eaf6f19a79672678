"""The rule table: one op, one rule, one decorator.

A rule answers two questions about an op, in one place: how do unit ids flow through it (`couple`), and what is known
of its output when parts of its inputs are constant (`known`). Both take the op's own arguments by name, as its schema
names them; tensors arrive as `Value` (couple) or `Known` (known), settings as they are. What is read is part of the
first answer: a rule records every use and every pin, and an id that leaves neither in the output nor in the records
is held by the engine. An op without a rule holds whatever reaches it and is reported.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

CoupleRule = Callable[..., Any]
KnownRule = Callable[..., Any]


@dataclass
class Rule:
    """How one kind of op treats unit ids and constants.

    Attributes:
        couple: `couple(call, **arguments) -> Layout` (or a tuple of them).
        knows: `known(call, **arguments) -> Known` (or a tuple); None runs the op where nothing varies.
        sizes: Names of arguments that are sizes: a cut may change them. All others must stay as they were.
        drops: Whether units may leave unread (slices); for other ops such units are held.
        ops: The overloads that it serves.
    """

    couple: CoupleRule
    sizes: frozenset[str]
    drops: bool
    ops: tuple[str, ...]
    knows: KnownRule | None = field(default=None)

    def known(self, function: KnownRule) -> KnownRule:
        """Decorator: the constant side of this rule."""
        if self.knows is not None:
            raise ValueError(f"{self.ops[0]} has two constant rules: {self.knows.__name__} and {function.__name__}")
        self.knows = function
        return function


RULES: dict[str, Rule] = {}
"""Every rule, by op overload (`aten.relu.default`)."""


def rule(*ops: str, sizes: tuple[str, ...] = (), drops: bool = False) -> Callable[[CoupleRule], Rule]:
    """Register the rule of the given overloads, e.g. `@rule("aten.flip.default")`.

    Raises:
        ValueError: An op has a rule already; both are named.
    """

    def register(couple: CoupleRule) -> Rule:
        made = Rule(couple, frozenset(sizes), drops, ops)
        for op in ops:
            if op in RULES:
                raise ValueError(f"{op} has two rules: {RULES[op].couple.__name__} and {couple.__name__}")
            RULES[op] = made
        return made

    return register


POINTWISE: list[Rule] = []
"""The shared rule of pointwise ops (one entry, set by `rules/pointwise.py`)."""


def find_rule(target: Any) -> Rule | None:
    """The rule of an op, or None. In-place variants follow their plain op; pointwise ops share one rule."""
    for name in op_names(target):
        if name in RULES:
            return RULES[name]
    if POINTWISE and is_pointwise(target):
        return POINTWISE[0]
    return None


@cache
def op_names(target: Any) -> tuple[str, ...]:
    """The names under which an op may have a rule: itself, and for `relu_` also `relu`."""
    if target is operator.getitem:
        return ("getitem",)
    if not isinstance(target, torch._ops.OpOverload):
        return (str(target),)
    name = str(target)
    namespace, op, overload = target.namespace, target._schema.name.split("::")[1], target._overloadname or "default"
    if op.endswith("_") and not op.startswith("_") and not op.endswith("__"):
        return name, f"{namespace}.{op[:-1]}.{overload}"
    return (name,)


@cache
def is_pointwise(target: Any) -> bool:
    """Whether PyTorch tags the op (or its functional twin) as pointwise."""
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if torch.Tag.pointwise in target.tags:
        return True
    twin = op_names(target)[-1].split(".")
    packet = getattr(getattr(torch.ops, twin[0]), twin[1], None)
    overload = getattr(packet, twin[2], None) if packet is not None else None
    return overload is not None and torch.Tag.pointwise in overload.tags


@cache
def _parameters(target: Any) -> tuple[tuple[str, Any], ...]:
    """Names and defaults of an op's arguments, as its schema has them."""
    return tuple(("input" if a.name == "self" else a.name, a.default_value) for a in target._schema.arguments)


def arguments(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The op's arguments by name (`self` is called `input`), defaults filled in."""
    if target is operator.getitem:
        return {"input": args[0], "index": args[1]}
    if not isinstance(target, torch._ops.OpOverload):
        return {f"arg{i}": a for i, a in enumerate(args)} | dict(kwargs)
    bound = dict(_parameters(target))
    for (name, _), given in zip(_parameters(target), args, strict=False):
        bound[name] = given
    bound.update({("input" if key == "self" else key): value for key, value in kwargs.items()})
    return bound
