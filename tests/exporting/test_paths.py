"""Where the file goes, and that nothing else is left there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from surgery.errors import InputError
from surgery.exporting import door, export
from surgery.exporting.staging import staged
from surgery.exporting.torchscript import TORCHSCRIPT
from tests.exporting.models import convnet

X = torch.randn(2, 3, 8, 8)


def test_the_suffix_tells_the_format_or_format_does(tmp_path: Path) -> None:
    assert export(convnet(), tmp_path / "A.PT", X).format == "torchscript"
    assert export(convnet(), str(tmp_path / "plain"), X, format="torchscript").path == tmp_path / "plain"


@pytest.mark.parametrize("name", ["model", "model.bin", ".ptl"])
def test_a_suffix_that_tells_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not tell the export format") as refusal:
        export(convnet(), tmp_path / name, X)
    assert refusal.value.way_out == (
        "end it in .onnx (onnx), .pt (torchscript), .pt2 (pt2), .aoti.pt2 (aoti), or pass format="
    )


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown export format 'tflite'") as refusal:
        export(convnet(), tmp_path / "a.pt", X, format="tflite")
    assert refusal.value.way_out == "choose one of onnx, torchscript, pt2, aoti"


def test_an_existing_file_is_refused_unless_it_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=r"a.pt' exists already\n  -> pass overwrite=True, or choose another path"):
        export(convnet(), path, X)
    assert path.read_bytes() == b"old"
    assert export(convnet(), path, X, overwrite=True).size_bytes == path.stat().st_size


def test_a_directory_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.pt").mkdir()
    with pytest.raises(InputError, match=r"a.pt' is a directory\n  -> give the path of a file"):
        export(convnet(), tmp_path / "a.pt", X, overwrite=True)


def test_a_missing_parent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the directory '.*nowhere' does not exist\n  -> create it first"):
        export(convnet(), tmp_path / "nowhere" / "a.pt", X)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a directory that even root cannot write to")
def test_a_directory_that_cannot_be_written() -> None:
    with pytest.raises(InputError, match=r"cannot write into '/proc/self': .*\n  -> choose another directory"):
        export(convnet(), "/proc/self/a.pt", X)


@pytest.mark.parametrize("fault", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_while_writing_leaves_nothing(
    fault: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(source: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise fault

    monkeypatch.setattr(door, "target_for", lambda path, name: replace(TORCHSCRIPT, write=write))
    with pytest.raises(fault):
        export(convnet(), tmp_path / "a.pt", X)
    assert not list(tmp_path.iterdir())


def test_a_file_that_appears_meanwhile_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"

    def both_write() -> None:
        with staged(path, overwrite=False) as file:
            file.write_bytes(b"ours")
            path.write_bytes(b"theirs")

    with pytest.raises(InputError, match="exists already"):
        both_write()
    assert path.read_bytes() == b"theirs"
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from surgery.errors import InputError
from surgery.exporting import export
path = Path(sys.argv[1])
if path.suffix == ".onnx":
    import onnx, onnxruntime, onnx_ir, onnxscript  # whatever they write on their first import
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    export(torch.nn.Linear(100, 100), path, torch.randn(2, 100))
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
@pytest.mark.parametrize("name", ["a.pt", "a.onnx", "a.pt2"])
def test_a_full_disk_leaves_nothing(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert f"cannot write '{tmp_path / name}': File too large" in done.stdout, done.stdout + done.stderr
    assert "make room, or choose another place" in done.stdout
    assert not list(tmp_path.iterdir())
