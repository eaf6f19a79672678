"""The table and the closing sentence, from made-up numbers: they say what was measured, also where it disappoints."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from surgery.demo import story
from surgery.demo.account import Layer, reasons
from surgery.demo.outcome import BATCHES, DENSE, HOOKS, RUNTIMES, SLIM, ZEROS, Outcome
from surgery.demo.table import closing, legend, table
from surgery.latency import Benchmark, Cell, Row
from surgery.latency.machine import this_machine
from surgery.latency.results import Settings
from surgery.proof.prove import Proof

BEFORE = (DENSE, HOOKS, ZEROS)


def benchmark_of(slim_ms: float, *, scatter: float = 0.0) -> Benchmark:
    """Every other model takes 10 ms a call; `scatter` moves every second sample of the slim one by that factor."""

    def row(model: str) -> Row:
        wide = (1.0, 1.0 + scatter) if model == SLIM else (1.0, 1.0)
        times = [(slim_ms if model == SLIM else 10.0) * wide[turn % 2] for turn in range(100)]
        return Row(model, tuple(times), tuple(times))

    rows = tuple(row(model) for model in (*BEFORE, SLIM))
    cells = tuple(Cell(runtime, 1, "cpu", batch, rows) for runtime in RUNTIMES for batch in BATCHES)
    settings = Settings(tuple(RUNTIMES), (1,), BATCHES, ("cpu",), 30, 1.0, 3.0, 0)
    return Benchmark(this_machine(), settings, cells, None, None)


def outcome_of(benchmark: Benchmark | None) -> Outcome:
    return Outcome(
        accuracy=dict.fromkeys(BEFORE, 0.996) | {SLIM: 0.996},
        test_digits=450,
        same_predictions=450,
        largest_difference=1e-6,
        layers=(),
        params=dict.fromkeys(BEFORE, 539_402) | {SLIM: 279_346},
        macs=dict.fromkeys(BEFORE, 8_586_112) | {SLIM: 4_455_488},
        proof=Proof(True, 1e-6, 1e-7, 1e-16, 1e-7, 8.0, 1e-5, 1e-9, "float32", 9, ("example [4, 1, 8, 8]",)),
        reload_difference=0.0,
        exports=(),
        benchmark=benchmark,
    )


def rendered(outcome: Outcome) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=80, color_system=None).print(table(outcome))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_the_table_fits_80_columns_and_holds_the_numbers() -> None:
    lines = rendered(outcome_of(benchmark_of(5.0)))
    assert max(map(len, lines)) <= 80
    rows = [" ".join(line.split()) for line in lines]
    assert "right on test digits 99.6% 99.6% 99.6% 99.6% same" in rows
    assert "parameters 539,402 539,402 539,402 279,346 -48%" in rows
    assert "million MACs a picture 8.59 8.59 8.59 4.46 -48%" in rows
    assert "PyTorch, 1 picture 10.0 10.0 10.0 5.00 2.00x" in rows
    assert "ONNX Runtime, 64 pictures 10.0 10.0 10.0 5.00 2.00x" in rows


def test_the_table_without_times_is_short() -> None:
    lines = rendered(outcome_of(None))
    assert not any("ONNX Runtime" in line for line in lines)
    assert closing(outcome_of(None)).endswith("with 48% fewer parameters. Nothing was timed.")


def test_a_model_that_a_runtime_cannot_take_has_a_dash() -> None:
    benchmark = benchmark_of(5.0)
    cells = tuple(
        replace(
            cell, rows=tuple(replace(row, failure="no such op") if row.model == HOOKS else row for row in cell.rows)
        )
        for cell in benchmark.cells
    )
    rows = [" ".join(line.split()) for line in rendered(outcome_of(replace(benchmark, cells=cells)))]
    assert "TorchScript, 1 picture 10.0 - 10.0 5.00 2.00x" in rows


def test_answers_that_differ_are_said_first() -> None:
    outcome = replace(outcome_of(benchmark_of(5.0)), same_predictions=449)
    assert not outcome.passed
    assert "DIFFERS" in "\n".join(rendered(outcome))
    assert closing(outcome) == (
        "The slim net does NOT compute the same function as the masked one. Please report this as a bug."
    )
    proof = replace(outcome.proof, passed=False)
    assert not replace(outcome, same_predictions=450, proof=proof).passed
    assert not replace(outcome, same_predictions=450, reload_difference=1e-7).passed


def test_the_closing_sentence_says_how_much_faster() -> None:
    said = closing(outcome_of(benchmark_of(5.0)))
    assert said.startswith(
        "The slim net computes the same function as the masked one (proven to rounding, and the same"
    )
    assert said.endswith("and is 2.0 times faster in ONNX Runtime at batch 64 (95% interval 2.00 to 2.00).")


def test_no_gain_is_called_no_gain() -> None:
    said = closing(outcome_of(benchmark_of(10.0)))
    assert said.endswith("but it is no faster in ONNX Runtime at batch 64: 1.00 times (95% interval 1.00 to 1.00).")
    assert "no faster" in closing(outcome_of(benchmark_of(20.0)))


def test_noise_is_called_noise() -> None:
    outcome = outcome_of(benchmark_of(8.0, scatter=0.6))
    said = closing(outcome)
    assert "Whether it is faster in ONNX Runtime at batch 64 cannot be said" in said
    assert said.endswith("Try again on an idle machine.")
    assert "x ?" in "\n".join(rendered(outcome))
    assert any(line.startswith("A question mark:") for line in legend(outcome))
    assert not any(line.startswith("A question mark:") for line in legend(outcome_of(benchmark_of(5.0))))


def test_reasons_are_put_in_plain_words_and_added_up() -> None:
    alive = "alive: scales.wide reads it, and it varies with the input"
    layers = [
        Layer("a", 8, 4, 6, 2, {alive: 2}),
        Layer("b", 8, 4, 7, 1, {"alive: c reads it, and it varies with the input": 1, "a new kind of reason": 2}),
    ]
    (count, words, where), (other_count, other, other_where) = reasons(layers)
    assert (count, where) == (3, ["a", "b"])
    assert words.startswith("share their channel with a living filter")
    assert (other_count, other, other_where) == (2, "a new kind of reason", ["b"])


def test_a_failed_demo_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failed = replace(outcome_of(None), same_predictions=3)
    monkeypatch.setattr(story, "_tell", lambda *_, **__: failed)
    assert story.main(quick=True) == 1
    assert "does NOT compute the same function" in " ".join(capsys.readouterr().out.split())


def test_the_files_are_named_where_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(story, "_tell", lambda _, __, place, *___, **____: (place / "x.pt").touch() or outcome_of(None))
    assert story.main(quick=True, directory=tmp_path / "kept") == 0
    # a long path is broken where the line ends
    assert "".join(capsys.readouterr().out.split()).endswith("kept:x.pt.")
