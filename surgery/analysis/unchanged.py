"""Which values of a program are an earlier value, or nothing at all, and which ops its outputs rest on.

`x + f(x)` where f(x) is zero for every input is x: what computes f(x), nobody needs.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, fx

from surgery.analysis.capture import Program
from surgery.analysis.constants import Constants
from surgery.analysis.writes import root_of, written_argument
from surgery.calls import short_name
from surgery.known import Known
from surgery.registry import arguments

RESTING = ("dropout", "dropout_", "feature_dropout", "feature_dropout_", "alpha_dropout", "feature_alpha_dropout")
"""Ops that do nothing in eval mode."""

LAYING = (
    *(
        "contiguous",
        "clone",
        "alias",
        "detach",
        "detach_",
        "lift_fresh",
        "lift_fresh_copy",
        "to",
        "_to_copy",
        "type_as",
    ),
    *("view", "reshape", "_unsafe_view", "view_as", "reshape_as", "expand", "expand_as", "flatten", "unflatten"),
    *("squeeze", "slice", "narrow", "identity"),
)
"""Ops whose output is their input where it has the same shape and type."""

ADDING, TAKING, TIMES, OVER = ("add", "add_"), ("sub", "sub_"), ("mul", "mul_"), ("div", "div_")

BELOW = ("relu", "relu_", "clamp_min", "clamp_min_")
"""Ops that cut off what is below zero (a clamp only where 0 is its bound)."""

BETWEEN = ("relu6", "relu6_", "hardtanh", "hardtanh_", "clamp", "clamp_")
"""Ops that cut off what is outside two bounds."""

RECTIFYING = ("relu", "relu_", "relu6", "relu6_", "sigmoid", "sigmoid_", "softmax", "_softmax")
NEVER_NEGATIVE = (*RECTIFYING, "abs", "exp", "square")

POOLS = ("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d", "avg_pool1d", "avg_pool2d", "avg_pool3d")
POOLS_TO_SIZE = ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "upsample_nearest2d")
"""Ops whose outputs are not negative where no input is."""


@dataclass(frozen=True)
class Unchanged:
    """What a program computes for nothing.

    Attributes:
        program: The program.
        nothing: Values that are zero at every position, whatever the input.
    """

    program: Program
    nothing: AbstractSet[fx.Node]

    @staticmethod
    def of(program: Program, known: Constants, silenced: AbstractSet[fx.Node] = frozenset()) -> Unchanged:
        """What is known of a program.

        Args:
            program: The program.
            known: Its constants.
            silenced: Values that are taken to be zero as well.
        """
        zero = {node for node in program.nodes if is_zero(known.known.get(node.name))}
        return Unchanged(program, frozenset(zero | silenced))

    @cached_property
    def same(self) -> dict[fx.Node, fx.Node]:
        """For values that are an earlier one, bit for bit: the first that they are."""
        found: dict[fx.Node, fx.Node] = {}
        for node in self.program.calls:
            if node in self.nothing or not isinstance(node.meta.get("val"), Tensor):
                continue
            source = self._source(node, found)
            if source is not None and _alike(source, node):
                found[node] = found.get(source, source)
        return found

    def _source(self, node: fx.Node, same: dict[fx.Node, fx.Node]) -> fx.Node | None:
        """The operand that an op hands on, if that has the op's shape."""
        name, bound = short_name(node.target), arguments(node.target, node.args, node.kwargs)
        given, other = bound.get("input"), bound.get("other")
        if name in RESTING:
            live = bool(bound.get("train", bound.get("training", True))) and bound.get("p", 1) != 0
            return None if live or not isinstance(given, fx.Node) else given
        if name in (*ADDING, *TAKING):
            if self._all(other, 0) and isinstance(given, fx.Node):
                return given
            alone = name in ADDING and bound.get("alpha", 1) == 1 and self._all(given, 0)
            return other if alone and isinstance(other, fx.Node) else None
        if name in (*TIMES, *OVER) and isinstance(given, fx.Node):
            return given if self._all(other, 1) and bound.get("rounding_mode") is None else None
        if not isinstance(given, fx.Node):
            return None
        if name in LAYING:
            return given
        cut = _bounds(name, bound)
        if cut is not None and cut[0] == 0 and self._never_negative(given, same):
            above = same.get(given, given)
            fits = cut[1] is None or _bounds(short_name(above.target), _settings(above)) == cut
            return given if fits else None
        return None

    def _all(self, value: Any, number: float) -> bool:
        if isinstance(value, fx.Node):
            return number == 0 and value in self.nothing
        return isinstance(value, int | float) and not isinstance(value, bool) and value == number

    def _never_negative(self, node: fx.Node, same: dict[fx.Node, fx.Node]) -> bool:
        """Whether no position can be below zero."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            node = same.get(node, node)
            name = short_name(node.target) if node.op == "call_function" else ""
            bound = _settings(node)
            cut = _bounds(name, bound)
            if node in self.nothing or name in NEVER_NEGATIVE or (cut is not None and cut[0] >= 0):
                continue
            if name == "getitem" and isinstance(node.args[0], fx.Node):
                name, bound = short_name(node.args[0].target), _settings(node.args[0])
            if name in (*POOLS, *POOLS_TO_SIZE, *LAYING, *RESTING) and isinstance(bound.get("input"), fx.Node):
                waiting.append(bound["input"])
            elif name in ADDING and bound.get("alpha", 1) == 1:
                operands = [bound["input"], bound["other"]]
                if not all(isinstance(one, fx.Node) for one in operands):
                    return False
                waiting += operands
            else:
                return False
        return True

    @cached_property
    def working(self) -> frozenset[fx.Node]:
        """The ops that the outputs rest on, and what is written into the model's own tensors."""
        roots = [node for node in self.program.nodes if node.op == "output"]
        roots += [node for node in self.program.calls if self._leaves_traces(node)]
        waiting = [source for node in roots for source in node.all_input_nodes] + roots
        seen: set[fx.Node] = set()
        while waiting:
            node = waiting.pop()
            node = self.same.get(node, node)
            if node in seen or node in self.nothing:
                continue
            seen.add(node)
            waiting += node.all_input_nodes
        return frozenset(node for node in seen if node.op == "call_function")

    def _leaves_traces(self, node: fx.Node) -> bool:
        target = written_argument(node)
        return target is not None and root_of(target).op != "call_function"


def is_zero(known: Any) -> bool:
    """Whether a value is zero at every position, whatever the input."""
    return (
        isinstance(known, Known)
        and known.everything
        and known.value.is_floating_point()
        and bool((known.value == 0).all())
    )


def _alike(a: fx.Node, b: fx.Node) -> bool:
    left, right = a.meta.get("val"), b.meta.get("val")
    return (
        isinstance(left, Tensor)
        and isinstance(right, Tensor)
        and left.shape == right.shape
        and left.dtype == right.dtype
    )


def _settings(node: fx.Node) -> dict[str, Any]:
    return arguments(node.target, node.args, node.kwargs) if node.op == "call_function" else {}


def _bounds(name: str, bound: dict[str, Any]) -> tuple[float, float | None] | None:
    """Between what an op keeps its values; None where it does something else or has no lower bound."""
    if name in ("relu", "relu_"):
        return 0, None
    if name in BELOW:
        least = bound.get("min")
        return (least, None) if isinstance(least, int | float) else None
    if name in ("relu6", "relu6_"):
        return 0, 6
    if name in BETWEEN:
        low = next((bound[key] for key in ("min", "min_val") if isinstance(bound.get(key), int | float)), None)
        most = next((bound[key] for key in ("max", "max_val") if isinstance(bound.get(key), int | float)), None)
        return None if low is None else (low, most)
    return None
