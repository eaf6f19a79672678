"""The proof passes what is equal to rounding, and fails everything else with a reason."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgery.cutting.twins import float64_copy
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.proof.prove import prove, prove_against, verify
from surgery.proof.reference import record
from tests.proof.proved import Net, X, proved, without_dead_unit


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
