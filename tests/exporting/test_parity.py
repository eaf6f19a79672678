from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.errors import CheckError, InputError
from surgery.exporting import door, export
from surgery.exporting.flat import FlatModel
from surgery.exporting.parity import Examiner, Trial, judge
from surgery.exporting.target import Loaded
from surgery.exporting.torchscript import TORCHSCRIPT
from surgery.inputs import Inputs
from tests.exporting.models import convnet


def trial(*outputs: Tensor, exact: list[Tensor] | None = None, label: str = "x") -> Trial:
    return Trial(label, outputs[0].shape[0], [], list(outputs), exact, resized=False)


def test_the_error_is_relative_to_the_change_between_inputs_not_to_the_size() -> None:
    trials = [trial(torch.tensor([1000.0, 1000.0])), trial(torch.tensor([1000.0, 1000.5]))]
    answers = [[torch.tensor([1000.0, 1000.0])], [torch.tensor([1000.0, 1000.25])]]
    verdict = judge(trials, answers, ["output"])
    assert verdict.parity.max_abs_error == 0.25
    assert verdict.parity.max_rel_error == 0.5
    assert not verdict.parity.passed
    assert verdict.broken == (trials[1],)


def test_without_any_change_the_largest_value_counts() -> None:
    x = torch.tensor([4.0, -8.0])
    assert judge([trial(x)], [[x + torch.tensor([0.0, 2.0])]], ["output"]).parity.max_rel_error == 0.25


def test_the_models_own_rounding_widens_the_bound_fourfold() -> None:
    x, exact = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.01], dtype=torch.float64)
    trials = [trial(x, exact=[exact])]
    bound = judge(trials, [[x]], ["output"]).parity.bound
    assert bound == pytest.approx(0.04)
    assert judge(trials, [[x + 0.039]], ["output"]).parity.passed
    assert not judge(trials, [[x + 0.041]], ["output"]).parity.passed


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_float64_copy_that_is_not_finite_excuses_nothing(odd: float) -> None:
    x = torch.tensor([0.0, 1.0])
    for exact in ([odd, odd], [0.0, odd]):
        trials = [trial(x, exact=[torch.tensor(exact, dtype=torch.float64)])]
        assert judge(trials, [[x]], ["output"]).parity.bound == 1e-5
        assert not judge(trials, [[x + 0.001]], ["output"]).parity.passed


def test_between_two_files_the_noise_is_estimated() -> None:
    trials = [trial(torch.tensor([100.0, 0.0])), trial(torch.tensor([100.0, 1.0]))]
    parity = judge(trials, [t.expected for t in trials], ["output"], estimate_noise=True).parity
    assert parity.bound == pytest.approx(4 * 4 * torch.finfo(torch.float32).eps * 100)


def test_a_noisy_output_does_not_excuse_another() -> None:
    noisy, calm = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])
    trials = [trial(noisy, calm, exact=[noisy.double() + 0.1, calm.double()])]
    verdict = judge(trials, [[noisy + 0.2, calm + 0.001]], ["noisy", "calm"])
    assert not verdict.parity.passed
    assert verdict.where == "output 'calm', on x"
    assert verdict.parity.bound == 1e-5


def test_nan_and_infinity_agree_only_with_themselves() -> None:
    x = torch.tensor([float("nan"), float("inf"), 1.0])
    assert judge([trial(x)], [[x.clone()]], ["output"]).parity.passed
    for wrong in ([0.0, float("inf"), 1.0], [float("nan"), float("-inf"), 1.0], [float("nan"), 3.0, 1.0]):
        assert not judge([trial(x)], [[torch.tensor(wrong)]], ["output"]).parity.passed


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([torch.zeros(3, 1)], "shape [3, 1] instead of [3]"),
        ([torch.zeros(3, dtype=torch.float64)], "torch.float64 instead of torch.float32"),
        ([torch.zeros(3), torch.zeros(3)], "2 outputs instead of 1"),
    ],
)
def test_another_kind_of_answer_is_a_disagreement(answer: list[Tensor], words: str) -> None:
    verdict = judge([trial(torch.zeros(3))], [answer], ["output"])
    assert not verdict.parity.passed
    assert words in verdict.where


def test_integer_outputs_are_compared_exactly() -> None:
    x = torch.tensor([1, 2, 3])
    assert judge([trial(x)], [[x]], ["output"]).parity.passed
    assert not judge([trial(x)], [[x + torch.tensor([0, 0, 1])]], ["output"]).parity.passed


def test_a_model_that_cannot_run_in_float64_is_held_to_the_plain_bound() -> None:
    class Single(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ torch.ones(8, 2, dtype=torch.float32)

    inputs = Inputs.of(torch.randn(4, 8))
    examiner = Examiner(FlatModel(Single(), inputs), inputs)
    assert examiner.example.exact is None
    assert examiner.notes[0].startswith("its rounding noise is unknown, since it does not run in float64: ")


def broken_runtime(spoil: Callable[[list[Tensor]], list[Tensor]]) -> object:
    """TorchScript, but what its runtime answers is spoilt."""

    def load(path: Path) -> Loaded:
        loaded = TORCHSCRIPT.load(path)
        return replace(loaded, run=lambda tensors: spoil(loaded.run(tensors)))

    return lambda path, name: replace(TORCHSCRIPT, load=load)


def test_a_file_that_disagrees_is_deleted_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "target_for", broken_runtime(lambda outputs: [outputs[0] * 1.001]))
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    with pytest.raises(
        CheckError, match=r"the exported file disagrees with the model: relative error \d\.\de-0\d, "
    ) as e:
        export(convnet(), path, torch.randn(2, 3, 8, 8), overwrite=True)
    assert e.value.exit_code == 1
    assert e.value.way_out.startswith("nothing was kept; try another format")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_a_file_that_does_not_run_at_another_batch_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_two(outputs: list[Tensor]) -> list[Tensor]:
        if len(outputs[0]) != 2:
            raise RuntimeError("batch of 2 only\nand more")
        return outputs

    monkeypatch.setattr(door, "target_for", broken_runtime(only_two))
    words = "torch.jit.load cannot run the exported file on batch 1: batch of 2 only\n  -> .*dynamic_shapes={}"
    with pytest.raises(CheckError, match=words):
        export(convnet(), tmp_path / "a.pt", torch.randn(2, 3, 8, 8))
    assert not list(tmp_path.iterdir())


def test_where_nothing_is_finite_nothing_is_compared(tmp_path: Path) -> None:
    """Two nets that have nothing in common but NaN would agree."""
    net, other = nn.Linear(4, 3), nn.Linear(4, 3)
    x = torch.randn(2, 4)
    surgery.export(net, tmp_path / "net.pt", x)
    told = "NaN, infinite or empty: nothing can be compared"
    for odd in (torch.full_like(x, float("nan")), torch.full_like(x, float("inf")), x[:0]):
        with pytest.raises(InputError, match=told):
            surgery.verify(other, tmp_path / "net.pt", odd, trust=True)
    assert not surgery.verify(other, tmp_path / "net.pt", x, trust=True).passed
    nothing = nn.Linear(4, 3)
    nn.init.constant_(nothing.bias, float("nan"))
    with pytest.raises(InputError, match=told):
        surgery.export(nothing, tmp_path / "nothing.pt", x)
