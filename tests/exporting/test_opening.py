"""Files that cannot be opened: each is one clear error, and nothing in them is run."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from surgery.errors import InputError
from surgery.exporting import export
from surgery.exporting import onnx as onnx_target
from surgery.exporting.opening import open_file
from surgery.verifying import verify
from tests.exporting.models import convnet

X = torch.randn(2, 3, 8, 8)
SUFFIXES = (".onnx", ".pt", ".pt2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small net in every form."""
    place = tmp_path_factory.mktemp("files")
    for suffix in SUFFIXES:
        export(convnet(), place / f"net{suffix}", X)
    return place


def refused(path: Path, *, trust: bool = True) -> InputError:
    with pytest.raises(InputError) as refusal:
        open_file(path, ["input"], trust=trust)
    assert "\n" not in refusal.value.fact
    assert repr(str(path)) in refusal.value.fact
    assert refusal.value.way_out
    return refusal.value


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_cut_short(suffix: str, folder: Path, tmp_path: Path) -> None:
    raw = (folder / f"net{suffix}").read_bytes()
    for share in (0, 0.3, 0.9):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(raw[: int(len(raw) * share)])
        said = refused(path).fact
        assert "cut short" in said or "is not" in said or "holds no graph" in said


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", SUFFIXES)
def test_what_is_not_what_its_suffix_says(suffix: str, content: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / f"renamed{suffix}"
    shutil.copy(folder / f"net{content}", path)
    if suffix == content:
        assert open_file(path, ["input"], trust=True).loaded.input_names == ("input",)
    else:
        said = refused(path).fact
        assert "is not" in said or "no ONNX model" in said


def pointer(path: Path) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")


def weights(path: Path) -> None:
    torch.save(convnet().state_dict(), path)


def empty_package(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/models/model.json", "{" * 2000)


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (pointer, "a.onnx", "is a git-lfs pointer"),
        (pointer, "a.pt", "is a git-lfs pointer"),
        (weights, "a.pt", "is not a TorchScript file, but an archive of something else"),
        (empty_package, "a.pt2", "torch.export.load cannot open"),
        (Path.mkdir, "a.pt2", "there is no file"),
        (lambda path: None, "a.onnx", "there is no file"),
    ],
)
def test_other_things_under_such_a_name(make: Callable[[Path], None], name: str, words: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    assert words in refused(tmp_path / name).fact


def test_an_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not tell the export format"):
        open_file(tmp_path / "a.tflite", ["x"], trust=True)


class Bomb:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return eval, (f"open({str(self.trace)!r}, 'w')",)


@pytest.mark.parametrize("name", ["a.pt", "a.pt2"])
def test_code_is_not_run_unasked(name: str, folder: Path, tmp_path: Path) -> None:
    said = refused(folder / f"net{Path(name).suffix}", trust=False)
    assert "opening it can run any code" in said.fact
    assert said.way_out == "pass trust=True if you know where it comes from"
    torch.save(Bomb(tmp_path / "trace"), tmp_path / name)
    for trust in (False, True):  # weights that call themselves a model are not even unpickled
        refused(tmp_path / name, trust=trust)
    assert not (tmp_path / "trace").exists()


def test_the_second_file_of_a_large_onnx_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_target, "EXTERNAL_BYTES", 1000)
    model, x = nn.Linear(64, 64), torch.randn(2, 64)
    path, data = tmp_path / "a.onnx", tmp_path / "a.onnx.data"
    export(model, path, x)
    assert verify(model, path, x).passed
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2])
    assert "has weights in 'a.onnx.data', which is cut short: " in refused(path).fact
    data.unlink()
    assert "has weights in 'a.onnx.data', which is not beside it" in refused(path).fact


def test_other_inputs_than_it_takes(folder: Path) -> None:
    with pytest.raises(InputError, match=r"takes other inputs: the file takes 1 inputs \(input\), and 2 were given"):
        open_file(folder / "net.onnx", ["x", "y"], trust=False)
