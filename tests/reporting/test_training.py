"""The section on training: every number in it is one of the training's."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from surgery.errors import InputError
from surgery.fitting.result import Fitted
from surgery.reporting import report
from surgery.reporting.learning import POINTS, learning_of
from tests.reporting.courses import EPOCHS, ROUNDS, STEPS, fitted, recovered
from tests.reporting.pages import HOSTILE, Page

LAST = STEPS * EPOCHS * ROUNDS


def page(tmp_path: Path, **given: Any) -> Page:
    path = report(tmp_path / "page.html", overwrite=True, **given)
    return Page(path.read_text(encoding="utf-8"))


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+?) (-?[\d.]+)", path)]


def test_the_curve_goes_through_the_losses() -> None:
    drawn = learning_of(fitted())
    assert drawn is not None
    assert drawn.loss is not None
    raw = points(drawn.loss.thin)
    assert len(raw) == LAST
    for number, loss in enumerate(fitted().losses):
        x, y = raw[number]
        assert x == pytest.approx(drawn.steps(number + 1), abs=0.06)
        assert y == pytest.approx(drawn.loss.scale(loss), abs=0.06)
    heights = [y for _, y in points(drawn.loss.path)]
    assert heights == sorted(heights)  # downwards on the page: the loss falls all the way
    (x, y, epoch), *_ = drawn.value.dots  # type: ignore[union-attr]
    assert (x, epoch.value) == (drawn.steps(STEPS), 0.5)
    assert y == drawn.value.scale(0.5)  # type: ignore[union-attr]


def test_marks_stand_where_the_model_changed() -> None:
    drawn = learning_of(fitted())
    assert drawn is not None
    assert [mark.x for mark in drawn.marks] == [drawn.steps(0), drawn.steps(STEPS * EPOCHS + 5)]
    assert [mark.word for mark in drawn.marks] == ["−30 %", "−60 %"]
    assert drawn.marks[1].told.startswith(f"before step {STEPS * EPOCHS + 5}: round 2, step 5: cut to 400 parameters")
    assert drawn.starts == ((drawn.steps(STEPS * EPOCHS), 2),)
    crowd = tuple(replace(fitted().changes[0], step=step, amount=step / 100) for step in range(60))
    crowded = learning_of(replace(fitted(), changes=crowd))
    assert crowded is not None
    words = [mark.x for mark in crowded.marks if mark.word]
    assert crowded.marks[-1].word == "−59 %"
    assert 1 < len(words) < 6
    assert min(b - a for a, b in pairwise(words)) >= 60


def test_a_loss_that_was_no_number_is_left_out_and_counted(tmp_path: Path) -> None:
    losses = [1.0 + 0.01 * step for step in range(1000)]
    losses[10] = math.nan
    losses[11] = math.inf
    drawn = learning_of(replace(fitted(), losses=tuple(losses)))
    assert drawn is not None
    assert drawn.loss is not None
    assert drawn.skipped == 2
    assert drawn.smoothed == 20
    assert len(points(drawn.loss.path)) == POINTS
    assert "nan" not in drawn.loss.path + drawn.loss.thin
    none = learning_of(replace(fitted(), losses=(math.nan,) * 3))
    assert none is not None
    assert none.loss is None
    assert learning_of(replace(fitted(), losses=())) is None
    assert "2 losses were no finite numbers" in page(tmp_path, training=replace(fitted(), losses=tuple(losses))).words


def test_a_page_of_a_training(tmp_path: Path) -> None:
    shown = page(tmp_path, training=fitted(notes=(HOSTILE,)))
    assert shown.sections == ["training", "machine"]
    assert "Training of Linear" in shown.words
    assert HOSTILE not in shown.html
    rounds = shown.rows("Rounds, as a table")[1:]
    assert [row[:5] for row in rounds] == [["1", "30 %", "700", "3", "60"], ["2", "60 %", "400", "3", "60"]]
    assert [row[6] for row in rounds] == ["0.7", "1"]
    changes = shown.rows("Changes, as a table")
    assert changes[2] == ["2", "5", "cut, rewound", "60 %", "400", "0.5", "0.5", "3.0e-07"]
    epochs = shown.rows("Epochs, as a table")[1:]
    assert len(epochs) == EPOCHS * ROUNDS
    assert epochs[-2] == ["2", "2", "100", "0.2", "0.001", "0.9 best"]
    assert "Dashed: where channels went" in shown.words


def test_masks_and_no_measure(tmp_path: Path) -> None:
    shown = page(tmp_path, training=fitted(masked=True, valued=False))
    assert "where weights were masked, with the share of the dense model that is zero" in shown.words
    assert shown.rows("Changes, as a table")[1] == ["1", "0", "masked", "30 %", "30 %"]
    assert shown.rows("Epochs, as a table")[0] == ["Round", "Epoch", "Steps", "Loss", "Learning rate"]
    assert "values-title" not in shown.html


def test_what_recover_handed_back_is_shown_with_its_training(tmp_path: Path) -> None:
    shown = page(tmp_path, result=recovered())
    assert "training" in shown.sections
    words = " ".join(shown.words.split())
    assert "with zoo:<dense> as its teacher (soft targets at temperature 4, weight 0.9; features stem)" in words
    assert "The proof is of the cut, before that. Evaluated: 0.41 before, 0.97 after, the teacher 0.99." in words
    assert "Evaluated after training0.970.41 before, 0.99 the teacher" in shown.words.replace("\n", "")


def test_what_is_no_training(tmp_path: Path) -> None:
    for given in ("losses", {"losses": [1.0]}):
        with pytest.raises(InputError, match="pass the Fitted that surgery handed back"):
            page(tmp_path, training=given)
    assert not list(tmp_path.iterdir())
    assert isinstance(fitted(), Fitted)
