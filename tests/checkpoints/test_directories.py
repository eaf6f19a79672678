from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import surgery
from surgery.checkpoints import check_free, directories, load, save
from surgery.errors import InputError
from surgery.results import Result

ROOT = Path(__file__).resolve().parents[2]
HERE = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def tiny() -> Result:
    return surgery.shrink(nn.Linear(2, 2), torch.rand(2, 2), prove=False)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def refusal(directory: Path | str, *, overwrite: bool = False) -> tuple[str, str]:
    with pytest.raises(InputError, match=r".") as caught:
        check_free(directory, overwrite=overwrite)
    with pytest.raises(InputError, match=r".") as again:
        save(tiny(), directory, overwrite=overwrite)
    assert again.value.fact == caught.value.fact
    return caught.value.fact.replace(str(directory), "DIR"), caught.value.way_out


def test_what_exists_is_not_replaced_unasked(tmp_path: Path) -> None:
    first, second = tiny(), tiny()
    save(first, tmp_path / "slim")
    way_out = "pass overwrite=True, or choose another path"
    assert refusal(tmp_path / "slim") == ("'DIR' exists already", way_out)
    save(second, tmp_path / "slim", overwrite=True)
    assert torch.equal(load(tmp_path / "slim", nn.Linear(2, 2)).weight, second.model.weight)
    assert names(tmp_path) == ["slim"]


def test_only_what_save_wrote_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slim = tmp_path / "slim"
    slim.mkdir()
    foreign = "'DIR' was not written by surgery: it has no surgery.json of ours"
    away = "choose another path, or move it away"
    assert refusal(slim, overwrite=True) == (foreign, away)
    (slim / "surgery.json").write_text('{"tool": "knife"}')
    assert refusal(slim, overwrite=True) == (foreign, away)
    (slim / "surgery.json").write_text("[" * 100_000)
    assert refusal(slim, overwrite=True) == (foreign, away)
    (slim / "surgery.json").unlink()
    slim.rmdir()
    save(tiny(), slim)
    (slim / "thesis.tex").write_text("mine")
    (slim / "figures").mkdir()
    told = "'DIR' holds files that surgery did not write, or that were changed since: figures, thesis.tex"
    assert refusal(slim, overwrite=True) == (told, "move them away first")
    (tmp_path / "link").symlink_to(slim)
    assert refusal(tmp_path / "link", overwrite=True) == ("'DIR' is a symbolic link", "name the directory itself")
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file", overwrite=True) == ("'DIR' is a file", "name a directory")
    assert refusal("/", overwrite=True) == ("'DIR' cannot be written", "name a new directory")
    for odd in ("a\0b", "a\ud800b"):
        with pytest.raises(InputError, match="cannot be a name on this system"):
            check_free(tmp_path / odd)
    with pytest.raises(InputError, match=r"^'' cannot be written\n  -> name a new directory$"):
        check_free("")
    assert refusal(tmp_path / "no" / "slim")[0] == f"the directory {str(tmp_path / 'no')!r} does not exist"
    monkeypatch.chdir(slim)
    assert refusal(".", overwrite=True)[1] == "move them away first"
    assert (slim / "thesis.tex").read_text() == "mine"


def test_a_file_that_appears_meanwhile_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slim = tmp_path / "slim"
    save(tiny(), slim)
    exchange = directories._exchange

    def late(one: Path, other: Path) -> bool:
        (slim / "late.txt").write_text("mine")
        return exchange(one, other)

    monkeypatch.setattr(directories, "_exchange", late)
    save(tiny(), slim, overwrite=True)
    assert names(slim) == ["model.safetensors", "surgery.json"]
    assert [path.read_text() for path in tmp_path.glob(".slim.*/*")] == ["mine"]


@pytest.mark.parametrize("swaps", [True, False])
def test_an_interrupted_or_failed_save_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    slim = tmp_path / "slim"
    first = tiny()
    save(first, slim)
    if not swaps:
        monkeypatch.setattr(directories, "_exchange", lambda one, other: False)
    for failure, told in ((KeyboardInterrupt(), None), (OSError(5, "Input/output error"), "Input/output error")):
        for place in ("_sync", "_put"):

            def fails(*args: object, failure: BaseException = failure) -> None:
                raise failure

            with monkeypatch.context() as patch:
                patch.setattr(directories, place, fails)
                expected = InputError if told else KeyboardInterrupt
                with pytest.raises(expected, match=told):
                    save(tiny(), slim, overwrite=True)
        assert names(tmp_path) == ["slim"]
        assert torch.equal(load(slim, nn.Linear(2, 2)).weight, first.model.weight)


def test_a_move_that_fails_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slim = tmp_path / "slim"
    first = tiny()
    save(first, slim)
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if target == slim and not self.name.endswith(".previous"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(directories, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(InputError, match="Input/output error"):
        save(tiny(), slim, overwrite=True)
    assert names(tmp_path) == ["slim"]
    assert torch.equal(load(slim, nn.Linear(2, 2)).weight, first.model.weight)


def test_a_kill_at_any_point_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killing.py")
    place = tmp_path / "place"
    place.mkdir()
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(place)],
        env=HERE,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    reports = [json.loads(line) for line in run.stdout.splitlines()]
    killed = [report for report in reports if report["killed"]]
    points = {(report["way"], report["number"]) for report in killed}
    assert {way for way, _ in points} == {"swap", "move", ""}
    assert len(points) >= 30
    for report in reports:
        assert report["mine"] == "mine"
        assert report["next"]
    for report in killed:
        if report["exists"]:
            assert report["left"] in {"old", "new"}, report
            assert report["whole"] == ["model.pt", "model.safetensors", "surgery.json"]
            assert report["seen"] or report["way"] == "move", report
        else:
            assert report["left"] == "new" or report["left"].startswith("there is no directory"), report
            assert report["seen"] == (report["left"] == "new")
    assert {report["left"] for report in killed if report["exists"]} == {"old", "new"}


FULL = """
import resource, sys
import torch
from torch import nn
import surgery
from surgery.checkpoints import save
make = lambda size: surgery.shrink(nn.Linear(size, size), torch.rand(2, size), prove=False)
small, large = make(4), make(400)
save(small, sys.argv[1])
for limit in (300_000, 1000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for name in sys.argv[1:]:
        try:
            save(large if limit > 1000 else small, name, overwrite=True)
        except surgery.errors.InputError as error:
            print(error.fact, "|", error.way_out)
"""


def test_a_full_disk(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FULL, "old", "new"]
    run = subprocess.run(command, cwd=tmp_path, env=HERE, check=False, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith("cannot write ")
        assert "File too large" in line
        assert line.endswith(" | make room, or choose another place")
    assert names(tmp_path) == ["old"]
    assert load(tmp_path / "old", nn.Linear(4, 4)).weight.shape == (4, 4)
