from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.errors import InputError
from surgery.latency import benchmark

BRIEF: dict[str, Any] = {"min_pairs": 4, "min_seconds": 0.0, "max_seconds": 0.05}


@pytest.fixture(autouse=True)
def brief_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgery.latency.timing.WARMUP_SECONDS", 0.01)


class Scaled(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(4, width), nn.Linear(width, 3)

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        return self.outer(self.inner(x).relu() * factor)


X, FACTOR = torch.randn(2, 4), torch.rand(2, 1) + 0.5


def test_a_file_is_timed_in_its_own_runtime_beside_modules(tmp_path: Path) -> None:
    surgery.export(Scaled(), tmp_path / "slim.onnx", (X,), {"factor": FACTOR})
    models = {"module": Scaled(), "file": tmp_path / "slim.onnx"}
    found = benchmark(models, (X,), {"factor": FACTOR}, batch_sizes=(1, 5), **BRIEF)
    assert [(cell.runtime, cell.batch) for cell in found.cells] == [("onnxruntime", 1), ("onnxruntime", 5)]
    for cell in found.cells:
        module, file = cell.rows
        assert (module.failure, file.failure) == ("", "")
        assert file.file_bytes == (tmp_path / "slim.onnx").stat().st_size
        assert file.top1 == 1.0
    module_told, file_told = found.models
    assert (module_told.kind, module_told.params, module_told.macs) == ("Scaled", 67, 4 * 8 + 8 * 3)
    assert (file_told.kind, file_told.params) == ("slim.onnx (onnx)", None)


def test_inputs_of_a_file_are_found_by_name(tmp_path: Path) -> None:
    """The file takes the factor first; by position it would multiply the wrong way round, and fail."""

    class Turned(Scaled):
        def forward(self, factor: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, factor)

    surgery.export(Turned(), tmp_path / "turned.onnx", (FACTOR, X))
    models = {"module": Scaled(), "turned": str(tmp_path / "turned.onnx")}
    (cell,) = benchmark(models, (X, FACTOR), **BRIEF).cells
    assert [row.failure for row in cell.rows] == ["", ""]
    assert [row.top1 for row in cell.rows] == [1.0, 1.0]


def test_a_file_does_not_run_elsewhere_and_says_so(tmp_path: Path) -> None:
    surgery.export(Scaled(), tmp_path / "slim.onnx", (X, FACTOR))
    models = {"module": Scaled(), "file": tmp_path / "slim.onnx"}
    (cell,) = benchmark(models, (X, FACTOR), runtimes="eager", **BRIEF).cells
    assert cell.rows[0].failure == ""
    assert cell.rows[1].failure.endswith("slim.onnx' (onnx) does not run in eager")


def test_a_file_keeps_its_own_precision_and_inputs(tmp_path: Path) -> None:
    surgery.export(Scaled(), tmp_path / "slim.onnx", (X, FACTOR))
    models = {"module": Scaled(), "file": tmp_path / "slim.onnx"}
    (cell,) = benchmark(models, (X, FACTOR), precisions="fp16", **BRIEF).cells
    module, file = cell.rows
    assert (module.failure, file.failure) == ("", "")
    assert module.error is not None
    assert module.error > 1e-5
    assert file.error == 0.0


@pytest.mark.parametrize(("suffix", "runtime"), [(".pt", "torchscript"), (".pt2", "pt2")])
def test_files_that_are_code_need_trust(tmp_path: Path, suffix: str, runtime: str) -> None:
    path = tmp_path / f"slim{suffix}"
    surgery.export(Scaled(), path, (X, FACTOR))
    with pytest.raises(InputError, match="opening it can run any code\n  -> pass trust=True"):
        benchmark({"file": path}, (X, FACTOR), **BRIEF)
    (cell,) = benchmark({"file": path}, (X, FACTOR), trust=True, **BRIEF).cells
    assert (cell.runtime, cell.rows[0].failure, len(cell.rows[0].latency_ms) >= 4) == (runtime, "", True)


def test_a_file_that_refuses_the_inputs_is_named(tmp_path: Path) -> None:
    surgery.export(Scaled(), tmp_path / "slim.onnx", (X, FACTOR))
    with pytest.raises(InputError, match=r"file: '.*slim.onnx' refuses the inputs \(\(2, 9\), \(2, 1\)\)"):
        benchmark({"file": tmp_path / "slim.onnx"}, (torch.randn(2, 9), FACTOR), **BRIEF)
    with pytest.raises(InputError, match=r"file: '.*slim.onnx' takes other inputs"):
        benchmark({"file": tmp_path / "slim.onnx"}, (X,), **BRIEF)


def test_a_damaged_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"broken: '.*broken.onnx' \(7 bytes\) is no ONNX model"):
        benchmark({"broken": tmp_path / "broken.onnx"}, (X, FACTOR), **BRIEF)


def test_a_directory_of_ours_is_loaded(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=20
    )
    dense, tokens = transformers.BertModel(config).eval(), torch.randint(0, 20, (2, 6))
    masked = surgery.choose(dense, tokens, keep_ratio=0.5).mask(dense)
    surgery.save(surgery.shrink(masked, tokens), tmp_path / "slim")
    models = {"masked": masked, "slim": tmp_path / "slim"}
    (cell,) = benchmark(models, tokens, runtimes="eager", **BRIEF).cells
    assert [row.failure for row in cell.rows] == ["", ""]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="nothing"):
        benchmark({"a": tmp_path / "nothing"}, tokens, **BRIEF)
