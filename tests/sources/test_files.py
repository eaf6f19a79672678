from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from surgery.errors import InputError
from surgery.sources import read_tensors, read_weights
from surgery.sources.files import SAVE_AGAIN

STATE = {"weight": torch.ones(40, 30), "bias": torch.zeros(40)}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin", ".ckpt"])
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(STATE, path) if suffix == ".safetensors" else torch.save(STATE, path)
    file = read_weights(path)
    assert_close(file.tensors, STATE, rtol=0, atol=0)
    assert file.notes == ()
    assert file.path == path


def test_the_old_format_of_torch_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert_close(read_weights(tmp_path / "old.pt").tensors, STATE, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrapped", "notes"),
    [
        ({"state_dict": STATE}, ("x.pt: took the weights under 'state_dict'",)),
        ({"epoch": 3, "model": STATE}, ("x.pt: took the weights under 'model', left 'epoch'",)),
        (
            {"model": {"state_dict": STATE, "step": 1}},
            ("x.pt: took the weights under 'model'", "x.pt: took the weights under 'state_dict', left 'step'"),
        ),
    ],
)
def test_a_training_checkpoint_is_unwrapped_aloud(tmp_path: Path, wrapped: Any, notes: tuple[str, ...]) -> None:
    torch.save(wrapped, tmp_path / "x.pt")
    file = read_weights(tmp_path / "x.pt")
    assert_close(file.tensors, STATE, rtol=0, atol=0)
    assert file.notes == notes


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("exploded",)


def saved(value: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(value, path)


def scripted(path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(path)


@pytest.mark.parametrize(
    ("name", "write", "fact", "way_out"),
    [
        ("x.h5", saved(STATE), "X has the unknown suffix '.h5'", "weights are read from .safetensors, .pt, "),
        ("x.pt", Path.mkdir, "X is a directory", "name the file with the weights in it"),
        ("x.pt", saved([1]), "X holds a list, not tensors by name", SAVE_AGAIN),
        ("x.pt", saved({"epoch": 3, "best": 0.5}), "X holds no tensors; its entries: 'epoch', 'best'", SAVE_AGAIN),
        ("x.pt", saved({}), "X holds no tensors; its entries: none", SAVE_AGAIN),
        (
            "x.pt",
            saved(nn.Linear(2, 2)),
            "X needs the code of torch.nn.modules.linear.Linear to be loaded, and a pickle may run any code",
            SAVE_AGAIN,
        ),
        (
            "x.pt",
            saved({"state_dict": STATE, "args": argparse.Namespace(lr=1)}),
            "X needs the code of argparse.Namespace to be loaded, and a pickle may run any code",
            SAVE_AGAIN,
        ),
        (
            "x.pt",
            saved(Bomb()),
            "X needs the code of posix.mkdir to be loaded, and a pickle may run any code",
            SAVE_AGAIN,
        ),
        (
            "x.pt",
            lambda path: path.write_bytes(pickle.dumps(Bomb(), protocol=4)),
            "X is a plain pickle (protocol 4), which may run any code",
            SAVE_AGAIN,
        ),
        ("x.pt", scripted, "X is a TorchScript archive: code, not weights", SAVE_AGAIN),
        (
            "x.safetensors",
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "X is a git-lfs pointer, not the file itself",
            "run `git lfs pull`",
        ),
    ],
)
def test_refusals(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[Path], None],
    fact: str,
    way_out: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert caught.value.fact == fact.replace("X", repr(str(path)))
    assert caught.value.way_out.startswith(way_out)
    assert not (tmp_path / "exploded").exists()


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "model_best.pt").touch()
    with pytest.raises(InputError) as caught:
        read_tensors(tmp_path / "model-best.pt")
    assert str(caught.value) == (
        f"there is no file {str(tmp_path / 'model-best.pt')!r}\n  -> did you mean {str(tmp_path / 'model_best.pt')!r}?"
    )
    with pytest.raises(InputError, match=r"^there is no file '.*nowhere/x.pt'\n  -> check the path$"):
        read_tensors(tmp_path / "nowhere" / "x.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", "old.pt"])
@pytest.mark.parametrize("left", [0, 1, 7, 0.1, 0.5, 0.9, -1])
def test_a_file_cut_short_anywhere_is_one_clear_error(tmp_path: Path, suffix: str, left: float) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=suffix == ".pt")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left) if isinstance(left, float) else left])
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert f"({path.stat().st_size} bytes) is cut short or damaged: " in caught.value.fact
    assert "\n" not in caught.value.fact
    assert caught.value.way_out == "compare its size with the original's and copy it again"


@pytest.mark.parametrize("text", [b"<html>404</html>", b"PK\x03\x04 not really", b"\x80\x02}q\x00."])
def test_other_bytes_are_one_clear_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(text)
    with pytest.raises(InputError, match=r"is cut short or damaged|holds no tensors"):
        read_weights(tmp_path / "x.pt")
