from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from surgery.errors import InputError
from surgery.latency.machine import Machine, load_average, this_machine
from surgery.latency.results import Benchmark, Cell, Row, Settings

MACHINE = Machine("A Processor", "AVX512", 8, 4, ("A GPU",), "Linux-6", "3.11.7", "2.13.0", None)
SETTINGS = Settings(("eager", "onnxruntime"), (1,), (1, 64), ("cpu",), 50, 3.0, 30.0, 0)


def row(model: str, ms: float, scatter: float = 0.001, share: float = 1.0, n: int = 60) -> Row:
    latency = tuple(ms * (1 + scatter * ((i * 7) % 11 - 5)) for i in range(n))
    return Row(model, latency, tuple(share * t for t in latency))


def saved(*, masked: Row | None = None) -> Benchmark:
    cells = (
        Cell("eager", 1, "cpu", 1, (masked or row("masked", 4.21), row("slim", 4.20)), True, 0.1, 0.2, ("timed here",)),
        Cell("eager", 1, "cpu", 64, (row("masked", 80.0), row("slim", 20.0))),
        Cell("onnxruntime", 2, "cpu", 64, (row("masked", 30.0), Row("slim", failure="ValueError: no"))),
    )
    return Benchmark(MACHINE, SETTINGS, cells, 0.5, None, ("a note",))


def test_the_ratio_is_first_over_second() -> None:
    ratio = saved().ratio("masked", "slim", runtime="eager", batch=64)
    assert (round(ratio.median, 3), ratio.verdict) == (4.0, "faster")
    back = saved().ratio("slim", "masked", runtime="eager", threads=1, batch=64, device="cpu")
    assert (round(back.median, 3), back.verdict) == (0.25, "slower")
    assert saved().ratio("masked", "slim", runtime="eager", batch=1).verdict == "no difference"


def test_a_process_that_had_half_the_processor_is_not_believed() -> None:
    ratio = saved(masked=row("masked", 4.4, share=0.5)).ratio("masked", "slim", runtime="eager", batch=1)
    assert ratio.verdict == "too noisy to say"
    assert ratio.why == "masked: a call had the processor for 50% of its time"


@pytest.mark.parametrize(
    ("names", "where", "text"),
    [
        (("maskd", "slim"), {"runtime": "eager", "batch": 1}, "holds no model 'maskd'\n  -> its models: masked, slim"),
        (
            ("masked", "slim"),
            {"runtime": "tvm"},
            "nothing was measured in tvm, 1 thread, cpu\n  -> measured: eager, 1",
        ),
        (("masked", "slim"), {"runtime": "eager", "batch": 2}, "nothing was measured in eager, 1 thread, cpu, batch 2"),
        (("masked", "slim"), {"runtime": "eager"}, "at several batch sizes\n  -> say which with batch=: 1, 64"),
        (
            ("masked", "slim"),
            {"runtime": "onnxruntime", "threads": 2},
            "'slim' has no times in onnxruntime, 2 threads, cpu, batch 64: ValueError: no",
        ),
    ],
)
def test_a_ratio_of_what_is_not_there(names: tuple[str, str], where: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        saved().ratio(*names, **where)
    assert text in str(caught.value)


def test_json_keeps_every_sample() -> None:
    benchmark = saved()
    assert Benchmark.from_json(benchmark.to_json()) == benchmark
    assert Benchmark.from_json(benchmark.to_json().encode()) == benchmark
    written = json.loads(benchmark.to_json())
    assert written["cells"][1]["rows"][0]["latency_ms"] == list(benchmark.cells[1].rows[0].latency_ms)


def changed(path: list[Any], value: Any) -> str:
    document = json.loads(saved().to_json())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(document)


ROW = ["cells", 0, "rows", 0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "this is not a saved benchmark"),
        ("[1, 2]", "Expected `object`, got `array`"),
        ('{"cells": []}', "missing required field `machine`"),
        (b"\xff\xfe", "this is not a saved benchmark"),
        (
            changed([*ROW, "latency_ms"], ["fast"]),
            "Expected `float`, got `str` - at `$.cells[0].rows[0].latency_ms[0]`",
        ),
        (
            changed([*ROW, "latency_ms"], [1.0]),
            "'masked' has 1 samples in eager, 1 thread, cpu, batch 1, which do not",
        ),
        (changed([*ROW, "cpu_ms"], [1.0]), "do not pair with the others"),
        (changed([*ROW], {"model": "masked", "latency_ms": [1.0], "cpu_ms": [1.0]}), "do not pair with the others"),
        (changed([*ROW, "latency_ms", 3], -1.0), "'masked' has a latency that is not a positive number"),
        (changed([*ROW, "latency_ms", 3], 0), "not a positive number"),
        (changed([*ROW, "cpu_ms", 3], -1.0), "processor or device time below 0"),
        (changed([*ROW, "model"], "slim"), "a model is listed twice"),
        (changed(["format"], "surgery.benchmark/9"), "its format is 'surgery.benchmark/9'"),
    ],
)
def test_a_file_that_is_no_benchmark(text: str | bytes, what: str) -> None:
    with pytest.raises(InputError) as caught:
        Benchmark.from_json(text)
    assert what in caught.value.fact
    assert caught.value.way_out == "give a file that to_json wrote"


def test_the_table_says_what_a_newcomer_needs() -> None:
    lines = saved().table().splitlines()
    flat = [" ".join(line.split()) for line in lines]
    assert flat[0] == "runtime threads device batch model p50 p90 samples/s masked / model [95 %]"
    assert "eager 1 cpu 1 masked 4.21 ms (IQR 0.03, n=60) 4.23 ms 237.5" in flat
    assert "eager 1 cpu 64 slim 20.00 ms (IQR 0.12, n=60) 20.08 ms 3200 4.00x [4.00, 4.00] faster" in flat
    assert "onnxruntime 2 cpu 64 slim failed" in flat
    assert "failed: slim in onnxruntime, 2 threads, cpu, batch 64: ValueError: no" in flat
    assert "note: a note" in flat
    assert "note: eager, 1 thread, cpu, batch 1: timed here" in flat
    assert not any(line.startswith("warning") for line in flat)
    assert flat[-1] == (
        "machine: A Processor (AVX512), 4 of 8 cores usable; A GPU; Linux-6; "
        "Python 3.11.7, torch 2.13.0, onnxruntime not installed; load 0.50 to unknown"
    )
    assert str(saved()) == saved().table()


def test_the_table_warns_of_scatter_and_of_disturbance() -> None:
    table = saved(masked=row("masked", 4.21, scatter=0.05, share=0.5)).table()
    assert (
        "warning: masked in eager, 1 thread, cpu, batch 1: the IQR is 30% of the median (above 10%); "
        "close other programs or raise min_seconds" in table
    )
    assert "warning: masked in eager, 1 thread, cpu, batch 1: a call had the processor for 50% of its time" in table


def test_results_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        saved().cells = ()  # type: ignore[misc]


def test_this_machine_is_described() -> None:
    machine = this_machine()
    assert machine.cpu
    assert 1 <= machine.usable_cores <= machine.cores
    assert all(type(value) in (str, int, tuple, type(None)) for value in dataclasses.astuple(machine))
    load = load_average()
    assert load is None or load >= 0


def test_failures_are_told_once() -> None:
    no, other = Row("a", failure="no"), Row("b", failure="no")
    cells = (
        Cell("eager", 1, "cpu", 1, (no, other), precision="int8"),
        Cell("eager", 2, "cpu", 1, (no, other), precision="int8"),
        Cell("aoti", 1, "cpu", 1, (no, row("b", 1.0))),
        Cell("pt2", 1, "cpu", 1, (no, Row("b", failure="never"))),
    )
    told = [line for line in Benchmark(MACHINE, SETTINGS, cells, 0.5, None).table().splitlines() if "failed: " in line]
    assert told == [
        "failed: all models in eager, int8, 1 thread, cpu, batch 1 and 1 more like it: no",
        "failed: a in aoti, 1 thread, cpu, batch 1: no",
        "failed: a in pt2, 1 thread, cpu, batch 1: no",
        "failed: b in pt2, 1 thread, cpu, batch 1: never",
    ]


def test_sittings_must_fit_the_samples() -> None:
    cell = Cell("eager", 1, "cpu", 1, (row("a", 1.0), row("b", 1.0)), sittings=(20, 20))
    text = Benchmark(MACHINE, SETTINGS, (cell,), 0.5, None).to_json()
    with pytest.raises(InputError, match="its sittings hold 40 rounds, not 60"):
        Benchmark.from_json(text)
