from __future__ import annotations

import sys

import pytest

from surgery.latency import Benchmark
from tests.cli.conftest import IMAGE, CommandLine
from tests.reporting.pages import Page


def page(surgery: CommandLine, name: str = "page.html") -> Page:
    return Page((surgery.place / name).read_text(encoding="utf-8"))


def test_shrink_writes_a_page(surgery: CommandLine) -> None:
    words = ("shrink", "cli_zoo:masked", *IMAGE, "-o", "slim", "--export", "onnx", "--report", "page.html")
    ran = surgery(*words)
    assert ran.code == 0, ran.err
    assert ran.out.endswith("\nreport in page.html\n")
    written = page(surgery)
    assert {"removed", "sharing", "stayed", "proof", "exports", "reload"} <= set(written.sections)
    assert "<h1>cli_zoo:masked</h1>" in written.html
    assert "526 → 341" in written.words
    assert 'surgery.load("slim", fresh_model)' in written.words
    assert 'onnxruntime.InferenceSession("slim/model.onnx")' in written.words

    assert surgery(*words).error.startswith("error: 'slim' ")
    ran = surgery("shrink", "cli_zoo:masked", *IMAGE, "--report", "page.html")
    assert (ran.code, ran.error) == (
        2,
        "error: 'page.html' exists already\n  -> pass --overwrite, or choose another path",
    )
    ran = surgery("shrink", "cli_zoo:dense", *IMAGE, "--report", "page.html", "--overwrite", "--json")
    assert (ran.code, ran.data["report"]) == (0, "page.html")
    assert "no channel is dead" in page(surgery).words


def test_a_page_does_not_lie_among_the_files_of_the_slim_model(surgery: CommandLine) -> None:
    ran = surgery("shrink", "cli_zoo:masked", *IMAGE, "-o", "slim", "--report", "slim/page.html")
    assert ran.code == 2
    assert ran.error == (
        "error: the report 'slim/page.html' would lie in 'slim', which holds the slim model alone\n"
        "  -> put it beside: slim.html"
    )
    assert not (surgery.place / "slim").exists()


def test_bench_writes_a_page(surgery: CommandLine) -> None:
    quick = ("--runtime", "eager", "--min-seconds", "0", "--max-seconds", "0.01")
    models = ("a=cli_zoo:masked", "b=cli_zoo:masked")
    ran = surgery("bench", *models, *IMAGE, *quick, "-o", "times.json", "--report", "page.html")
    assert ran.code == 0, ran.err
    assert ran.out.endswith("\nsaved as times.json\nreport in page.html\n")
    written = page(surgery)
    assert written.sections == ["latency", "machine"]
    timed = Benchmark.from_json((surgery.place / "times.json").read_bytes()).cells[0].rows[0]
    assert [cells[6] for cells in written.rows("Latencies, as a table")[2:]] == [f"{len(timed.latency_ms):,}"] * 2


@pytest.mark.parametrize("command", ["shrink", "bench"])
def test_what_a_page_needs_is_asked_first(surgery: CommandLine, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    model = "cli_zoo:nowhere" if command == "shrink" else "a=cli_zoo:nowhere"
    ran = surgery(command, model, *IMAGE, "--report", "none/page.html")
    assert ran.error == "error: the directory 'none' does not exist\n  -> create it first"
    monkeypatch.setitem(sys.modules, "jinja2", None)
    ran = surgery(command, model, *IMAGE, "--report", "page.html")
    assert ran.error == "error: the package 'jinja2' is not installed\n  -> pip install 'surgery[report]'"
