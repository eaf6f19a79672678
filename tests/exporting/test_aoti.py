"""Compiled packages: each takes half a minute."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import zipfile
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
import torch._inductor.config
from torch import nn

from surgery.errors import CheckError, InputError
from surgery.exporting import export
from surgery.verifying import verify
from tests.exporting.models import Counter, Scaled, Undecided, convnet


def compiled_by(compiler: str) -> AbstractContextManager[None]:
    """Have the compiler taken for the only one of this machine."""
    patch: AbstractContextManager[None] = torch._inductor.config.patch({"cpp.cxx": (None, compiler)})
    return patch


@pytest.mark.parametrize("compiler", ["no-such-compiler", ""])
def test_without_a_compiler(compiler: str, tmp_path: Path) -> None:
    words = r"AOTInductor needs a C\+\+ compiler, and g\+\+ is not there"
    with compiled_by(compiler), pytest.raises(InputError, match=words) as refusal:
        export(convnet(), tmp_path / "a.aoti.pt2", torch.randn(2, 3, 8, 8))
    assert refusal.value.way_out == "install one (apt install g++), or name one in the environment variable CXX"
    assert not list(tmp_path.iterdir())


def test_a_compiler_that_fails(tmp_path: Path) -> None:
    false = tmp_path / "g++"
    false.write_text('#!/bin/sh\ncase "$*" in *--version*) echo "g++ 13";; *) echo "disk full" >&2; exit 1;; esac\n')
    false.chmod(0o700)
    (tmp_path / "out").mkdir()
    words = "AOTInductor cannot compile Sequential: "
    with compiled_by(str(false)), pytest.raises(InputError, match=words) as refusal:
        export(convnet(), tmp_path / "out" / "a.aoti.pt2", torch.randn(2, 3, 8, 8))
    assert refusal.value.way_out == "export to another format, .pt2 for one"
    assert not list((tmp_path / "out").iterdir())


def test_what_cannot_be_captured(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torch\.export cannot capture Undecided"):
        export(Undecided(), tmp_path / "a.aoti.pt2", torch.randn(4, 8))


@pytest.mark.slow
def test_a_package_says_what_it_is_bound_to_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    model, x = convnet(), torch.randn(2, 3, 8, 8)
    path = tmp_path / "a.aoti.pt2"
    before = dict(os.environ)
    done = export(model, path, x, dynamic_shapes={"input": {0: "batch", 2: "height", 3: "width"}})
    assert dict(os.environ) == before
    assert capfd.readouterr().out == ""
    assert not [*(tmp_path / "tmp").iterdir(), *(tmp_path / "home").iterdir()]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.aoti.pt2", "home", "tmp"]
    isa = torch.backends.cpu.get_cpu_capability()
    assert (done.format, done.parity.batch_sizes, done.parity.n_inputs) == ("aoti", (1, 2, 3, 5), 9)
    assert done.notes[0] == (
        f"bound to machines like this one (Linux {platform.machine()}, {isa}, torch {torch.__version__}): "
        "export it again elsewhere"
    )
    package = torch._inductor.aoti_load_package(str(path))
    metadata = package.get_metadata()
    assert json.loads(metadata["surgery"])["isa"] == isa
    assert json.loads(metadata["surgery"])["tool"] == "surgery"
    torch.testing.assert_close(package(x), model.eval()(x))
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".cpp")]
    assert verify(model, path, x, trust=True).passed
    assert verify(path, path, x, trust=True).passed
    with torch.no_grad():
        model[-1].bias += 0.01
    assert not verify(model, path, x, trust=True).passed
    assert any("2x3x40x40" in shape for shape in verify(model, path, x, trust=True).shapes)
    with pytest.raises(InputError, match=r"cannot run on the example inputs: .*unmatched dim value at 1") as refusal:
        verify(path, path, torch.randn(2, 4, 8, 8), trust=True)
    assert "\n" not in refusal.value.fact
    with pytest.raises(InputError, match=r"cannot run on the example inputs: .*unmatched dtype"):
        verify(path, path, x.double(), trust=True)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="is cut short or damaged"):
        verify(model, path, x, trust=True)


@pytest.mark.slow
def test_an_example_whose_channels_come_last_and_a_batch_that_is_fixed(tmp_path: Path) -> None:
    model, x = convnet(), torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    path = tmp_path / "a.aoti.pt2"
    assert export(model, path, x, dynamic_shapes={}).parity.n_inputs == 3
    assert verify(model, path, x, trust=True).n_inputs == 6  # no other batch: memory beyond the tensors would be read
    with pytest.raises(InputError, match="unmatched dim value at 0"):
        verify(model, path, torch.randn(5, 3, 8, 8), trust=True)


@pytest.mark.slow
def test_several_inputs_a_dict_output_and_bfloat16(tmp_path: Path) -> None:
    model = Scaled().bfloat16()
    x, keep, scale = (torch.rand(4, n).bfloat16() for n in (4, 4, 1))
    done = export(model, tmp_path / "a.aoti.pt2", (x,), {"keep": keep, "scale": scale})
    assert done.parity.bound > 1e-4
    assert "it returns a tuple: x_out, parts.0" in done.notes


@pytest.mark.slow
def test_a_buffer_that_changes_in_forward(tmp_path: Path) -> None:
    try:
        done = export(Counter(), tmp_path / "a.aoti.pt2", torch.randn(4, 8))
    except CheckError:
        assert not list(tmp_path.iterdir())
    else:
        assert done.parity.passed


@pytest.mark.slow
def test_integer_inputs(tmp_path: Path) -> None:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 8)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.table(ids).relu().mean(1)

    assert export(Embedded(), tmp_path / "a.aoti.pt2", torch.randint(0, 20, (2, 7))).parity.passed
