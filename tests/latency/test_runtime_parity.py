from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surgery.errors import CheckError, InputError
from surgery.inputs import Inputs
from surgery.latency import benchmark
from surgery.latency.cells import checked
from surgery.latency.parity import Reference, check_parity, reference, tensors_of, top1
from surgery.latency.results import Cell, Row

OUTPUT, FRESH = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 2.0], [3.0, 6.0]])
WANTED = Reference((OUTPUT,), (FRESH,))  # the spread is 2


def compare(got: Any, wanted: Reference = WANTED) -> None:
    check_parity(got, wanted, model="slim", runtime="onnxruntime")


def test_a_difference_below_a_thousandth_of_the_spread_passes() -> None:
    compare([OUTPUT + 1.9e-3])


@pytest.mark.parametrize(
    ("got", "what"),
    [
        ([OUTPUT + 2.2e-3], "output 0 is off by 1.1e-03 of its spread (1e-03 allowed)"),
        ([OUTPUT, OUTPUT], "2 output tensors instead of 1"),
        ([OUTPUT[0]], "output 0 has shape (2,) instead of (2, 2)"),
        ([OUTPUT / torch.tensor([0.0, 1.0])], "output 0 has NaN or Inf in other places"),
    ],
)
def test_a_mismatch_names_model_runtime_and_difference(got: list[Tensor], what: str) -> None:
    with pytest.raises(CheckError) as caught:
        compare(got)
    assert caught.value.fact == f"onnxruntime does not compute what model 'slim' computes in eager mode: {what}"
    assert "do not trust times of this model in onnxruntime" in caught.value.way_out


def test_the_spread_counts_not_the_size() -> None:
    large = Reference((OUTPUT + 1000,), (FRESH + 1000,))
    compare([OUTPUT + 1000 + 1e-3], large)
    with pytest.raises(CheckError, match=r"off by 1.5e-02 of its spread"):
        compare([OUTPUT + 1000 + 0.03], large)


def test_an_output_that_varies_less_than_its_rounding_noise_may_round() -> None:
    flat = Reference((torch.full((4,), 1000.0),), (torch.full((4,), 1000.0001),))
    compare([torch.full((4,), 1000.001)], flat)
    with pytest.raises(CheckError):
        compare([torch.full((4,), 1000.1)], flat)


def test_without_fresh_outputs_the_spread_is_within_the_output() -> None:
    compare([OUTPUT + 2.9e-3], Reference((OUTPUT,), ()))
    with pytest.raises(CheckError):
        compare([OUTPUT + 3.1e-3], Reference((OUTPUT,), ()))


def test_integers_nan_and_empty_outputs() -> None:
    labels = torch.tensor([1, 2, 3])
    compare([labels], Reference((labels,), (labels,)))
    with pytest.raises(CheckError):
        compare([torch.tensor([1, 2, 2])], Reference((labels,), (labels,)))
    hole = torch.tensor([1.0, float("nan")])
    compare([hole], Reference((hole,), ()))
    compare([torch.empty(0, 3)], Reference((torch.empty(0, 3),), ()))


def test_the_reference_is_of_eval_mode_and_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train()
    model[0].eval()
    x = Inputs.of(torch.randn(2, 3))
    got = reference(model, "masked", x, x.fresh(1))
    torch.testing.assert_close(got.outputs[0], model[0](x.args[0]).detach())
    assert [m.training for m in model.modules()] == [True, False, True]


def test_a_model_that_refuses_the_inputs_is_named() -> None:
    x = Inputs.of(torch.randn(2, 4))
    with pytest.raises(InputError, match=r"model 'masked' refuses the inputs \(\(2, 4\)\): RuntimeError: mat1"):
        reference(nn.Linear(3, 3), "masked", x, x)


def test_a_model_without_a_tensor_output_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "done"

    x = Inputs.of(torch.randn(2, 4))
    with pytest.raises(InputError, match="model 'silent' returns no tensor"):
        reference(Silent(), "silent", x, x)


def test_outputs_of_every_shape_are_found() -> None:
    @dataclass
    class Output:
        logits: Tensor
        more: dict[str, Any]

    class OnDevice:
        def arrays(self) -> list[Any]:
            return [c.numpy()]

    a, b, c = torch.zeros(1), torch.ones(2), torch.full((3,), 2.0)
    got = tensors_of((Output(a, {"b": b, "none": None}), [c, "text"]))
    assert [t.tolist() for t in got] == [[0.0], [1.0, 1.0], [2.0, 2.0, 2.0]]
    assert [t.tolist() for t in tensors_of([a.numpy(), b.numpy()])] == [[0.0], [1.0, 1.0]]
    assert [t.tolist() for t in tensors_of(OnDevice())] == [[2.0, 2.0, 2.0]]


CELL = Cell("eager", 1, "cpu", None, ())


def test_a_model_that_writes_into_its_inputs_gets_them_back() -> None:
    class Writer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1)

    model, x = Writer(), Inputs.of(torch.zeros(2, 3))
    wanted = reference(model, "writer", x, x.fresh(0))
    call, row = checked(lambda inputs: lambda: model(*inputs.args), x, wanted, wanted.outputs, Row("writer"), CELL)
    assert call.reset is not None
    assert (row.error, row.top1, row.first_ms is not None) == (0.0, 1.0, True)
    for _ in range(2):
        call.reset()
        torch.testing.assert_close(call.run(), torch.ones(2, 3))
    assert not x.args[0].any()  # and the other models' inputs are not touched
    polite, _ = checked(lambda inputs: lambda: inputs.args[0] + 1, x, wanted, wanted.outputs, Row("polite"), CELL)
    assert polite.reset is None
    with pytest.raises(CheckError, match="eager does not compute what model 'wrong'"):
        checked(lambda inputs: lambda: inputs.args[0] + 2, x, replace(wanted, fresh=()), (), Row("wrong"), CELL)


def test_the_layout_of_the_inputs_is_kept() -> None:
    x = Inputs.of(torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last))
    seen: list[bool] = []

    def bind(inputs: Inputs) -> Any:
        seen.append(inputs.args[0].is_contiguous(memory_format=torch.channels_last))
        return lambda: inputs.args[0] + 1

    checked(bind, x, Reference((torch.ones(2, 3, 4, 4),), ()), (), Row("a"), CELL)
    assert seen == [True]


def test_a_lower_precision_may_lose_four_times_what_eager_mode_loses_in_it() -> None:
    own = Reference((torch.tensor([[1.0, 2.0, 3.0]]),), ())
    lowered = own.lowered([torch.tensor([[1.0, 2.0, 3.2]])], torch.bfloat16)
    assert check_parity([torch.tensor([[1.0, 2.0, 3.7]])], lowered, model="a", runtime="b") == pytest.approx(0.35)
    with pytest.raises(CheckError, match=r"off by 4.5e-01 of its spread \(4e-01 allowed\)"):
        check_parity([torch.tensor([[1.0, 2.0, 3.9]])], lowered, model="a", runtime="b")
    refused = own.lowered(None, torch.float16)  # eager mode cannot: 16 rounding steps of the largest output
    check_parity([own.outputs[0] + 16 * 3 * 2**-10], refused, model="a", runtime="b")
    with pytest.raises(CheckError):
        check_parity([own.outputs[0] + 17 * 3 * 2**-10], refused, model="a", runtime="b")
    check_parity([own.outputs[0] * 5], own.unbounded(), model="a", runtime="b")
    with pytest.raises(CheckError, match="shape"):
        check_parity([torch.ones(3)], own.unbounded(), model="a", runtime="b")


def test_a_model_that_rounds_much_may_round_otherwise_elsewhere() -> None:
    """A sum of large numbers that cancel: another order of it is as good."""
    own = Reference((torch.tensor([[1.0, 2.0, 3.0]]),), ())
    rounding = own.rounded([torch.tensor([[1.0, 2.0, 3.01]], dtype=torch.float64)])
    check_parity([torch.tensor([[1.0, 2.0, 2.965]])], rounding, model="a", runtime="b")
    with pytest.raises(CheckError):
        check_parity([torch.tensor([[1.0, 2.0, 2.965]])], own, model="a", runtime="b")
    with pytest.raises(CheckError):
        check_parity([torch.tensor([[1.0, 2.0, 2.955]])], rounding, model="a", runtime="b")
    assert own.rounded(None) == own


class Cancelling(nn.Module):
    """Exact in float64, off by a thousandth in float32, and the other way round under a trace."""

    def forward(self, x: Tensor) -> Tensor:
        loss = 0.0 if x.dtype == torch.float64 else 0.002
        return x + (-loss if torch.jit.is_tracing() else loss)


def test_a_benchmark_knows_how_much_a_model_rounds() -> None:
    brief: Any = {"min_pairs": 4, "min_seconds": 0.0, "max_seconds": 0.05}
    (cell,) = benchmark({"a": Cancelling()}, torch.rand(2, 3), runtimes="torchscript", **brief).cells
    assert cell.rows[0].failure == ""


def test_top_1_is_ranked_over_the_classes() -> None:
    logits = torch.tensor([[1.0, 2.0], [4.0, 3.0], [0.0, 1.0], [1.0, 0.0]])
    other = logits.clone()
    other[3] = torch.tensor([0.0, 1.0])
    assert top1([other], [logits]) == 0.75
    maps = torch.zeros(1, 2, 2, 2)
    maps[0, 1, 0] = 1.0
    flipped = maps.clone()
    flipped[0, 1] = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert top1([flipped], [maps]) == 0.75
    assert top1([logits], [logits[:2]]) is None
    assert top1([torch.ones(3)], [torch.ones(3)]) is None
    assert top1([torch.ones(3, 1)], [torch.ones(3, 1)]) is None
    assert top1([torch.ones(3, 2, dtype=torch.int64)], [torch.ones(3, 2, dtype=torch.int64)]) is None
