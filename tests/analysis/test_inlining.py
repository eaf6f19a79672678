"""Regions of a program are put back in line, and what cannot be is pinned by its name."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, fx, nn
from torch._higher_order_ops.hints_wrap import hints_wrapper
from torch.utils.checkpoint import checkpoint

import surgery
from surgery.analysis.capture import exported
from surgery.analysis.inlining import inline_regions_
from surgery.inputs import Inputs

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


class Inside(nn.Module):
    """Two dense layers, something done between them in a region of its own."""

    def __init__(self, region: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.region = region
        with torch.no_grad():
            self.first.weight[2:4] = 0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.region(self.first(x)))
        return y


def no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x.relu()


def autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return x.relu()


def nested(x: Tensor) -> Tensor:
    with torch.no_grad():
        return autocast(x.tanh()) + x


def checkpointed(x: Tensor) -> Tensor:
    return checkpoint(torch.relu, x, use_reentrant=False)  # type: ignore[no-any-return]


def hinted(x: Tensor) -> Tensor:
    return hints_wrapper(torch.relu, (x,), {}, hints={"level": 1})  # type: ignore[no-any-return]


@pytest.mark.parametrize("region", [no_grad, autocast, nested, checkpointed])
def test_a_region_is_ops_like_all_others(region: Callable[[Tensor], Tensor]) -> None:
    model = Inside(region).eval()
    program = exported(model, Inputs.of(X))
    assert [str(n.target) for n in program.calls if isinstance(n.target, torch._ops.HigherOrderOperator)] == []
    result = surgery.shrink(model, X)
    assert result.proof is not None
    assert result.proof.passed
    assert result.model.get_submodule("first").out_features == 4


def test_a_region_whose_operands_come_as_a_tuple_is_put_in_line() -> None:
    program = exported(Inside(hinted).eval(), Inputs.of(X))
    assert [str(n.target) for n in program.calls] == ["aten.linear.default", "aten.relu.default", "aten.linear.default"]


@pytest.mark.parametrize("wrapper", ["tag_activation_checkpoint", "wrap_activation_checkpoint"])
def test_a_checkpoint_with_several_outputs_is_put_in_line(wrapper: str) -> None:
    inner = fx.Graph()
    x = inner.placeholder("x")
    inner.output((inner.call_function(torch.relu, (x,)), inner.call_function(torch.tanh, (x,))))
    graph = fx.Graph()
    given = graph.placeholder("given")
    body = graph.get_attr("body")
    region = graph.call_function(getattr(torch.ops.higher_order, wrapper), (body, given), {"use_reentrant": False})
    second = graph.call_function(operator.getitem, (region, 1))
    graph.output((second,))
    program = fx.GraphModule({"body": fx.GraphModule(nn.Module(), inner)}, graph)
    inline_regions_(program)
    assert [n.target for n in program.graph.nodes if n.op == "call_function"] == [torch.relu, torch.tanh]
    torch.testing.assert_close(program(X), (X.tanh(),))


def test_a_choice_between_programs_pins_what_reaches_it_by_its_name() -> None:
    def chosen(x: Tensor) -> Tensor:
        one: Tensor = torch.cond(x.sum() > 0, torch.relu, torch.tanh, (x,))
        return one

    analysis = surgery.analyze(Inside(chosen).eval(), X)
    assert analysis.unruled_ops == {"cond": 1}
    assert "no rule for cond" in {pin.reason for pin in analysis.pinned}


def mixed_first(x: Tensor) -> Tensor:
    first: Tensor = torch.ops.surgery_tests.mixed(x)[0]
    return first


@pytest.fixture
def foreign() -> Iterator[Callable[[Tensor], Tensor]]:
    """A custom op that tells shapes only: it has no kernel to look into, and PyTorch no tag for it."""
    library = torch.library.Library("surgery_tests", "FRAGMENT")
    library.define("mixed(Tensor x) -> (Tensor, Tensor)")
    library.impl("mixed", lambda x: (x.flip(1), x.sum(1)), "CompositeExplicitAutograd")
    torch.library.register_fake(
        "surgery_tests::mixed", lambda x: (torch.empty_like(x), x.new_empty(x.shape[0])), lib=library
    )
    yield mixed_first
    library._destroy()


def test_a_custom_op_with_a_fake_kernel_pins_what_reaches_it_by_its_name(foreign: Callable[[Tensor], Tensor]) -> None:
    model = Inside(foreign).eval()
    analysis = surgery.analyze(model, X)
    assert analysis.unruled_ops == {"surgery_tests.mixed.default": 1}
    assert "no rule for surgery_tests.mixed.default" in {pin.reason for pin in analysis.pinned}
    result = surgery.shrink(model, X)
    assert result.plan.removed_channels == 0
