from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from surgery.errors import InputError
from surgery.latency.comparing import compare
from surgery.latency.machine import Machine
from surgery.latency.results import Benchmark, Cell, Model, Row, Settings

MACHINE = Machine("A Processor", "AVX512", 8, 4, (), "Linux-6", "3.11.7", "2.13.0", "1.20")
SETTINGS = Settings(("eager",), (1,), (1,), ("cpu",), 50, 3.0, 30.0, 0)


def row(model: str, ms: float, seed: int = 0, share: float = 1.0) -> Row:
    latency = tuple((ms * np.exp(0.01 * np.random.default_rng(seed).standard_normal(100))).tolist())
    return Row(model, latency, tuple(share * t for t in latency))


def saved(*rows: Row, runtime: str = "eager") -> Benchmark:
    models = tuple(Model(one.model, "Net", 10, 40, 100) for one in rows)
    return Benchmark(MACHINE, SETTINGS, (Cell(runtime, 1, "cpu", 1, rows),), 0.1, 0.1, models=models)


def test_each_model_is_held_against_its_own_past() -> None:
    old = saved(row("masked", 10.0), row("slim", 5.0, 1))
    new = saved(row("masked", 10.1, 2), row("slim", 4.0, 3))
    found = compare(old, new)
    masked, slim = found.changes
    assert (masked.model, masked.ratio.verdict, masked.old_over_first) == ("masked", "no difference", None)
    assert (slim.model, slim.ratio.verdict) == ("slim", "faster")
    assert slim.ratio.median == pytest.approx(1.25, rel=0.02)
    assert slim.old_over_first == pytest.approx(2.0, rel=0.02)
    assert slim.new_over_first == pytest.approx(2.5, rel=0.02)
    assert compare(new, old).changes[1].ratio.verdict == "slower"
    assert found.notes == ()
    assert "1.25x" in found.table() or "1.24x" in found.table() or "1.26x" in found.table()
    assert found.markdown().splitlines()[1].startswith("| --- |")


def test_a_disturbed_run_is_believed_large_changes_only() -> None:
    old, new = saved(row("a", 10.0, share=0.5)), saved(row("a", 9.3, 1))
    (change,) = compare(old, new).changes
    assert change.ratio.verdict == "too noisy to say"
    assert change.ratio.why == "old: a call had the processor for 50% of its time"


def test_other_machines_are_refused_unless_told() -> None:
    old = saved(row("a", 10.0))
    new = replace(saved(row("a", 5.0)), machine=replace(MACHINE, cpu="Another", torch="2.14.0"))
    with pytest.raises(InputError, match="different machines: cpu 'A Processor' and 'Another'") as caught:
        compare(old, new)
    assert caught.value.way_out == "pass any_machine=True to compare anyway"
    found = compare(old, new, any_machine=True)
    assert found.notes == ("cpu 'A Processor' and 'Another' (old, new)", "torch '2.13.0' and '2.14.0' (old, new)")


def test_another_version_is_a_note_and_no_refusal() -> None:
    new = replace(saved(row("a", 5.0)), machine=replace(MACHINE, torch="2.14.0"))
    assert compare(saved(row("a", 10.0)), new).notes == ("torch '2.13.0' and '2.14.0' (old, new)",)


def test_what_only_one_of_them_has_is_told() -> None:
    old = saved(row("a", 10.0), row("gone", 1.0))
    new = saved(row("a", 10.0), row("here", 1.0), Row("b", failure="no"))
    found = compare(old, replace(new, models=(Model("a", "Net", 12, 40, 100),)))
    assert [change.model for change in found.changes] == ["a"]
    assert found.notes == (
        "a is another model now: 10 parameters before, 12 now",
        "only timed in the old one: gone in eager, 1 thread, cpu, batch 1",
        "only timed in the new one: here, b in eager, 1 thread, cpu, batch 1",
    )


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(InputError, match="they have no model and cell in common"):
        compare(saved(row("a", 1.0)), saved(row("a", 1.0), runtime="onnxruntime"))
    with pytest.raises(InputError, match="no model and cell in common"):
        compare(saved(row("a", 1.0)), saved(row("b", 1.0)))
