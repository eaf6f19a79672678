"""The ladder, a sensitivity study and int8 on the page, and the picture of a study as a file."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import surgery
from surgery.compensating import Rung
from surgery.deciding.aims import Aim
from surgery.errors import InputError
from surgery.pruning import Pruned
from surgery.reporting.curves import curves_of
from surgery.reporting.winning import ladder_of
from tests.reporting.measures import COMPENSATED, pruned, quantized, study
from tests.reporting.pages import HOSTILE, Page


@pytest.fixture(scope="module")
def result() -> Pruned:
    return pruned()


@pytest.fixture(scope="module")
def page(result: Pruned, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("page") / "page.html"
    surgery.report(path, result=result, sensitivity=study(), quantized=quantized())
    return Page(path.read_text(encoding="utf-8"))


def test_every_rung_is_told(page: Page) -> None:
    head, dense, *rungs = page.rows("The ladder, as a table")
    assert head == ["Rung", "Layers", "Error", "Evaluated", "Kept"]
    assert dense == ["dense", "–", "0", "0.95", ""]
    assert [cells[0] for cells in rungs] == [
        "exact fold",
        "mean-activation bias",
        "least squares",
        "BatchNorm statistics",
    ]
    assert [cells[2] for cells in rungs] == ["0.8", "0.6", "0.2", "0.3"]
    assert [cells[4] for cells in rungs] == ["yes", "yes", "yes", "taken back"]
    words = " ".join(page.words.split())
    assert "repaired on 300 samples, without training, and judged on 100: 75 % of the error" in words
    assert "Error, held out0.20.8 before it was won back" in words
    assert "mean-activation bias: biases were made where there were none: a.bias." in words
    assert "a note of the data" in words


def test_a_latency_that_was_asked_for_stands_at_the_top(result: Pruned, tmp_path: Path) -> None:
    aim = Aim(0.5, 5.0, 10.0, 4.95, 0.495, 0.49, 0.501, "onnxruntime", note="a <note>")
    aimed = replace(result, plan=replace(result.plan, aim=aim))
    text = surgery.report(tmp_path / "aimed.html", result=aimed).read_text()
    assert "Latency, 0.5 asked for" in text
    assert "0.495</span> (0.490 to 0.501); a &lt;note&gt;" in text
    assert "asked for" not in surgery.report(tmp_path / "plain.html", result=result).read_text()


def test_bars_are_as_long_as_errors_are_large() -> None:
    drawn = ladder_of(COMPENSATED)
    lengths = [bar.end - 4 for bar in drawn.bars]
    assert lengths == pytest.approx([lengths[0] * error / 0.8 for error in (0.8, 0.6, 0.2, 0.3)], rel=1e-3)
    assert drawn.won == pytest.approx(0.75)
    assert max(bar.y for bar in drawn.bars) + drawn.thick < drawn.height


def test_without_data_there_is_no_error_to_draw(result: Pruned, tmp_path: Path) -> None:
    alone = replace(COMPENSATED, ladder=(Rung("fold", None),), evaluated=None, fitted=0, held_out=0)
    surgery.report(tmp_path / "page.html", result=replace(result, compensated=alone))
    found = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "The exact fold is all that was done, for there was no data." in found.words
    assert "before it was won back" not in found.words
    assert found.rows("The ladder, as a table")[2] == ["exact fold", "–", "–", "yes"]


def test_sensitivity_as_a_table(page: Page) -> None:
    assert page.rows("Sensitivity, as a table") == [
        ["Group", "Channels", "−25 %", "−50 %"],
        ["stem.weight", "16", "0.8", "0.3"],
        ["inner.weight", "24", "–", "no number"],
    ]
    words = " ".join(page.words.split())
    assert "the lowest taylor first" in words
    assert "what evaluate returns (more is better), on 40 samples" in words


def test_dots_lie_where_the_values_are() -> None:
    drawn = curves_of(study())
    assert drawn is not None
    large, small = drawn.lines[0].dots
    assert (large.ratio, small.ratio) == (0.5, 0.25)
    assert large.radius > small.radius
    assert drawn.dense_x > small.x > large.x
    assert (drawn.dense_x - small.x) / (drawn.dense_x - large.x) == pytest.approx(0.1 / 0.6, abs=1e-3)
    assert drawn.lines[0].end == drawn.dense_x
    (lost,) = drawn.lines[1].dots
    assert not lost.known
    assert lost.x == drawn.scale.start, "of what evaluate returns, less is worse"
    loss = curves_of(study(measured="loss", dense=0.1))
    assert loss is not None
    assert loss.lines[1].dots[0].x == loss.scale.end
    assert not loss.scale.log
    assert curves_of(study(measured="loss", dense=1e-4)).scale.log  # type: ignore[union-attr]
    assert curves_of(replace(study(), curves=())) is None
    long = curves_of(study(name="encoder." * 20 + "weight"))
    assert long is not None
    assert long.lines[0].name.startswith("…")
    assert len(long.lines[0].name) == 58


def test_a_picture_is_a_file_of_its_own(tmp_path: Path) -> None:
    found = study(name=HOSTILE)
    assert found.plot(tmp_path / "s.svg") == tmp_path / "s.svg"
    root = ET.fromstring((tmp_path / "s.svg").read_text(encoding="utf-8"))
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert not list(root.iter(f"{space}script"))
    assert len(list(root.iter(f"{space}circle"))) == 3 + 2
    assert any("inner.weight" in (one.text or "") for one in root.iter(f"{space}text"))
    with pytest.raises(InputError, match="exists already"):
        found.plot(tmp_path / "s.svg")
    with pytest.raises(InputError, match=r"'.*s\.png' does not end in \.svg"):
        found.plot(tmp_path / "s.png")
    with pytest.raises(InputError, match="no group was measured"):
        replace(found, curves=()).plot(tmp_path / "none.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["s.svg"]


def test_int8_beside_float(page: Page) -> None:
    assert page.rows("Int8 beside float, as a table") == [
        ["Output", "Lowest cosine", "Mean cosine", "Error", "Same top-1"],
        ["logits", "0.98765", "0.99876", "5 %", "99 %"],
        ["ids", "–", "–", "–", "100 %"],
    ]
    words = " ".join(page.words.split())
    assert "slim.int8.onnx, 40 kB instead of 160 kB (−75.0 %)" in words
    assert "11 of 12 convolutions and matrix products; in float: MatMul head" in words
    assert "static: convolutions carry 100% of the MACs; calibrated on 300 samples" in words
    assert "0.97 in float, 0.96 in int8" in words
    ratio = quantized().ratio
    assert ratio is not None
    assert f"float over int8 {ratio.median:.3f}×" in words
    assert "a note of int8" in words


def test_each_alone_is_a_page(tmp_path: Path) -> None:
    for name, given, sections, heading in (
        ("s", {"sensitivity": study()}, ["sensitivity", "machine"], "Sensitivity of Net"),
        ("q", {"quantized": quantized(benchmark=None)}, ["quantized", "machine"], "slim.int8.onnx"),
    ):
        surgery.report(tmp_path / name, **given)  # type: ignore[arg-type]
        found = Page((tmp_path / name).read_text(encoding="utf-8"))
        assert found.sections == sections
        assert f"<h1>{heading}</h1>" in found.html
    none = replace(study(), curves=(), interrupted=True)
    surgery.report(tmp_path / "none", sensitivity=none)
    assert "Interrupted: the groups" in (tmp_path / "none").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="sensitivity is a int"):
        surgery.report(tmp_path / "x", sensitivity=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="quantized is a Tensor"):
        surgery.report(tmp_path / "x", quantized=torch.zeros(1))  # type: ignore[arg-type]


def test_names_are_escaped(tmp_path: Path) -> None:
    surgery.report(tmp_path / "p.html", sensitivity=study(name=HOSTILE), quantized=quantized(why=HOSTILE))
    found = Page((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert "img" not in {tag for tag, _ in found.tags}
    assert len(found.scripts) == 1
