"""The proof passes what is equal to rounding, and fails everything else with a reason."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from surgery.cutting.twins import float64_copy
from surgery.inputs import Inputs
from surgery.proof.prove import prove
from tests.proof.proved import Net, X, proved, without_dead_unit


def test_an_exact_cut_passes_on_the_example_two_batches_and_another_size() -> None:
    proof = proved(*without_dead_unit(Net()), X)
    assert proof.passed, proof
    assert proof.failure is None
    assert proof.shapes == ("example [1, 3, 8, 8]", "batch 3 [3, 3, 8, 8]", "another size [1, 3, 40, 40]")
    assert proof.n_inputs == 5
    assert proof.notes == ()
    assert proof.max_rel_error_float64 is not None
    assert proof.max_rel_error_float64 <= proof.bound_float64 == 1e-9
    assert proof.max_rel_error is not None
    assert proof.noise is not None
    assert proof.max_rel_error <= proof.bound == max(1e-5, 4 * proof.noise)
    assert 0 < proof.noise < 1e-5
    assert proof.dtype == "float32"


def test_a_batch_of_two_is_tried_in_batches_of_one_and_three() -> None:
    proof = proved(*without_dead_unit(Net()), torch.randn(2, 3, 8, 8))
    assert [shape.split(" [")[0] for shape in proof.shapes] == ["example", "batch 1", "batch 3", "another size"]
    assert proof.n_inputs == 7


def test_a_proof_is_plain_data_and_short_to_read() -> None:
    proof = proved(*without_dead_unit(Net()), X)
    assert json.loads(json.dumps(dataclasses.asdict(proof), allow_nan=False))["passed"] is True
    first, second = str(proof).splitlines()
    number = r"\d\.\de[+-]\d\d"
    assert re.fullmatch(
        rf"proof passed: relative error {number} in float64 \(bound 1.0e-09\), "
        rf"{number} in float32 as used \(bound 1.0e-05, noise {number}\)",
        first,
    )
    assert second == "  on 5 inputs: example [1, 3, 8, 8]; batch 3 [3, 3, 8, 8]; another size [1, 3, 40, 40]"


def test_a_wrong_bias_fails_and_the_output_is_named() -> None:
    masked, slim = without_dead_unit(Net())
    with torch.no_grad():
        slim.b.bias[0] += 1e-3  # type: ignore[index]
    proof = proved(masked, slim, X)
    assert not proof.passed
    assert re.match(r"output differs in float64 by .* of its spread .* \(bound 1.0e-09\), most on ", str(proof.failure))
    assert "proof FAILED" in str(proof)
    assert "failure: output differs" in str(proof)


def test_float64_shows_what_float32_cannot() -> None:
    masked, slim = without_dead_unit(Net())
    masked64, slim64 = float64_copy(masked), float64_copy(slim)
    with torch.no_grad():
        slim64.b.bias[0] += 1e-7  # type: ignore[index]
    proof = prove(masked, slim, Inputs.of(X), masked64=masked64, slim64=slim64)
    assert not proof.passed
    assert proof.max_rel_error is not None
    assert proof.max_rel_error <= proof.bound


def test_the_own_dtype_is_judged_too() -> None:
    masked, slim = without_dead_unit(Net())
    masked64, slim64 = float64_copy(masked), float64_copy(slim)
    with torch.no_grad():
        slim.b.bias[0] += 1e-3  # type: ignore[index]
    proof = prove(masked, slim, Inputs.of(X), masked64=masked64, slim64=slim64)
    assert "differs in float32" in (proof.failure or "")


class Offset(nn.Module):
    """Varies by about 1e-3 around 10: divided by its largest value, a wrong cut would pass."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1e-3))
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        return 10 + self.weight * x.tanh() + self.error


def test_errors_are_measured_by_the_spread_and_not_by_the_largest_output() -> None:
    example = torch.randn(1, 4, dtype=torch.float64)
    proof = proved(Offset(0).double(), Offset(1e-6).double(), example)
    assert not proof.passed
    assert proof.max_rel_error is not None
    assert proof.max_rel_error > 1e-4
    assert proof.spread == pytest.approx(1.5e-3, rel=0.5)


def test_a_noisy_model_is_allowed_four_times_its_noise() -> None:
    proof = proved(Offset(0), Offset(1e-6), torch.randn(1, 4))
    assert proof.noise is not None
    assert proof.noise > 1e-4
    assert proof.bound == 4 * proof.noise


def test_a_slim_model_that_refuses_a_shape_fails_the_proof() -> None:
    class OneSize(Net):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] != 8:
                raise RuntimeError("takes 8 x 8 only\nand more lines")
            return super().forward(x)  # type: ignore[no-any-return]

    net = OneSize()
    masked = Net()
    masked.load_state_dict(net.state_dict())
    proof = proved(masked, net, X)
    assert proof.failure == (
        "the slim model raises on another size [1, 3, 40, 40], which the masked model accepts: "
        "RuntimeError: takes 8 x 8 only"
    )
    back = proved(net, masked, X)
    assert back.passed
    assert back.notes == ("another size skipped: the masked model refuses it (RuntimeError: takes 8 x 8 only)",)


def test_an_exception_before_anything_was_compared_leaves_no_numbers() -> None:
    proof = proved(Net(), nn.Linear(7, 7), X)
    assert not proof.passed
    assert (proof.max_abs_error, proof.max_rel_error, proof.spread) == (None, None, None)
    assert "nothing compared in float32" in str(proof)
    json.dumps(dataclasses.asdict(proof), allow_nan=False)


def test_without_a_batch_of_three_two_fresh_calls_of_the_same_shape_are_tried() -> None:
    class One(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.view(1, 3, 8, 8))  # type: ignore[no-any-return]

    net = One()
    proof = proved(net, net, X)
    assert proof.passed
    assert proof.shapes == ("example [1, 3, 8, 8]", "fresh values [1, 3, 8, 8]", "fresh values [1, 3, 8, 8]")
    assert [note.split(":")[0] for note in proof.notes] == ["batch 3 skipped", "another size skipped"]
    assert proof.spread is not None
    assert proof.spread > 0


def test_inputs_without_a_shared_batch_dim_get_fresh_values() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.linear(x) * scale  # type: ignore[no-any-return]

    pair = Pair()
    proof = proved(pair, pair, (torch.randn(2, 4), torch.tensor(2.0)))
    assert proof.passed
    assert proof.shapes == ("example [2, 4], []", "fresh values [2, 4], []", "fresh values [2, 4], []")


def test_another_size_is_judged_by_the_spread_where_its_output_has_a_shape_of_its_own() -> None:
    class Map(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu())  # type: ignore[no-any-return]

    masked, slim = without_dead_unit(Map())
    proof = proved(masked, slim, X)
    assert proof.passed, proof
    assert proof.notes == ()  # no "unknown spread": it borrows that of the example's shape


class Outputs(NamedTuple):
    logits: Tensor
    extra: dict[str, Any]


class Many(nn.Module):
    def __init__(self, **change: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.change = change

    def forward(self, x: Tensor) -> Any:
        y = self.linear(x)
        extra = {"loss": float(y.sum()), "label": y.argmax(-1), "name": "digits", "none": None} | {
            key: change(y) for key, change in self.change.items()
        }
        return Outputs(y, extra)


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        ({}, None),
        ({"loss": lambda y: float(y.sum()) + 1}, "output[1]['loss'] differs in float64 by"),
        ({"label": lambda y: y.argmin(-1)}, "in float64 2 of 2 values of output[1]['label'] (torch.int64) on example"),
        ({"name": lambda _: "letters"}, "output[1]['name'] is 'digits' against 'letters'"),
        ({"none": lambda y: y}, "masked against slim: Outputs([0]: float, [1]: dict("),
        ({"label": lambda y: y.argmax(-1)[:, None]}, "output[1]['label'] has shape [2] against [2, 1]"),
        ({"label": lambda y: y.argmax(-1).bool()}, "masked against slim: Outputs("),
        ({"more": lambda y: y}, "masked against slim: Outputs("),
    ],
)
def test_every_leaf_of_the_output_is_compared(change: dict[str, Any], failure: str | None) -> None:
    proof = proved(Many(), Many(**change), torch.randn(2, 4))
    if failure is None:
        assert proof.passed, proof
    else:
        assert not proof.passed
        assert failure in (proof.failure or "")


def test_each_output_is_divided_by_its_own_spread() -> None:
    class Two(nn.Module):
        def __init__(self, error: float) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
            self.error = error

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.linear(x)
            return 1e6 * y, y + self.error

    proof = proved(Two(0), Two(1e-3), torch.randn(2, 4))
    assert (proof.failure or "").startswith("output[1] differs")


def test_a_flip_that_only_rounding_makes_is_a_note() -> None:
    class Flip(nn.Module):
        def __init__(self, wrong: torch.dtype | None) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))
            self.wrong = wrong

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = x * self.weight
            return y, (y > 0) ^ (y.dtype == self.wrong)

    x = torch.randn(1, 4)
    proof = proved(Flip(None), Flip(torch.float32), x)
    assert proof.passed
    assert any("(torch.bool) on example [1, 4] differ in float32, none in float64" in note for note in proof.notes)
    assert "in float64 4 of 4 values of output[1]" in (proved(Flip(None), Flip(torch.float64), x).failure or "")
    alone = prove(Flip(None), Flip(torch.float32), Inputs.of(x))
    assert "in float32 4 of 4 values of output[1]" in (alone.failure or "")
    half = prove(Flip(None), Flip(torch.float32), Inputs.of(x), masked64=float64_copy(Flip(None)))
    assert "in float32 4 of 4 values of output[1]" in (half.failure or "")


def test_an_output_that_does_not_depend_on_the_input_is_divided_by_its_size_and_said() -> None:
    class Constant(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.tensor(value))

        def forward(self, x: Tensor) -> Tensor:
            return self.value.expand(x.shape[0], 2)

    proof = proved(Constant(4.0), Constant(4.0), torch.randn(2, 3))
    assert proof.passed
    assert proof.spread == 0
    assert proof.notes[1] == "output does not depend on the input: its differences are divided by 4.0e+00"
    wrong = proved(Constant(4.0), Constant(4.4), torch.randn(2, 3))
    assert wrong.max_rel_error == pytest.approx(0.1)
    assert not wrong.passed
    assert prove(Constant(0.0), Constant(0.0), Inputs.of(torch.randn(2, 3))).passed


def test_nan_and_infinity_must_stand_in_the_same_places() -> None:
    class Log(nn.Module):
        def __init__(self, shift: float) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))
            self.shift = shift

        def forward(self, x: Tensor) -> Tensor:
            return (self.scale * x + self.shift).log()

    x = torch.tensor([[-1.0, 0.0, 1.0, 2.0]])
    proof = proved(Log(0), Log(0), x)
    assert proof.passed
    assert any("output values are NaN or infinite" in note for note in proof.notes)
    failure = proved(Log(0), Log(1e-9), x).failure or ""
    assert failure == ("the slim model is NaN or infinite at other places on example [1, 4]: 1 of 4 values of output")
    nothing = proved(Log(float("nan")), Log(float("nan")), x)
    assert nothing.failure == "every output of the masked model is NaN or infinite: nothing can be compared"
