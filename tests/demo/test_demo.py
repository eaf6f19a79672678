"""The demo as its users run it: once quickly with every step, and once in full (slow)."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from surgery.checkpoints import load
from surgery.demo import main, steps, story
from surgery.demo.digits import load_digits
from surgery.demo.net import DigitNet
from surgery.demo.training import scores
from surgery.errors import InputError, MissingExtraError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Where a quick demo wrote its files, and the JSON object that it printed."""
    directory = tmp_path_factory.mktemp("demo") / "new"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(quick=True, directory=directory, report=directory / "page.html", as_json=True) == 0
    return directory, json.loads(printed.getvalue())


def test_the_slim_net_names_the_same_digits(quick: tuple[Path, dict[str, Any]]) -> None:
    _, numbers = quick
    assert numbers["passed"] is True
    assert numbers["proof"]["passed"] is True
    assert numbers["same_predictions"] == numbers["test_digits"] == 450
    assert numbers["largest_difference"] < 1e-4
    assert numbers["accuracy"]["slim"] == numbers["accuracy"]["masked (hooks)"] == numbers["accuracy"]["masked (zeros)"]
    assert numbers["accuracy"]["dense"] > 0.5


def test_it_is_smaller_and_every_masked_filter_is_accounted_for(quick: tuple[Path, dict[str, Any]]) -> None:
    directory, numbers = quick
    assert numbers["params"]["slim"] < 0.7 * numbers["params"]["masked (zeros)"]
    assert numbers["macs_per_picture"]["slim"] < 0.7 * numbers["macs_per_picture"]["dense"]
    slim = load(directory / "slim", DigitNet)
    assert sum(p.numel() for p in slim.parameters()) == numbers["params"]["slim"]
    assert len(numbers["layers"]) == 11
    for layer in numbers["layers"]:
        assert layer["masked"] == layer["filters"] // 2
        assert layer["masked"] == layer["masked_gone"] + sum(layer["stayed"].values())
        assert slim.get_submodule(layer["name"]).weight.shape[0] == layer["kept"]
    filters = numbers["filters"]
    assert filters["masked"] == filters["masked_gone"] + filters["stranded"] == filters["in_all"] // 2
    # masks made layer by layer: the demo is to show channels that are stranded by it
    assert filters["stranded"] > 0
    assert any(reason.startswith("alive:") for layer in numbers["layers"] for reason in layer["stayed"])


def test_every_file_is_there_and_agrees(quick: tuple[Path, dict[str, Any]]) -> None:
    directory, numbers = quick
    assert numbers["directory"] == str(directory)
    assert sorted(file.name for file in directory.iterdir()) == ["digits.onnx", "digits.pt", "page.html", "slim"]
    page = (directory / "page.html").read_text()
    assert all(word in page for word in ("stranded", "digits.onnx", "surgery.load(", str(directory)))
    assert [export["path"] for export in numbers["exports"]] == ["digits.pt", "digits.onnx"]
    assert all(export["parity"]["passed"] for export in numbers["exports"])
    assert numbers["reload_difference"] == 0
    pictures = load_digits().test_pictures
    with torch.no_grad():
        traced = torch.jit.load(str(directory / "digits.pt"))(pictures)
    traced = traced[0] if isinstance(traced, tuple) else traced
    loaded = scores(load(directory / "slim", DigitNet).eval(), pictures)
    torch.testing.assert_close(traced, loaded, rtol=1e-4, atol=1e-4)
    assert numbers["latency"] == []


def test_the_story_is_told_in_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(steps, "DigitNet", functools.partial(DigitNet, 16, 32))
    monkeypatch.setenv("COLUMNS", "80")
    before = torch.get_num_threads()
    assert main(quick=True) == 0
    assert torch.get_num_threads() == before
    told, progress = capsys.readouterr()
    assert max(len(line.rstrip()) for line in told.splitlines()) <= 80
    text = " ".join(told.split())
    for expected in (
        "1,347 handwritten digits of 8 x 8 pixels",
        "128 of 256 filters were masked",
        "are stranded, that is zero and still here",
        "share their channel with a living filter of another layer",
        "Proof passed: on 9 inputs",
        "they name the same digit 450 times of 450",
        "Saved slim/:",
        "gives exactly the same scores",
        "Exported digits.onnx:",
        "right on test digits",
        "The slim net computes the same function as the masked one",
        "Nothing was timed.",
        "To keep the slim net and its exports: surgery demo --directory NAME.",
    ):
        assert expected in text
    assert "The files are in" not in told
    for number, step in enumerate(("Train", "Mask", "Cut", "Save", "Export"), 1):
        assert f"\n{number}. {step} " in progress


def test_an_existing_directory_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "_tell", lambda *_, **__: pytest.fail("the demo was begun"))
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    with pytest.raises(InputError, match="is not empty\n  -> name a new one: nothing is overwritten"):
        main(directory=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]
    with pytest.raises(
        InputError, match=r"cannot use .*precious.txt' as a directory: File exists\n  -> choose another"
    ):
        main(directory=precious)
    assert precious.read_text() == "mine"


def test_without_scikit_learn_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"'sklearn' is not installed\n  -> pip install 'surgery\[demo\]'"):
        main(directory=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_module_takes_options_and_reports_refusals(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "surgery.demo", "--quick", "--json", "--directory", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=_environment(), check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert f"error: the directory '{tmp_path}' is not empty" in run.stderr


@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "surgery.demo", "--json", "--directory", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=_environment(), check=False)
    assert run.returncode == 0, run.stderr
    numbers = json.loads(run.stdout)
    assert numbers["passed"]
    assert numbers["accuracy"]["dense"] > 0.97
    assert numbers["accuracy"]["slim"] > 0.97
    assert len(numbers["latency"]) == 6
    for cell in numbers["latency"]:
        assert all(isinstance(summary, dict) and summary["n"] >= 30 for summary in cell["models"].values())
        assert cell["masked_over_slim"]["median"] > 0
    assert (tmp_path / "benchmark.json").stat().st_size > 1000


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
