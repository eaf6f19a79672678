from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import surgery
from surgery.errors import CheckError, InputError, SurgeryError
from surgery.latency import Benchmark, Interrupted, benchmark, protocol, timing, worker
from surgery.latency.onnx_runtime import session

BRIEF: dict[str, Any] = {"min_pairs": 6, "min_seconds": 0.02, "max_seconds": 0.05}


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.b, self.activation = nn.Conv2d(width, 4, 3), lambda x: x.relu()

    def forward(self, x: Tensor, *, scale: Tensor, negate: bool = False) -> dict[str, Tensor]:
        y = self.b(self.activation(self.norm(self.a(x)))) * scale
        return {"y": -y if negate else y, "mean": y.mean((1, 2, 3))}


class Odd(nn.Linear):
    """A linear layer with a quirk: away from home (in a benchmark process), or under a trace."""

    def __init__(self, quirk: str = "") -> None:
        super().__init__(3, 3)
        self.quirk, self.home = quirk, os.getpid()
        if quirk == "lock":
            self.lock = threading.Lock()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self.quirk == "stays" and os.getpid() != self.home:
            raise ImportError("no such module here")

    def forward(self, x: Tensor) -> Tensor:
        away = os.getpid() != self.home
        if away and self.quirk == "dies":
            os.write(2, b"first words\nlast words\n\n")
            os.kill(os.getpid(), signal.SIGKILL)
        if away and self.quirk == "sleeps":
            time.sleep(100)
        if away and self.quirk == "refuses":
            raise ValueError("not away from home")
        if torch.jit.is_tracing() and self.quirk == "untraceable":
            raise ValueError("no traces please\nand much more to say")
        return super().forward(x) + float(torch.jit.is_tracing() and self.quirk == "lies")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the benchmark makes its private folder; empty before and after."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(timing, "WARMUP_SECONDS", 0.01)
    return tmp_path


def test_every_runtime_times_every_model_and_leaves_it_as_it_was() -> None:
    masked = Net(8).train()
    prune.ln_structured(masked.a, "weight", 0.5, n=2, dim=0)
    models, x = {"masked": masked, "slim": Net(4)}, torch.randn(2, 3, 6, 6)
    kwargs = {"scale": torch.full((2, 1, 1, 1), 0.5), "negate": True}
    several = benchmark(models, x, kwargs, runtimes=("eager", "torchscript"), batch_sizes=(1, 3), **BRIEF)
    given = benchmark(models, x, kwargs, runtimes="onnxruntime", **BRIEF)

    cells = several.cells + given.cells
    places = [(c.runtime, c.threads, c.device, c.batch) for c in cells]
    two = [(r, 1, "cpu", b) for r in ("eager", "torchscript") for b in (1, 3)]
    assert places == [*two, ("onnxruntime", 1, "cpu", 2)]
    for cell in cells:
        assert cell.notes == ()
        assert [row.model for row in cell.rows] == ["masked", "slim"]
        for row in cell.rows:
            assert row.failure == ""
            assert len(row.latency_ms) == len(row.cpu_ms) == len(cell.rows[0].latency_ms) >= 6
            assert min(row.latency_ms) > 0
    assert several.machine.torch == torch.__version__
    assert several.notes == ()
    assert (several.settings.min_pairs, several.settings.batch_sizes) == (6, (1, 3))

    assert Benchmark.from_json(several.to_json()) == several
    assert several.table().count("masked") >= 4
    assert given.ratio("masked", "slim", runtime="onnxruntime").n >= 6

    assert all(module.training for module in masked.modules())
    assert prune.is_pruned(masked)
    assert masked.a.weight_orig.requires_grad
    assert masked.a.weight.grad_fn is not None  # no forward has replaced it
    assert masked.norm.num_batches_tracked == 0


def test_a_class_of_a_script_is_benchmarked(tmp_path: Path, folders: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\nfrom surgery.latency import benchmark\n"
        "class Mine(torch.nn.Linear):\n    def forward(self, x): return super().forward(x) * 2\n"
        "result = benchmark({'mine': Mine(3, 3)}, torch.ones(2, 3), runtimes='eager', **" + repr(BRIEF) + ")\n"
        "print(len(result.cells[0].row('mine').latency_ms), result.cells[0].notes)\n"
    )
    environment = protocol.environment(1) | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 6
    assert done.stdout.split()[1] == "()"
    assert list(tmp_path.iterdir()) == [script]


def test_a_model_that_cannot_be_exported_fails_alone(folders: Path) -> None:
    two = {"odd": Odd("untraceable"), "plain": Odd()}
    result = benchmark(two, torch.randn(2, 3), runtimes=("torchscript",), **BRIEF)
    odd, plain = result.cells[0].rows
    assert (odd.failure, odd.latency_ms) == ("Odd cannot be traced: no traces please", ())
    assert len(plain.latency_ms) >= 6
    assert result.cells[0].batch == 2
    assert not list(folders.iterdir())


def test_a_model_that_cannot_run_elsewhere_fails_alone() -> None:
    result = benchmark({"odd": Odd("refuses"), "plain": Odd()}, torch.randn(2, 3), runtimes="eager", **BRIEF)
    assert [row.failure for row in result.cells[0].rows] == ["ValueError: not away from home", ""]


def test_where_no_model_can_be_exported_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(subprocess, "Popen")
    result = benchmark({"odd": Odd("untraceable")}, torch.randn(2, 3), runtimes="torchscript", threads=(1, 2), **BRIEF)
    assert [cell.rows[0].failure for cell in result.cells] == ["Odd cannot be traced: no traces please"] * 2


def test_a_model_that_computes_something_else_there_is_not_timed(folders: Path) -> None:
    two = {"plain": Odd(), "liar": Odd("lies")}
    (cell,) = benchmark(two, torch.randn(2, 3), runtimes="torchscript", **BRIEF).cells
    plain, liar = cell.rows
    assert (plain.disagrees, len(plain.latency_ms) >= 6) == (False, True)
    assert (liar.disagrees, liar.latency_ms) == (True, ())
    assert liar.failure.startswith("torchscript does not compute what model 'liar' computes in eager mode")
    assert not list(folders.iterdir())


def test_where_every_model_computes_something_else_it_is_an_error(folders: Path) -> None:
    with pytest.raises(CheckError, match="torchscript does not compute what model 'liar' computes") as caught:
        benchmark({"liar": Odd("lies")}, torch.randn(2, 3), runtimes="torchscript", **BRIEF)
    assert "do not trust times" in caught.value.way_out
    assert not list(folders.iterdir())


def test_a_process_that_dies_leaves_its_last_words(folders: Path) -> None:
    with pytest.raises(SurgeryError) as caught:
        benchmark({"odd": Odd("dies")}, torch.randn(2, 3), runtimes="eager", **BRIEF)
    assert caught.value.fact == "the benchmark process for eager, 1 thread, cpu was killed by SIGKILL: last words"
    assert "leave that runtime out" in caught.value.way_out
    assert not list(folders.iterdir())


def test_a_process_that_dies_takes_no_other_cell_with_it() -> None:
    found = benchmark({"odd": Odd("dies")}, torch.randn(2, 3), runtimes=("eager", "torchscript"), **BRIEF)
    died, traced = found.cells
    assert died.rows[0].failure.endswith("was killed by SIGKILL: last words")
    assert len(traced.rows[0].latency_ms) >= 6


def test_ctrl_c_ends_the_process_and_leaves_nothing(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Spied(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    monkeypatch.setattr(subprocess, "Popen", Spied)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(Interrupted) as caught:
            benchmark({"odd": Odd("sleeps")}, torch.randn(2, 3), runtimes="eager", **BRIEF)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    assert (caught.value.benchmark.cells, caught.value.benchmark.interrupted) == ((), True)
    assert not list(folders.iterdir())


def test_an_orphan_removes_the_private_folder_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "read", lambda descriptor, size: b"")
    monkeypatch.setattr(os, "_exit", end)
    for name in (f"{protocol.FOLDER_PREFIX}x", "thesis"):
        (tmp_path / name).mkdir()
        with pytest.raises(SystemExit):
            worker._die_with_parent(tmp_path / name)
    assert [folder.name for folder in tmp_path.iterdir()] == ["thesis"]


def test_an_orphan_ends(tmp_path: Path) -> None:
    folder = tmp_path / f"{protocol.FOLDER_PREFIX}x"
    folder.mkdir()
    os.mkfifo(folder / "request.json")  # reading it waits for ever
    command = [sys.executable, "-P", "-m", "surgery.latency.worker", folder / "request.json", folder / "reply.json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=protocol.environment(1)) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 1
    assert not folder.exists()


def test_a_model_that_cannot_be_sent_is_timed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(subprocess, "Popen")
    locked, threads = Odd("lock").train(), torch.get_num_threads()
    result = benchmark({"locked": locked, "plain": Odd()}, torch.randn(2, 3), runtimes="eager", threads=2, **BRIEF)
    (cell,) = result.cells
    assert [len(row.latency_ms) >= 6 for row in cell.rows] == [True, True]
    assert cell.notes[0].startswith("locked cannot be sent to another process (TypeError: cannot pickle")
    assert "timed in the calling process" in cell.notes[0]
    assert locked.training
    assert torch.get_num_threads() == threads


def test_a_model_that_cannot_be_loaded_elsewhere_is_timed_here() -> None:
    result = benchmark({"plain": Odd(), "stays": Odd("stays")}, torch.randn(2, 3), runtimes="eager", **BRIEF)
    assert [len(row.latency_ms) >= 6 for row in result.cells[0].rows] == [True, True]
    why = "stays cannot be sent to another process (ImportError: no such module here); all models of this cell"
    assert result.cells[0].notes[0].startswith(why)


def test_a_runtime_without_such_a_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(subprocess, "Popen")
    for name, value in (("is_available", True), ("device_count", 1), ("get_device_name", "A GPU")):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    result = benchmark({"a": Odd()}, torch.randn(2, 3), runtimes="openvino", devices=("cuda",), **BRIEF)
    assert result.cells[0].rows[0].failure == "openvino is measured on cpu only"
    with pytest.raises(InputError, match="there is no device 'cuda:1'\n  -> this machine has 1 CUDA devices"):
        benchmark({"a": Odd()}, torch.randn(2, 3), devices=("cuda:1",))


@pytest.mark.parametrize(
    ("models", "settings", "text"),
    [
        ({}, {}, "there are no models to benchmark"),
        (nn.Linear(3, 3), {}, "there are no models to benchmark"),
        ({"a": 3}, {}, "models['a'] is a int\n  -> pass a torch.nn.Module, or the path of an exported file"),
        ({"a": "resnet"}, {}, "a: the path 'resnet' does not tell the export format"),
        ({"a": "resnet.onnx"}, {}, "a: there is no file 'resnet.onnx'"),
        ({"a": Odd()}, {"precisions": "fp8"}, "no precision 'fp8'\n  -> known precisions: float32, bf16"),
        ({"a": Odd()}, {"runtimes": "tvm"}, "no runtime 'tvm'\n  -> known runtimes: eager, torchscript, onnxruntime"),
        ({"a": Odd()}, {"runtimes": ()}, "runtimes is empty"),
        ({"a": Odd()}, {"threads": (1, 0)}, "threads holds 0\n  -> give whole numbers from 1 on"),
        ({"a": Odd()}, {"threads": 1.5}, "threads holds 1.5"),
        ({"a": Odd()}, {"batch_sizes": (0,)}, "batch_sizes holds 0"),
        ({"a": Odd()}, {"min_pairs": 1}, "min_pairs holds 1\n  -> give whole numbers from 2 on"),
        ({"a": Odd()}, {"min_seconds": 5, "max_seconds": 1}, "min_seconds is 5 and max_seconds is 1"),
        ({"a": Odd()}, {"devices": "mps"}, "the device 'mps' cannot be benchmarked\n  -> known devices: cpu, cuda"),
        ({"a": Odd()}, {"devices": ("cpu", "cuda")}, "the device 'cuda' was asked for, but torch"),
        ({"a": nn.Linear(4, 4)}, {}, "model 'a' refuses the inputs ((2, 3)): RuntimeError: mat1 and mat2"),
    ],
)
def test_bad_input_is_refused(models: Any, settings: Any, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(subprocess, "Popen")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError) as caught:
        benchmark(models, torch.randn(2, 3), **settings)
    assert text in str(caught.value)


def test_batch_sizes_need_a_batch() -> None:
    with pytest.raises(InputError, match=r"the inputs \(2, 3\), \(1,\) share no batch dim"):
        benchmark({"a": Odd()}, (torch.randn(2, 3), torch.randn(1)), batch_sizes=(1, 2))


def test_the_environment_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "KMP_AFFINITY", "GOMP_SPINCOUNT", "MKL_DYNAMIC", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    got = protocol.environment(2)
    assert (got["OMP_NUM_THREADS"], got["MKL_NUM_THREADS"], got["OPENBLAS_NUM_THREADS"]) == ("2", "2", "2")
    assert (got["OMP_WAIT_POLICY"], got["KMP_BLOCKTIME"]) == ("PASSIVE", "0")
    assert not {"KMP_AFFINITY", "GOMP_SPINCOUNT", "MKL_DYNAMIC", "PYTHONWARNINGS"} & set(got)
    assert got["LD_LIBRARY_PATH"] == "/opt/lib"
    assert all(entry in got["PYTHONPATH"].split(os.pathsep) for entry in sys.path if entry)


def test_onnxruntime_has_its_threads_and_they_do_not_spin(tmp_path: Path) -> None:
    surgery.export(nn.Linear(3, 3), tmp_path / "m.onnx", torch.randn(2, 3))
    options = session(tmp_path / "m.onnx", 2).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.graph_optimization_level.name == "ORT_ENABLE_ALL"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
