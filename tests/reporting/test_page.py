from __future__ import annotations

import base64
import hashlib
import re
import sys
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path

import pytest

import surgery
from surgery.errors import InputError, MissingExtraError
from surgery.exporting import Export
from surgery.latency.clocks import Clocks
from surgery.latency.results import Model, Row
from surgery.reporting import report
from surgery.results import Result
from tests.reporting.pages import (
    HOSTILE,
    Page,
    benchmark,
    elements,
    export,
    hostile_result,
    number,
    parts,
    row,
    stranded_result,
)


@pytest.fixture(scope="module")
def result() -> Result:
    return stranded_result()


@pytest.fixture(scope="module")
def page(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A page with every section."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    exports = [export(), export("other.onnx", passed=False)]
    assert surgery.report(path, result=result, benchmark=benchmark(), exports=exports) == path
    return Page(path.read_text(encoding="utf-8"))


def of(tmp_path: Path, **given: object) -> Page:
    path = tmp_path / "page.html"
    report(path, overwrite=True, **given)  # type: ignore[arg-type]
    return Page(path.read_text(encoding="utf-8"))


def test_every_layer_is_there_and_its_numbers_add_up(page: Page, result: Result) -> None:
    head, *layers, foot = page.rows("Layers, as a table")
    assert head[0] == "Layer"
    assert [cells[0].split()[0] for cells in layers] == ["stem", "norm", "inner", "back", "head"]
    cut = {axis.name.rpartition(".")[0] for axis in result.plan.axes if axis.removed}
    assert cut == {"inner", "back"}
    assert {cells[0].split()[0] for cells in layers if cells[3] != "unchanged"} == cut
    sizes = [parts(cells[2]) for cells in layers]
    assert tuple(map(sum, zip(*sizes, strict=True))) == parts(foot[2]) == (result.params_after, result.params_before)
    assert result.params_after == elements(result)
    inner = next(cells for cells in layers if cells[0].startswith("inner"))
    assert inner[0] == "inner Conv2d weight 24 × 16 × 3 × 3 → 12 × 16 × 3 × 3"
    assert inner[1] == "dim 0 12 / 24 dim 1 16 / 16"
    assert f"{result.plan.removed_channels} of " in page.words


def test_groups_add_up(page: Page, result: Result) -> None:
    _, *groups, foot = page.rows("Groups of channels, as a table")
    counts = [[number(cell) for cell in cells[1:4]] for cells in groups]
    assert len(counts) == len(result.plan.groups)
    assert all(kept + removed == total for kept, removed, total in counts)
    assert [sum(column) for column in zip(*counts, strict=True)] == [number(cell) for cell in foot[1:4]]


def test_every_channel_that_stays_has_its_reason(page: Page, result: Result) -> None:
    _, *reasons = page.rows("Reasons, as a table")
    kept = sum(group.channels - group.removed for group in result.plan.groups)
    assert sum(number(cells[1]) for cells in reasons) == kept
    texts = [cells[0] for cells in reasons]
    assert "it is an output of the model pinned" in texts
    assert "a layer reads it, and it varies with the input" in texts
    pinned = sum(number(cells[1]) for cells in reasons if cells[0].endswith("pinned"))
    assert f"{kept} of " in page.words
    assert f"; {pinned} of them are pinned" in page.words


def test_stranded_zeros_are_told_with_what_keeps_them(page: Page) -> None:
    _, only = page.rows("Stranded channels, as a table")
    assert only[0] == "stem.weight"
    assert only[1] == "4 / 16 4 would go if the masks agreed"
    assert re.match(r"4: alive: \w+ reads it", only[2])
    assert only[3] == "stem.weight: 4"


def test_the_proof_and_what_was_written(page: Page, result: Result) -> None:
    assert result.proof is not None
    assert f"float64: {result.proof.max_rel_error_float64:.1e} of at most 1.0e-09" in " ".join(page.words.split())
    assert "; ".join(result.proof.shapes) in page.words
    assert "takes up what removed constants still added: back.bias." in page.words


def test_exports_say_when_they_disagree(page: Page) -> None:
    head, first, second = page.rows("Exports, as a table")
    assert dict(zip(head, first, strict=True))["Parity"] == "agrees"
    assert dict(zip(head, second, strict=True))["Parity"] == "DISAGREES"
    assert dict(zip(head, first, strict=True))["Size"] == "45.5 kB"
    assert dict(zip(head, first, strict=True))["Load"] == "12.50 ms"
    assert 'onnxruntime.InferenceSession("slim.onnx")' in page.words


def test_latencies_with_their_ratios(page: Page) -> None:
    _, place, masked, slim, graph = page.rows("Latencies, as a table")
    assert place == ["onnxruntime, 1 thread, cpu, batch 1"]
    ratio = benchmark().ratio("masked", "slim", runtime="onnxruntime")
    assert (masked[2], masked[6]) == ("–", "400")
    assert slim[2:4] == [f"{ratio.median:.3f}× [{ratio.low:.3f}, {ratio.high:.3f}]", "faster"]
    assert graph[1] == f"not timed: ValueError: {HOSTILE}"
    assert f"slim {ratio.median:.2f}× faster" in " ".join(page.words.split())


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    assert not re.search(r"https?://|@import|url\(", page.html.replace(HOSTILE, ""))
    assert not {"link", "img", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert not [
        given for _, given in page.tags if {"src", "srcset", "href", "data"} & given.keys() and tag_loads(given)
    ]
    assert len(page.scripts) == 1
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    policies = [g["content"] for _, g in page.tags if g.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in str(policies[0])


def tag_loads(given: dict[str, str | None]) -> bool:
    return any(not str(given[name]).startswith("#") for name in ("src", "srcset", "href", "data") if name in given)


def test_hostile_names_are_words(tmp_path: Path) -> None:
    bench = benchmark((row(HOSTILE, 2.0), row("b", 1.0)))
    page = of(
        tmp_path, result=hostile_result(), benchmark=bench, exports=[export(f"{'x' * 3}'\"<b>.onnx")], title=HOSTILE
    )
    assert HOSTILE not in page.html
    assert "onerror" in page.words
    assert "{{7*7}}" in page.words
    assert "alert(2)" not in "".join(page.scripts)
    assert not {"img", "b"} & {tag for tag, _ in page.tags}
    assert not [name for _, given in page.tags for name in given if name.startswith("on")]
    assert len(page.scripts) == 1


def test_pictures_are_named_and_headings_are_in_order(page: Page) -> None:
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(ids) == len(set(ids))
    for tag, given in page.tags:
        if tag == "svg":
            labels = str(given.get("aria-labelledby", "")).split()
            assert given.get("aria-hidden") == "true" or (given["role"] == "img" and labels and set(labels) <= set(ids))
        if tag == "a":
            assert str(given["href"]).removeprefix("#") in ids
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_only_what_there_is_has_a_section(page: Page, result: Result, tmp_path: Path) -> None:
    whole = ["removed", "sharing", "stranded", "stayed", "proof", "exports", "latency", "machine", "reload"]
    assert page.sections == whole
    assert of(tmp_path, benchmark=benchmark()).sections == ["latency", "machine"]
    assert of(tmp_path, exports=[export()]).sections == ["exports", "machine", "reload"]
    plain = replace(result, proof=None, plan=replace(result.plan, groups=result.plan.groups[:1]))
    agreed = ["removed", "sharing", "stayed", "proof", "machine", "reload"]
    assert of(tmp_path, result=hostile_result()).sections == agreed
    unproven = of(tmp_path, result=plain)
    assert "proof" not in unproven.sections
    assert "made with prove=False" in unproven.words


def test_a_benchmark_in_which_nothing_was_timed(tmp_path: Path) -> None:
    page = of(tmp_path, benchmark=benchmark((Row("a", failure="no"), row("b", 1.0)), (Row("a", failure="never"),)))
    assert [cells[1] for cells in page.rows("Latencies, as a table") if cells[0] == "a"] == [
        "not timed: no",
        "not timed: never",
    ]
    assert "forest-title" not in page.html


def test_how_to_load_what_was_saved(result: Result, tmp_path: Path) -> None:
    surgery.save(result, tmp_path / "slim")
    page = of(tmp_path, result=result, saved=tmp_path / "slim")
    assert f'model = surgery.load("{tmp_path / "slim"}", fresh_model)' in page.words
    surgery.save(result, tmp_path / "slim", source="torchvision:resnet18", overwrite=True)
    assert f'model = surgery.load("{tmp_path / "slim"}")' in of(tmp_path, result=result, saved=tmp_path / "slim").words


def test_refusals_leave_nothing(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    refused = {
        "there is nothing to report\n  -> pass result=, benchmark=, exports=, sensitivity=, quantized=,": {},
        "result is a Residual\n  -> pass the Result that surgery handed back": {"result": result.model},
        "benchmark is a str\n  -> pass the Benchmark that surgery handed back": {"benchmark": "times.json"},
        "exports[1] is a PosixPath\n  -> pass the Export that": {"exports": [export(), mine]},
        "mine.html' exists already\n  -> pass overwrite=True, or choose another path": {"result": result},
    }
    for text, given in refused.items():
        with pytest.raises(InputError, match=re.escape(text)):
            report(mine, **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="does not exist\n  -> create it first"):
        report(tmp_path / "none" / "page.html", result=result)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"'jinja2' is not installed\n  -> pip install 'surgery\[report\]'"):
        report(mine, result=result, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.html"]
    assert mine.read_text() == "mine"


@dataclass(frozen=True)
class StampedExport(Export):
    isa: str = "AVX512"


def test_what_opening_took_and_the_models_stand_below_the_times(tmp_path: Path) -> None:
    usual = row("a", 2.0)
    opened = replace(usual, model="b", load_ms=3.5, first_ms=1200.0, peak_bytes=45_600_000, error=2e-6, top1=0.5)
    graphed = replace(usual, host_ms=usual.latency_ms)
    one = benchmark((graphed, opened))
    clocks = (Clocks(1755, 1980, 2619, 41, 312.5, False),)
    timed = replace(
        one,
        cells=tuple(replace(cell, clocks=clocks) for cell in one.cells),
        models=(Model("a", "Net", 1234, 5_000_000, 2_500_000),),
        interrupted=True,
    )
    page = of(tmp_path, benchmark=timed)
    head, line = page.rows("What opening them took")
    assert dict(zip(head, line, strict=True)) == {
        "Runtime": "onnxruntime",
        "Threads": "1",
        "Device": "cpu",
        "Batch": "1",
        "Model": "b",
        "Load": "3.50 ms",
        "First call": "1200 ms",
        "Peak memory": "45.6 MB",
        "Error": "2e-06",
        "Top-1 as a": "50.0%",
    }
    assert page.rows("The models that were timed")[1] == ["a", "Net", "1,234", "2.5 M", "5.0 MB"]
    assert "launching takes 100% of the time" in page.words
    assert "GPU at 1755 of 1980 MHz, 41 °C, 312 W" in page.words
    assert "Interrupted: what had been measured" in page.words


def test_what_else_an_export_says_is_shown(tmp_path: Path) -> None:
    stamped = StampedExport(**{field.name: getattr(export(), field.name) for field in fields(Export)})
    page = of(tmp_path, exports=[stamped])
    assert "a note; isa AVX512" in page.words
