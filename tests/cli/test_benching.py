from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from surgery.latency import Benchmark, Interrupted
from tests.cli.conftest import IMAGE, CommandLine

QUICK = ("--min-seconds", "0", "--max-seconds", "0.01")


def test_bench(surgery: CommandLine) -> None:
    words = ("a=cli_zoo:masked", "b=cli_zoo:masked", *IMAGE, "--runtime", "eager", "--batch", "1")
    ran = surgery("bench", *words, *QUICK, "-o", "times.json", "--json")
    assert ran.code == 0, ran.err
    assert [(r["runtime"], r["first"], r["second"], r["batch"]) for r in ran.data["ratios"]] == [("eager", "a", "b", 1)]
    assert set(ran.data["ratios"][0]["ratio"]) >= {"median", "low", "high", "verdict"}
    assert Benchmark.from_json((surgery.place / "times.json").read_bytes()).cells[0].batch == 1


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (
            ("cli_zoo:masked",),
            "'cli_zoo:masked' has no name\n  -> write NAME=MODEL, as in masked=package.module:factory",
        ),
        (("a=x:y", "a=x:z"), "two are named 'a'\n  -> give each a name of its own"),
        (("a=x:y", "--checkpoint", "b=f.pt"), "--checkpoint names 'b', which is no model\n  -> name one of a"),
        (("a=x:y", "--baked", "b"), "--baked names 'b', which is no model\n  -> name one of a"),
        (
            ("a=cli_zoo:dense", "--baked", "a"),
            "'a' wears no mask that could be baked in\n  -> leave --baked out for it",
        ),
        (
            ("a=cli_zoo:masked", "--runtime", "tflite"),
            "there is no runtime 'tflite'\n  -> known runtimes: eager, torchscript",
        ),
        (
            ("a=cli_zoo:masked", "--precision", "fp8"),
            "there is no precision 'fp8'\n  -> known precisions: float32, bf16",
        ),
        (("a=missing.onnx",), "a: there is no file 'missing.onnx'\n  -> check the path"),
    ],
)
def test_bad_words_are_one_error(surgery: CommandLine, words: tuple[str, ...], fact: str) -> None:
    ran = surgery("bench", *words, *IMAGE)
    assert ran.code == 2
    assert ran.error.startswith(f"error: {fact}")


def test_without_an_input_there_is_nothing_to_run(surgery: CommandLine) -> None:
    ran = surgery("bench", "a=cli_zoo:dense")
    assert (ran.code, ran.error.partition("\n")[0]) == (2, "error: there is no input to run the models on")


def test_masks_are_timed_in_their_hooks_and_baked(surgery: CommandLine) -> None:
    words = ("hooks=cli_zoo:pruned", "--baked", "hooks", *IMAGE, "--runtime", "eager")
    ran = surgery("bench", *words, *QUICK, "--json")
    assert ran.code == 0, ran.err
    (cell,) = ran.data["benchmark"]["cells"]
    assert [(row["model"], row["failure"]) for row in cell["rows"]] == [("hooks", ""), ("hooks, baked", "")]
    assert cell["rows"][1]["error"] == 0.0


def test_files_stand_beside_models(surgery: CommandLine) -> None:
    assert surgery("export", "cli_zoo:masked", "--to", "m.onnx", *IMAGE).code == 0
    assert surgery("export", "cli_zoo:masked", "--to", "m.pt", *IMAGE).code == 0
    ran = surgery("bench", "model=cli_zoo:masked", "file=m.onnx", *IMAGE, *QUICK, "--markdown")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0].startswith("| runtime | threads | device | batch | model | p50 | p90 |")
    assert lines[3].startswith("| onnxruntime | 1 | cpu | 2 | file |")
    ran = surgery("bench", "file=m.pt", *IMAGE, *QUICK)
    assert ran.code == 2
    assert ran.error.endswith("-> pass --trust if you know where it comes from")
    assert surgery("bench", "file=m.pt", *IMAGE, *QUICK, "--trust").code == 0


def test_a_runtime_that_computes_something_else_is_exit_code_1(surgery: CommandLine) -> None:
    words = ("plain=cli_zoo:dense", "liar=cli_zoo:Liar", *IMAGE, "--runtime", "torchscript")
    ran = surgery("bench", *words, *QUICK)
    assert ran.code == 1
    assert (
        "failed: liar in torchscript, 1 thread, cpu, batch 2: torchscript does not compute what model 'liar'" in ran.out
    )


def saved(surgery: CommandLine, name: str, **changes: Any) -> None:
    if not Path("first.json").exists():
        words = ("a=cli_zoo:masked", "b=cli_zoo:masked", *IMAGE, "--runtime", "eager")
        assert surgery("bench", *words, *QUICK, "-o", "first.json").code == 0
    one = Benchmark.from_json(Path("first.json").read_bytes())
    Path(name).write_text(replace(one, machine=replace(one.machine, **changes)).to_json(), encoding="utf-8")


def test_two_saved_benchmarks_are_compared(surgery: CommandLine) -> None:
    saved(surgery, "old.json")
    saved(surgery, "new.json", torch="9.9")
    ran = surgery("bench", "--compare", "old.json", "new.json", "--json")
    assert ran.code == 0, ran.err
    assert [(c["model"], c["ratio"]["median"]) for c in ran.data["changes"]] == [("a", 1.0), ("b", 1.0)]
    assert ran.data["notes"][0].startswith("torch '2.")
    ran = surgery("bench", "--compare", "old.json", "new.json", "--markdown")
    assert ran.out.startswith("| runtime | threads | device | batch | model | old | new | old / new [95 %] |")


def test_what_cannot_be_compared_is_refused(surgery: CommandLine) -> None:
    saved(surgery, "old.json")
    saved(surgery, "other.json", cpu="Another")
    ran = surgery("bench", "--compare", "old.json", "other.json")
    assert ran.code == 2
    assert "they were measured on different machines: cpu" in ran.error
    assert ran.error.endswith("-> pass --any-machine to compare anyway")
    assert surgery("bench", "--compare", "old.json", "other.json", "--any-machine").code == 0
    Path("not.json").write_text(json.dumps({"format": "x"}), encoding="utf-8")
    for words, fact in {
        ("old.json",): "--compare takes two files, and got 1",
        ("old.json", "missing.json"): "'missing.json' cannot be read: No such file or directory",
        ("old.json", "not.json"): "'not.json': this is not a saved benchmark",
        ("old.json", "old.json", "-o", "new.json"): "--compare writes no file",
    }.items():
        ran = surgery("bench", "--compare", *words)
        assert ran.code == 2
        assert fact in ran.error


def test_ctrl_c_writes_what_was_measured(surgery: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(surgery, "old.json")
    half = replace(Benchmark.from_json(Path("old.json").read_bytes()), interrupted=True)

    stopped = [replace(half, cells=()), half]

    def interrupted(*_: object, **__: object) -> Benchmark:
        raise Interrupted(stopped.pop())

    monkeypatch.setattr("surgery.latency.benchmark", interrupted)
    ran = surgery("bench", "a=cli_zoo:masked", *IMAGE, "-o", "half.json", "--report", "half.html")
    assert ran.code == 130
    assert "note: interrupted; what had been measured until then is shown" in ran.out
    assert Benchmark.from_json(Path("half.json").read_bytes()) == half
    assert Path("half.html").exists()
    ran = surgery("bench", "a=cli_zoo:masked", *IMAGE, "-o", "none.json")
    assert (ran.code, ran.error) == (130, "error: interrupted")
    assert not Path("none.json").exists()
