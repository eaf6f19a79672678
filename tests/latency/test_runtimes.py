from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.errors import InputError, MissingExtraError
from surgery.inputs import Inputs
from surgery.latency import benchmark, eager, onnx_runtime, openvino
from surgery.latency.onnx_runtime import bound_in_place, session
from surgery.latency.runtime import Setting
from surgery.latency.runtimes import RUNTIMES
from surgery.latency.sending import send

BRIEF: dict[str, Any] = {"min_pairs": 4, "min_seconds": 0.0, "max_seconds": 0.05}
HERE = Setting(1)
needs_openvino = pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="the extra openvino")


@pytest.fixture(autouse=True)
def brief_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgery.latency.timing.WARMUP_SECONDS", 0.01)


class Watched(nn.Module):
    """Says whether it was fed channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        last = torch.channels_last
        fed = x.is_contiguous(memory_format=last) and self.conv.weight.is_contiguous(memory_format=last)
        return self.conv(x), torch.tensor(float(fed))


def test_channels_last_lays_out_weights_and_inputs(tmp_path: Path) -> None:
    send(Watched().eval(), tmp_path / "m")
    inputs = Inputs.of(torch.randn(2, 3, 6, 6))
    last = RUNTIMES["channels_last"]
    _, fed = last.load(tmp_path / "m", HERE)(last.arrange(inputs))()
    assert fed == 1.0
    _, fed = RUNTIMES["eager"].load(tmp_path / "m", HERE)(inputs)()
    assert fed == 0.0
    (cell,) = benchmark({"a": nn.Conv3d(2, 2, 2)}, torch.randn(1, 2, 4, 4, 4), runtimes="channels_last", **BRIEF).cells
    assert cell.rows[0].failure == ""
    (cell,) = benchmark({"a": nn.Linear(3, 3)}, torch.randn(1, 3), runtimes="channels_last", **BRIEF).cells
    assert "no input has 4 or 5 dims" in cell.rows[0].failure


def test_a_program_takes_keywords_and_containers() -> None:
    class Nested(nn.Module):
        def forward(self, pair: tuple[Tensor, Tensor], *, scale: Tensor) -> dict[str, Tensor]:
            return {"y": (pair[0] - pair[1]) * scale}

    pair = (torch.randn(2, 3), torch.randn(2, 3))
    (cell,) = benchmark({"a": Nested()}, (pair,), {"scale": torch.rand(2, 3)}, runtimes="pt2", **BRIEF).cells
    assert cell.rows[0].failure == ""


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["compile", "aoti"])
def test_compiled_models_are_timed_and_leave_nothing(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))
    found = benchmark({"a": net}, torch.randn(2, 4), runtimes=runtime, batch_sizes=(1, 3), **BRIEF)
    assert [cell.rows[0].failure for cell in found.cells] == ["", ""]
    assert not list(tmp_path.iterdir())


@needs_openvino
def test_openvino_computes_in_the_precision_that_was_asked_for() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4))
    (cell,) = benchmark({"a": net}, torch.randn(2, 3, 6, 6), runtimes="openvino", **BRIEF).cells
    (row,) = cell.rows
    assert row.failure == ""
    assert row.error is not None
    assert row.error < 1e-5


def test_openvino_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'surgery\[openvino\]'"):
        openvino.OPENVINO.load(Path("m.onnx"), HERE)


def test_inputs_and_outputs_stay_where_they_are_bound(tmp_path: Path) -> None:
    """I/O binding, on the CPU here: the session reads the very memory of the tensors."""
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval()
    surgery.export(net, tmp_path / "m.onnx", torch.randn(2, 3))
    x = torch.randn(2, 3)
    run = bound_in_place(session(tmp_path / "m.onnx", 1), torch.device("cpu"))(Inputs.of(x))
    torch.testing.assert_close(torch.from_numpy(run().arrays()[0]), net(x).detach())
    x.copy_(torch.randn(2, 3))
    torch.testing.assert_close(torch.from_numpy(run().arrays()[0]), net(x).detach())


def test_a_provider_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    surgery.export(nn.Linear(3, 2), tmp_path / "m.onnx", torch.randn(2, 3))
    with pytest.raises(InputError, match=r"has no CUDAExecutionProvider .*\n  -> pip install onnxruntime-gpu alone"):
        RUNTIMES["onnxruntime"].load(tmp_path / "m.onnx", Setting(1, "cuda"))
    with pytest.raises(InputError, match="has no TensorrtExecutionProvider"):
        RUNTIMES["tensorrt"].load(tmp_path / "m.onnx", Setting(1, "cuda"))
    import onnxruntime

    # it says that it has the provider, and falls back to the CPU without a word
    both = [onnx_runtime.CUDA, onnx_runtime.CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    silent = SimpleNamespace(get_providers=lambda: [onnx_runtime.CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: silent)
    with pytest.raises(InputError, match="could not start CUDAExecutionProvider"):
        RUNTIMES["onnxruntime"].load(tmp_path / "m.onnx", Setting(1, "cuda"))


def test_a_cuda_graph_is_warmed_up_captured_once_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Logged(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            log.append("run")
            return x + 1

    class Block:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            log.append(f"into {self.name}")

        def __exit__(self, *_: object) -> None:
            log.append(f"out of {self.name}")

        def wait_stream(self, other: object) -> None:
            log.append("wait")

        def replay(self) -> None:
            log.append("replay")

    main = Block("main")
    monkeypatch.setattr(eager, "receive", lambda path, device: Logged())
    for name, made in {
        "Stream": lambda: Block("side"),
        "stream": lambda stream: stream,
        "current_stream": lambda: main,
        "CUDAGraph": lambda: Block("graph"),
        "graph": lambda graph: graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, made)
    run = RUNTIMES["cudagraphs"].load(tmp_path / "m", Setting(1, "cuda"))(Inputs.of(torch.zeros(2)))
    side = ["wait", "into side", "run", "run", "run", "out of side", "wait"]
    assert log == [*side, "into graph", "run", "out of graph"]
    torch.testing.assert_close(run(), torch.ones(2))
    assert log[len(side) + 3 :] == ["replay"]
