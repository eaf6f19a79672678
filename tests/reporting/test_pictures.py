from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from surgery.latency.results import Cell
from surgery.proof.prove import Proof
from surgery.reporting import figures
from surgery.reporting.proving import gauges_of
from surgery.reporting.removal import removal_of
from surgery.reporting.scales import linear, powers, ratios
from surgery.reporting.sharing import sharing_of
from surgery.reporting.staying import staying_of
from surgery.reporting.timing import forest_of, places_of
from surgery.results import Result
from surgery.shrinking import shrink
from tests.reporting.pages import benchmark, row, stranded_result


@pytest.fixture(scope="module")
def result() -> Result:
    return stranded_result()


class Tokens(nn.Module):
    """An embedding, a transposed convolution and a layer that nothing shares."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.up = nn.ConvTranspose1d(8, 6, 2)
        self.out = nn.Linear(6, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.up(self.words(ids).transpose(1, 2))).mean(2))


def test_lines_run_from_who_writes_to_who_reads(result: Result) -> None:
    drawn = sharing_of(result)
    assert drawn is not None
    names = {one.y: one.name for one in drawn.rows}
    assert list(names.values()) == ["stem", "inner", "back", "head"]
    roles = {
        line.group.name: {names[mark.y]: mark.role for mark in line.marks} | {"": line.state} for line in drawn.lines
    }
    assert roles["stem.weight"] == {
        "stem": "writes",
        "inner": "reads",
        "back": "writes",
        "head": "reads",
        "": "stranded",
    }
    assert roles["inner.weight"] == {"inner": "writes", "back": "reads", "": "cut"}
    by_name = {one.name: one for one in drawn.rows}
    assert by_name["back"].reads == (12, 24)
    assert by_name["stem"].reads is None
    assert drawn.lone == len(result.plan.groups) - 2


def test_no_two_lines_overlap(result: Result) -> None:
    chain = nn.Sequential(*(nn.Linear(4, 4) for _ in range(9)))
    for drawn in (sharing_of(result), sharing_of(shrink(chain, torch.randn(2, 4), prove=False))):
        assert drawn is not None
        spans = sorted((line.x, line.top, line.bottom) for line in drawn.lines)
        assert all(x != other or bottom < top for (x, _, bottom), (other, top, _) in pairwise(spans))
        assert max(line.bottom for line in drawn.lines) < drawn.height
        assert len({line.x for line in drawn.lines}) <= 2


def test_embeddings_and_transposed_convolutions_are_read_along_dim_0() -> None:
    drawn = sharing_of(shrink(Tokens().eval(), torch.randint(0, 11, (2, 5)), prove=False))
    assert drawn is not None
    names = {one.y: one.name for one in drawn.rows}
    assert [{names[mark.y]: mark.role for mark in line.marks} for line in drawn.lines] == [
        {"words": "writes", "up": "reads"},
        {"up": "writes", "out": "reads"},
    ]


def test_one_layer_shares_nothing() -> None:
    assert sharing_of(shrink(nn.Linear(3, 2), torch.randn(2, 3), prove=False)) is None


def test_columns_are_as_high_as_their_layers_are_large(result: Result) -> None:
    drawn = removal_of(result)
    assert [column.layer.name for column in drawn.columns] == ["stem", "inner", "back", "head"]
    largest = max(drawn.columns, key=lambda column: column.layer.before)
    assert largest.layer.name == "inner"
    heights = {column.layer.name: (150 - column.top, 150 - column.kept_top) for column in drawn.columns}
    assert heights["inner"][1] / heights["inner"][0] == pytest.approx(largest.layer.after / largest.layer.before, 1e-3)
    assert heights["stem"][0] / heights["inner"][0] == pytest.approx(
        drawn.columns[0].layer.before / largest.layer.before, 1e-3
    )


def test_a_group_that_shares_its_axes_is_told_by_its_commonest_reason(result: Result) -> None:
    plan = result.plan
    axes = tuple(replace(axis, why=()) if axis.name.startswith("inner") else axis for axis in plan.axes)
    told = staying_of(replace(result, plan=replace(plan, axes=axes)))
    assert told.kept == sum(reason.channels for reason in told.reasons)
    assert told == staying_of(result)  # back.weight:1 tells as much
    assert not any(reason.text.startswith("dead") for reason in told.reasons)
    # axes on which other channels live, too, most of them removed
    shared = [
        replace(axis, size=axis.size + 50, why=(*axis.why, *[-1] * 50)) for axis in plan.axes if len(axis.why) > 1
    ]
    mixed = (*shared, *(axis for axis in plan.axes if len(axis.why) == 1))
    none = replace(plan, axes=mixed, reasons=(*plan.reasons, "never"))
    again = staying_of(replace(result, plan=none))
    assert again == told  # every group here stays for one reason


def test_shapes_lie_where_the_times_are() -> None:
    fast = row("slim", 1.4, seed=1)
    slow = row("masked", 4.2)
    (place,) = places_of(benchmark((slow, fast)))
    assert place.scale is not None
    assert place.from_zero
    assert place.scale.low == 0
    for timed in place.timed:
        assert timed.shape is not None
        points = re.findall(r"([\d.]+) ([\d.]+)", timed.shape.outline)
        xs = [float(x) for x, _ in points]
        ys = [float(y) for _, y in points]
        middle = np.quantile(timed.row.latency_ms, [0.005, 0.995])
        assert min(xs) == pytest.approx(place.scale(middle[0]), abs=3)
        assert max(xs) == pytest.approx(place.scale(middle[1]), abs=3)
        assert max(ys) - min(ys) == pytest.approx(22, abs=0.3)
        assert timed.shape.median == pytest.approx(place.scale(float(np.median(timed.row.latency_ms))))
        assert timed.shape.left_out == 4
    near = places_of(benchmark((row("a", 4.2), row("b", 4.2, seed=1))))[0]
    assert not near.from_zero
    alike = places_of(benchmark((row("a", 4.2, scatter=0), row("b", 2.1, scatter=0))))[0]
    assert [one.shape.outline for one in alike.timed if one.shape] == ["", ""]


def test_far_out_calls_do_not_stretch_the_axis() -> None:
    usual = row("a", 2.0)
    wild = (*usual.latency_ms[:-9], *[500.0] * 9)
    (place,) = places_of(benchmark((replace(usual, latency_ms=wild),)))
    assert place.scale is not None
    assert place.scale.high < 5
    assert place.left_out >= 9


def test_ratios_stand_on_the_scale_of_all() -> None:
    slow, fast, same = row("masked", 4.2), row("slim", 1.4, seed=1), row("again", 4.2, seed=2)
    forest = forest_of(places_of(benchmark((slow, fast, same), (slow, fast))))
    assert forest is not None
    assert [(line.second, line.ratio.verdict, line.heading_y is None) for line in forest.lines] == [
        ("slim", "faster", False),
        ("again", "no difference", True),
        ("slim", "faster", False),
    ]
    for line in forest.lines:
        assert line.low <= line.median <= line.high
        assert (line.median > forest.one) == (line.ratio.median > 1)
        assert line.shape.median == pytest.approx(line.median, abs=0.01)
    assert forest.lines[0].shape.y < forest.lines[1].shape.y < forest.lines[2].shape.y < forest.height
    assert isinstance(forest.lines[0].cell, Cell)
    assert forest_of(places_of(benchmark((slow,)))) is None


def test_gauges() -> None:
    proof = Proof(True, 1e-8, 0.0, None, None, 1.0, 1e-5, 1e-9, "float32", 5, ("example [1]",))
    drawn = gauges_of(proof)
    assert drawn is not None
    assert [line.name for line in drawn.lines] == ["float32, as used"]
    both = gauges_of(replace(proof, max_rel_error=2e-5, max_rel_error_float64=1e-14, noise=1e-7))
    assert both is not None
    wide, own = both.lines
    assert own.x > own.bound_x > wide.bound_x > wide.x
    assert own.noise_x is not None
    assert gauges_of(replace(proof, max_rel_error=None)) is None


@pytest.mark.parametrize("scale", [linear(0, 41.2, 0, 100), linear(0.013, 0.0131, 0, 100), linear(5, 5, 0, 100)])
def test_ends_of_a_scale_are_ticks(scale: object) -> None:
    assert callable(scale)
    marks = scale.marks  # type: ignore[attr-defined]
    assert 2 <= len(marks) <= 9
    assert (marks[0][0], marks[-1][0]) == (0, 100)
    assert (marks[0][2], marks[-1][2]) == ("start", "end")


def test_ratios_and_powers() -> None:
    scale = ratios(0.9, 3.1, 0, 100)
    assert scale(2) - scale(1) == pytest.approx(scale(3) - scale(1.5), abs=0.02)
    assert {1.0, 2.0, 3.0} <= set(scale.ticks)
    assert 1.0 in ratios(0.995, 1.004, 0, 100).ticks
    assert 3 <= len(ratios(0.001, 900, 0, 100).ticks) <= 9
    assert powers(2e-15, 3e-5, 0, 100).marks[0][1] == "1e−15"
    assert powers(1e-9, 1e-9, 0, 100)(1e-9) == 0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (figures.brief(25_557_032), "25.6 M"),
        (figures.brief(999_999), "1 M"),
        (figures.brief(12), "12"),
        (figures.brief(45_500, "B"), "45.5 kB"),
        (figures.less(200, 50), "−75.0 %"),
        (figures.less(50, 51), "+2.0 %"),
        (figures.less(50, 50), "unchanged"),
        (figures.percent(1, 1000), "0.1 %"),
        (figures.percent(999, 1000), "99.9 %"),
        (figures.percent(0, 3), "0 %"),
        (figures.error(None), "–"),
        (figures.error(3.84e-6), "3.8e-06"),
        (figures.milliseconds(0.08121), "0.0812 ms"),
        (figures.milliseconds(12.345), "12.35 ms"),
        (figures.plain(("cpu", "cuda")), "cpu, cuda"),
        (figures.plain(()), "–"),
        (figures.plain(False), "no"),
        (figures.plain({"a": 0.12345}), "a 0.1235"),
    ],
)
def test_figures(said: str, expected: str) -> None:
    assert said.replace("\u202f", " ") == expected
