"""The proof passes what is equal to rounding, and fails everything else with a reason."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.proof.prove import Proof, prove, prove_against, verify
from surgery.proof.reference import record
from surgery.proof.twin import float64_copy


class Net(nn.Module):
    """conv [3, h] -> conv [h, 5] -> mean: takes any batch and any resolution."""

    def __init__(self, hidden: int = 6) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, hidden, 3, padding=1)
        self.b = nn.Conv2d(hidden, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return self.b(self.a(x).relu()).mean((2, 3))


def without_dead_unit(net: Net) -> tuple[Net, Net]:
    """The net with hidden unit 2 zeroed, and the same function without it."""
    with torch.no_grad():
        net.a.weight[2] = 0
        net.a.bias[2] = 0  # type: ignore[index]
        slim = type(net)(net.a.out_channels - 1).to(net.a.weight.dtype)
        keep = [i for i in range(net.a.out_channels) if i != 2]
        slim.a.weight.copy_(net.a.weight[keep])
        slim.a.bias.copy_(net.a.bias[keep])  # type: ignore[index,union-attr]
        slim.b.weight.copy_(net.b.weight[:, keep])
        slim.b.bias.copy_(net.b.bias)  # type: ignore[arg-type,union-attr]
    return net, slim


def proved(masked: nn.Module, slim: nn.Module, example: Any) -> Proof:
    masked64, slim64 = float64_copy(masked), float64_copy(slim)
    return prove(masked, slim, Inputs.of(example), masked64=masked64, slim64=slim64)


X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


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


def test_without_float64_the_noise_is_estimated_and_the_proof_says_so() -> None:
    masked, slim = without_dead_unit(Net())
    proof = prove(masked, slim, Inputs.of(X))
    assert proof.passed
    assert proof.max_rel_error_float64 is None
    assert proof.noise is None
    assert proof.notes == (
        "float64 skipped: no float64 version of the model was given",
        "noise estimated as 4 eps of float32 times the largest output, over the spread",
    )
    assert "float64 skipped" in str(proof).splitlines()[0]
    half = prove(masked, slim, Inputs.of(X), masked64=float64_copy(masked))
    assert "float64 skipped: no float64 version of the slim model was given" in half.notes
    assert half.noise is not None


def test_a_float64_model_needs_no_second_version() -> None:
    masked, slim = without_dead_unit(Net().double())
    proof = prove(masked, slim, Inputs.of(X.double()))
    assert proof.passed
    assert proof.max_rel_error_float64 is not None
    with torch.no_grad():
        slim.b.bias[0] += 1e-7  # type: ignore[index]
    assert not prove(masked, slim, Inputs.of(X.double())).passed


def test_a_model_that_cannot_run_in_float64_is_proved_in_its_own_dtype() -> None:
    class OnlyFloat32(Net):
        def forward(self, x: Tensor) -> Tensor:
            if x.dtype != torch.float32:
                raise RuntimeError("no kernel for Double")
            return super().forward(x)  # type: ignore[no-any-return]

    masked, slim = without_dead_unit(OnlyFloat32())
    proof = proved(masked, slim, X)
    assert proof.passed
    assert proof.max_rel_error_float64 is None
    assert proof.notes[0] == (
        "float64 skipped on example [1, 3, 8, 8]: the masked model cannot run in float64 "
        "(RuntimeError: no kernel for Double)"
    )
    with torch.no_grad():
        slim.b.bias[0] += 1e-3  # type: ignore[index]
    assert "differs in float32" in (proved(masked, slim, X).failure or "")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_judged_against_its_own_noise(dtype: torch.dtype) -> None:
    masked, slim = without_dead_unit(Net().to(dtype))
    proof = proved(masked, slim, X.to(dtype))
    assert proof.passed, proof
    assert proof.dtype == str(dtype).removeprefix("torch.")
    assert proof.bound > 1e-4
    with torch.no_grad():
        slim.b.weight[0] *= 1.5
    assert not proved(masked, slim, X.to(dtype)).passed


def test_a_reference_recorded_before_the_cut_serves_a_cut_in_place() -> None:
    net, slim = without_dead_unit(Net())
    net64, slim64 = float64_copy(net), float64_copy(slim)
    reference = record(net, Inputs.of(X), masked64=net64)
    with torch.no_grad():
        for module in (net, net64):
            for parameter in module.parameters():
                parameter.zero_()
    assert prove_against(reference, slim, slim64=slim64).passed
    assert not prove_against(reference, net, slim64=net64).passed


def test_a_resnet_sized_proof_takes_13_forwards() -> None:
    calls: list[int] = []

    class Counted(Net):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(x.shape[0])
            return super().forward(x)  # type: ignore[no-any-return]

    net = Counted()
    assert proved(net, net, X).passed
    assert len(calls) == 13
    assert max(calls) == 3


def test_a_live_dropout_is_refused_by_name() -> None:
    class Live(Net):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(x))

    with pytest.raises(InputError, match="random in eval mode") as caught:
        proved(Live(), Live(), X)
    assert str(caught.value) == (
        "the model is random in eval mode (aten.bernoulli_), e.g. a live dropout: two runs on the same input differ\n"
        "  -> make it follow the training flag, as in F.dropout(x, p, self.training)"
    )


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_other_randomness_is_refused_however_small(size: float) -> None:
    class Random(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + size * torch.randn(())  # type: ignore[no-any-return]

    with pytest.raises(InputError, match="random in eval mode"):
        proved(Random(), Random(), X)


def test_a_dropout_that_follows_the_flag_is_no_randomness() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.LSTM(4, 4, 2, dropout=0.5))
    assert net.training
    assert proved(net, net, torch.randn(2, 4)).passed


def test_inputs_that_the_masked_model_refuses_are_an_input_error() -> None:
    with pytest.raises(InputError, match=r"the model fails on its own example inputs: RuntimeError: .*\n.*eval mode"):
        proved(Net(), Net(), torch.randn(1, 4, 8, 8))


def test_a_model_that_returns_no_number_is_an_input_error() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"a": None, "b": x[:0]}

    with pytest.raises(InputError, match="without a single number: there is nothing to compare\n  -> let it return"):
        proved(Nothing(), Nothing(), torch.randn(2, 4))


def test_an_object_that_cannot_be_looked_into_is_noted() -> None:
    class Cache: ...

    class Holder(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Cache]:
            return x * 2, Cache()

    proof = proved(Holder(), Holder(), torch.randn(2, 4))
    assert proof.passed
    assert proof.notes[0] == "output[1] is a Cache: only its type is compared"


def test_state_that_a_forward_changes_starts_each_run_anew_and_is_brought_back() -> None:
    class Stateful(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.last: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            y: Tensor = super().forward(x) * self.calls
            y = y if self.last is None else y + self.last
            self.last = y
            return y

    net = Stateful()
    net.a.train(False)
    other = copy.deepcopy(net)
    proof = proved(net, other, X)
    assert proof.passed
    assert proof.noise is not None
    assert proof.noise < 1e-5  # the float64 copies start each run anew, too
    for module in (net, other):
        assert module.calls == 0
        assert module.last is None
        assert module.training
        assert not module.a.training
        assert module.b.training


def test_verify_judges_a_slim_model_whose_biases_were_rounded() -> None:
    torch.manual_seed(3)
    a = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        a[0].weight[::2] = 0
        b = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        b[0].weight.copy_(a[0].weight[1::2])
        b[0].bias.copy_(a[0].bias[1::2])
        b[2].weight.copy_(a[2].weight[:, 1::2])
        b[2].bias.copy_(a[2].bias + a[2].weight[:, ::2] @ a[0].bias[::2].relu())
    proof = verify(a, b, torch.randn(2, 8))
    assert proof.passed, proof
    assert proof.max_rel_error_float64 is not None
    assert 1e-9 < proof.max_rel_error_float64 <= proof.bound_float64 < 1e-6
    assert any("cast up" in note for note in proof.notes)
    with torch.no_grad():
        b[2].bias[0] += 1e-5
    assert not verify(a, b, torch.randn(2, 8)).passed


def test_verify_takes_models_in_pruning_hooks_and_keyword_inputs() -> None:
    from torch.nn.utils import prune as masks

    net = Net()
    masks.ln_structured(net.a, "weight", 0.5, 2, 0)
    net(X)  # now the weight is no leaf, and copy.deepcopy refuses the model
    assert verify(net, net, (), {"x": X}).passed


def test_verify_says_so_where_no_float64_copy_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgery.proof.prove.FLOAT64_LIMIT_BYTES", 100)
    net = Net()
    proof = verify(net, net, X)
    assert proof.passed
    assert proof.notes[0] == "float64 skipped: a copy would take 0 GiB"


def test_verify_of_an_exported_program_of_one_shape() -> None:
    net = Net().eval()
    captured = torch.export.export(net, (X,)).module()
    assert verify(captured, captured, X).passed
    assert "which the masked model accepts" in (verify(net, captured, X).failure or "")


def test_a_model_is_restored_also_where_the_proof_ends_early() -> None:
    class Stateful(nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.linear = nn.Linear(4, features)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.linear(x)  # type: ignore[no-any-return]

    slim = Stateful(3)
    reference = record(Stateful(2), Inputs.of(torch.randn(1, 4)))
    proof = prove_against(reference, slim)
    assert "output has shape [1, 2] against [1, 3]" in (proof.failure or "")
    assert slim.calls == 0
    assert slim.training
    assert torch.is_grad_enabled()


def test_a_flip_where_float64_could_not_run_is_a_failure() -> None:
    class Flip(nn.Module):
        def __init__(self, wrong: bool) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))
            self.wrong = wrong

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            batch_of_3 = x.shape[0] == 3
            if batch_of_3 and x.dtype == torch.float64:
                raise RuntimeError("no kernel for Double")
            y = x * self.weight
            return y, (y > 0) ^ (self.wrong and batch_of_3)

    proof = proved(Flip(wrong=False), Flip(wrong=True), torch.randn(1, 4))
    assert proof.notes[1].startswith("float64 skipped on batch 3 [3, 4]: the masked model cannot run in float64")
    assert proof.failure == "in float32 12 of 12 values of output[1] (torch.bool) on batch 3 [3, 4] differ"


def test_an_output_that_is_the_models_own_buffer_is_recorded_as_it_was() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.total.add_(x.sum(0))

    net = Sum()
    proof = proved(net, Sum(), torch.randn(1, 4))
    assert proof.passed, proof
    assert proof.spread is not None
    assert proof.spread > 0
    torch.testing.assert_close(net.total, torch.zeros(4))


def test_casts_to_float32_inside_the_model_do_not_show_in_float64() -> None:
    class Casts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 64)
            self.b = nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.a(x).relu().float(), self.b.weight.float()).to(x.dtype)

    net = Casts()
    other = copy.deepcopy(net)
    with torch.no_grad():
        for tensor in (other.a.weight, other.a.bias):
            tensor.copy_(tensor.flip(0))
        other.b.weight.copy_(other.b.weight.flip(1))
    proof = proved(net, other, torch.randn(2, 4))
    assert proof.passed, proof
    assert proof.max_rel_error_float64 is not None
    assert proof.max_rel_error_float64 < 1e-12
