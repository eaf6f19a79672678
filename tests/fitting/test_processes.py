from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.fitting.launching import begun, read, run
from tests.fitting.runs import main

CASES = {
    "plain": (),
    "steps of three batches": ("accumulate=3", "clip_norm=0.5"),
    "rows of a list": ('data="rows"',),
    "unused, frozen and tied": ('model="partly"',),
    "early stopping": ("evaluate=true", "patience=1", "epochs=4"),
    "cuts": ('schedule="gradual"', "evaluate=true"),
    "cuts and a teacher": ('schedule="iterative"', "teacher=true"),
    "a ticket": ('schedule="ticket"', "momentum=0.9"),
}
"""50 samples in batches of 8: the last of two, on up to three processes; 8 do not divide by three either."""


def same_curve(out: Path, *given: str, count: int, accelerate: bool = False, more: tuple[str, ...] = ()) -> None:
    main(str(out / "one"), *given)
    one = read(out / "one", 1)
    many = run(out / "many", *given, *more, count=count, accelerate=accelerate)
    (single,) = one.found
    for found in many.found:
        assert found["losses"] == pytest.approx(single["losses"], abs=1e-10)
        assert found["processes"] == count
        assert found["type"] == "Sequential" or "partly" in str(given)
        assert found["kinds"] == ["Parameter"]
        assert [change["params"] for change in found["changes"]] == [one["params"] for one in single["changes"]]
    assert len({found["sum"] for found in many.found}) == 1
    torch.testing.assert_close(many.weights, one.weights, rtol=1e-9, atol=1e-10)


def test_two_processes_have_the_curve_of_one(tmp_path: Path) -> None:
    same_curve(tmp_path, *CASES["unused, frozen and tied"], count=2)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_so_they_do_whatever_is_asked_for(tmp_path: Path, case: str) -> None:
    same_curve(tmp_path, *CASES[case], count=2)


@pytest.mark.slow
def test_a_process_may_have_nothing_of_a_batch(tmp_path: Path) -> None:
    same_curve(tmp_path, count=3)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_accelerate_launches_the_same_script(tmp_path: Path, count: int) -> None:
    same_curve(tmp_path, 'schedule="gradual"', count=count, accelerate=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case != "unused, frozen and tied"])
def test_in_shards_it_is_the_same(tmp_path: Path, case: str) -> None:
    same_curve(tmp_path, *CASES[case], count=2, more=("sharded=true",))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (('data="broken"',), "the data raised OSError: sample 33 is gone"),
        (('model="partly"', "sharded=true"), "weights are shared by modules in different groups of FSDP"),
        (("evaluate=true", 'breaks="evaluate"'), "process 1 of 2 failed: evaluate raised RuntimeError: only here"),
        (('breaks="loss"',), "process 1 of 2 failed: the loss fails on item 0 of the data: RuntimeError: only here"),
    ],
)
def test_where_one_process_fails_all_say_so(tmp_path: Path, given: tuple[str, ...], said: str) -> None:
    process = begun(tmp_path / "out", *given, "tells=true", count=2)
    told, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    for rank in (0, 1):
        assert said.removeprefix("process 1 of 2 failed: ") in (tmp_path / f"out.{rank}.txt").read_text(), told
