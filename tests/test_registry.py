"""The rule table: every rule is sampled, every op exists, none has two rules, in-place ops follow their plain twin."""

from __future__ import annotations

import operator
from importlib import import_module

import pytest
import torch
from torch import fx

from surgery import registry
from surgery.analysis.couple import couple
from surgery.calls import Call, Value
from surgery.layout import Layout
from surgery.registry import RULES, Rule, arguments, find_rule, op_names
from tests.samples import SAMPLES
from tests.samples.sample import Sample

A = torch.ops.aten


UNSAMPLED = {"aten._grouped_mm.default": "has no kernel for float64; its twin of transformers is sampled"}


def ruled(node: fx.Node) -> set[str]:
    """The names under which the node's op may have found its rule."""
    return set(op_names(node.target)) if node.op == "call_function" else set()


def test_every_rule_is_sampled() -> None:
    sampled = {name for sample in SAMPLES for node in sample.program.nodes for name in ruled(node)}
    assert sorted(set(RULES) - sampled) == [*UNSAMPLED]


def test_every_ruled_op_exists() -> None:
    for name in set(RULES) - {"getitem"}:
        assert str(_overload(name)) == name


def test_every_op_of_a_sample_has_a_rule() -> None:
    unruled = {op for sample in SAMPLES for op in couple(sample.program).unruled}
    assert unruled == set()


def test_every_argument_that_is_a_size_exists() -> None:
    for name, rule in RULES.items():
        own = {argument.name for op in rule.ops if op != "getitem" for argument in _overload(op)._schema.arguments}
        assert rule.sizes <= own, name


def _overload(name: str) -> torch._ops.OpOverload:
    namespace, op, overload = name.split(".")
    if namespace == "transformers":
        import_module("transformers.integrations.moe")  # which registers it
    found: torch._ops.OpOverload = getattr(getattr(getattr(torch.ops, namespace), op), overload)
    return found


def test_a_second_rule_is_refused_and_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "RULES", {})

    def first(call: Call, input: Value) -> Layout:
        return input.layout

    def second(call: Call, input: Value) -> Layout:
        return input.layout

    registry.rule("aten.relu.default", "aten.neg.default")(first)
    with pytest.raises(ValueError, match=r"^aten\.neg\.default has two rules: first and second$"):
        registry.rule("aten.neg.default")(second)


def test_a_second_constant_rule_is_refused_and_both_are_named() -> None:
    def couple_one(call: Call, input: Value) -> Layout:
        return input.layout

    def first(call: Call) -> None: ...

    def second(call: Call) -> None: ...

    made = Rule(couple_one, frozenset(), False, ("aten.relu.default",))
    assert made.known(first) is first
    with pytest.raises(ValueError, match=r"^aten\.relu\.default has two constant rules: first and second$"):
        made.known(second)


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (A.relu.default, ("aten.relu.default",)),
        (A.relu_.default, ("aten.relu_.default", "aten.relu.default")),
        (A.add_.Tensor, ("aten.add_.Tensor", "aten.add.Tensor")),
        (A._softmax.default, ("aten._softmax.default",)),
        (A.__or__.Tensor, ("aten.__or__.Tensor",)),
        (operator.getitem, ("getitem",)),
        (operator.add, (str(operator.add),)),
    ],
)
def test_the_names_of_an_op(target: object, names: tuple[str, ...]) -> None:
    assert op_names(target) == names


def test_pointwise_ops_share_one_rule() -> None:
    shared = registry.POINTWISE[0]
    assert find_rule(A.relu.default) is find_rule(A.relu_.default) is find_rule(A.logaddexp.default) is shared
    assert find_rule(A.mul_.Tensor) is RULES["aten.mul.Tensor"]
    assert find_rule(A.addbmm.default) is None
    assert find_rule(operator.add) is None


def test_arguments_have_the_names_of_the_schema_and_defaults() -> None:
    bound = arguments(A.add.Tensor, (1, 2), {"alpha": 3})
    assert bound == {"input": 1, "other": 2, "alpha": 3}
    assert arguments(A.add.Tensor, (1,), {"self": 4, "other": 5}) == {"input": 4, "other": 5, "alpha": 1}
    assert arguments(operator.getitem, (7, 1), {}) == {"input": 7, "index": 1}
    assert arguments(operator.add, (7, 1), {"x": 2}) == {"arg0": 7, "arg1": 1, "x": 2}


def test_an_op_without_a_rule_holds_what_reaches_it_and_is_reported() -> None:
    sample = Sample("trace", torch.trace, {"x": (4, 5)})
    coupling = couple(sample.program)
    assert coupling.unruled == {"aten.trace.default": ("trace",)}
    assert {pin.reason for pin in coupling.pins} == {"no rule for aten.trace.default"}
    assert (coupling.pin_of >= 0).all()
