from __future__ import annotations

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surgery.inputs import Inputs
from surgery.latency import Benchmark, benchmark
from surgery.latency.forms import Batch, Forms
from surgery.latency.precisions import precision_of
from surgery.latency.runtime import Bind, Runtime, Setting
from surgery.latency.sending import receive
from surgery.latency.subjects import subjects_of

BRIEF: dict[str, Any] = {"min_pairs": 4, "min_seconds": 0.0, "max_seconds": 0.05}


@pytest.fixture(autouse=True)
def brief_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgery.latency.timing.WARMUP_SECONDS", 0.01)


class Told(nn.Linear):
    """Fails unless weight and input are of the dtype that it was built to expect."""

    def __init__(self, *allowed: torch.dtype) -> None:
        super().__init__(8, 5)
        self.allowed = allowed

    def forward(self, input: Tensor) -> Tensor:
        if (input.dtype, self.weight.dtype) not in [(dtype, dtype) for dtype in self.allowed]:
            raise TypeError(f"{input.dtype} into {self.weight.dtype}")
        return super().forward(input)


def test_each_precision_is_a_cell_of_its_own() -> None:
    model, x = Told(torch.float32, torch.bfloat16, torch.float16), torch.randn(3, 8)
    found = benchmark({"a": model}, x, runtimes=("eager", "pt2"), precisions=("float32", "bf16", "fp16"), **BRIEF)
    places = [(cell.precision, cell.runtime) for cell in found.cells]
    assert places == [(p, r) for p in ("float32", "bf16", "fp16") for r in ("eager", "pt2")]
    errors = {}
    for cell in found.cells:
        assert cell.rows[0].failure == ""
        errors[cell.precision] = cell.rows[0].error
    assert errors["float32"] == 0.0
    assert 1e-4 < errors["bf16"] < 0.1
    assert 1e-6 < errors["fp16"] < errors["bf16"]
    assert "eager, bf16, 1 thread, cpu, batch 3" in map(str, found.cells)
    assert found.cell("eager", precision="bf16").precision == "bf16"
    assert model.weight.dtype == torch.float32
    assert Benchmark.from_json(found.to_json()) == found


def test_without_a_word_a_model_keeps_its_own_precision() -> None:
    (cell,) = benchmark(
        {"a": Told(torch.bfloat16).bfloat16()}, torch.randn(3, 8).bfloat16(), runtimes="eager", **BRIEF
    ).cells
    assert (cell.precision, cell.rows[0].failure) == ("bf16", "")
    assert precision_of(nn.Identity()) == "float32"
    assert precision_of(nn.Sequential(nn.Linear(9, 9).double(), nn.Linear(1, 1))) == "float64"


def test_models_of_different_precisions_keep_their_own() -> None:
    """A bf16 net beside the float32 one that it was made from is the comparison that was asked for."""
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    half = copy.deepcopy(whole).bfloat16()
    (cell,) = benchmark({"whole": whole, "half": half}, torch.randint(0, 7, (2, 5)), runtimes="eager", **BRIEF).cells
    assert (cell.precision, [row.failure for row in cell.rows]) == ("own", ["", ""])
    assert [row.error for row in cell.rows] == [0.0, 0.0]  # each is held against itself


def test_inputs_are_cast_only_where_a_precision_is_asked_for() -> None:
    class Particular(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            if input.dtype != torch.float64:
                raise TypeError("not what was given")
            return super().forward(input.float())

    x = torch.randn(2, 3, dtype=torch.float64)
    (cell,) = benchmark({"a": Particular(3, 3)}, x, runtimes=("eager",), **BRIEF).cells
    assert (cell.precision, cell.rows[0].failure) == ("float32", "")


def _never(path: Path, setting: Setting) -> Bind:
    raise AssertionError("nothing is loaded here")


def test_a_runtime_that_lowers_the_precision_itself_gets_float32(tmp_path: Path) -> None:
    runtime = Runtime("fake", None, ("cpu",), ("float32", "bf16"), _never, lowers=("bf16",))
    x = Inputs.of(torch.randn(3, 8))
    subjects = subjects_of({"a": nn.Linear(8, 5)}, x, tmp_path, trust=False, flush=True)
    forms = Forms(subjects, (Batch(3, x, x.fresh(0), 0),), tmp_path)
    for kind, dtype in ((runtime, torch.float32), (replace(runtime, lowers=()), torch.bfloat16)):
        form = forms.form(subjects[0], forms.batches[0], kind, "bf16", "cpu")
        assert receive(Path(form.inputs)).args[0].dtype == dtype
        assert receive(Path(form.file)).weight.dtype == dtype
        assert receive(Path(form.reference)).slack != ()  # in both it may lose what bf16 loses


def test_integer_inputs_keep_their_dtype() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    (cell,) = benchmark({"a": model}, torch.randint(0, 7, (2, 5)), runtimes="eager", precisions="bf16", **BRIEF).cells
    assert cell.rows[0].failure == ""


def test_int8_is_quantised_for_onnx_runtime_and_refused_elsewhere() -> None:
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(8 * 64, 5))
    found = benchmark(
        {"a": conv},
        torch.randn(2, 3, 12, 12),
        runtimes=("onnxruntime", "eager"),
        precisions=("float32", "int8"),
        **BRIEF,
    )
    whole, _, small, refused = (cell.rows[0] for cell in found.cells)
    assert refused.failure == "eager is measured in float32, bf16, fp16, float64, own only"
    assert whole.error is not None
    assert small.error is not None
    assert whole.error < 1e-4 < small.error < 0.3
    assert whole.file_bytes is not None
    assert small.file_bytes is not None
    assert small.file_bytes < 0.6 * whole.file_bytes


@pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="the extra quantize-torchao")
@pytest.mark.slow
def test_int8_is_quantised_for_aotinductor() -> None:
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(8 * 64, 5))
    (cell,) = benchmark({"a": conv}, torch.randn(2, 3, 12, 12), runtimes="aoti", precisions="int8", **BRIEF).cells
    assert cell.rows[0].failure == ""
    assert cell.rows[0].error is not None
    assert 1e-4 < cell.rows[0].error < 0.3
