"""What a sensitivity study is worth as scores, as a table and as a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from surgery.errors import InputError
from surgery.sensitivities import Curve, Point, Sensitivity

ORDER = (7, 3, 1, 0, 2, 6, 5, 4)


def curve(*values: float | None, name: str = "a.weight", axis: str = "a.weight:0") -> Curve:
    """Eight channels on an axis of ten positions; two more of them go at each point."""
    points = tuple(Point(0.25 * place, 2 * place, value) for place, value in enumerate(values, 1))
    return Curve(name, axis, 10, 8, ORDER, points)


def study(*curves: Curve, measured: str = "loss", dense: float = 1.0) -> Sensitivity:
    return Sensitivity("Net", measured, dense, "l2", (0.25, 0.5, 0.75), 40, curves)


def test_scores_add_up_to_what_was_measured_where_it_grows_faster_and_faster() -> None:
    found = study(only := curve(1.1, 1.4, 2.0))
    assert found.rises(only) == pytest.approx((0.1, 0.4, 1.0))
    scores = found.scores(only)
    assert scores.shape == (8,)
    assert (np.diff(scores) > 0).all()
    total = np.cumsum(scores)
    assert total[[1, 3, 5]] == pytest.approx((0.1, 0.4, 1.0), abs=0.02)
    assert total[7] == pytest.approx(1.6, abs=1e-6), "beyond the last point it goes on as before"


def test_scores_grow_and_never_promise_more_than_was_measured() -> None:
    found = study(only := curve(2.0, 1.5, 2.1))  # much at first, then nothing, and noise
    assert found.rises(only) == pytest.approx((1.0, 1.0, 1.1))
    scores = found.scores(only)
    assert (scores > 0).all()
    assert (np.diff(scores) > 0).all(), "the order within the group is that of its importance"
    assert (np.cumsum(scores)[[1, 3, 5]] <= np.array(found.rises(only)) + 1e-6).all()


def test_a_whole_group_counts_as_much_as_the_worst_that_was_measured() -> None:
    found = study(cheap := curve(1.0, 1.0, 1.1), curve(2.0, 3.0, 9.0, name="dear"))
    total = np.cumsum(found.scores(cheap))
    assert total[3] == pytest.approx(0.0, abs=0.05)
    assert total[5] < 0.2
    assert total[7] == pytest.approx(8.0, abs=1e-6)


def test_of_what_evaluate_returns_less_is_worse() -> None:
    only = curve(0.9, 0.5, 0.95)
    assert study(only, measured="evaluate").rises(only) == pytest.approx((0.1, 0.5, 0.5))
    assert study(only, measured="loss").rises(only) == (0.0, 0.0, 0.0)
    assert (study(only, measured="loss").scores(only) > 0).all()


def test_scores_lie_at_the_positions_of_their_channels() -> None:
    found = study(curve(1.1, 1.4, 2.0), curve(5.0, name="b", axis="b:1"))(None)
    assert set(found) == {"a.weight:0", "b:1"}
    values = found["a.weight:0"]
    assert values.shape == (10,)
    assert values.isnan().nonzero().ravel().tolist() == [8, 9]
    assert values[:8].argsort().tolist() == list(ORDER)
    halves = study(curve(1.5), replace(curve(1.5), order=(8, 9), points=(Point(0.5, 1, 3.0),)))(None)
    assert not halves["a.weight:0"].isnan().any()
    assert torch.equal(halves["a.weight:0"][:8].argsort(), torch.tensor(ORDER))


def test_the_table() -> None:
    assert str(study(curve(1.25, None, 12345.678), curve(2.0, name="longer.weight"))) == (
        "sensitivity of Net: mean loss, on 40 samples; 1 when whole; lowest l2 first\n"
        "group          channels  -25%  -50%       -75%\n"
        "a.weight              8  1.25  none  1.235e+04\n"
        "longer.weight         8     2     –          –"
    )


def test_json_and_files(tmp_path: Path) -> None:
    found = replace(study(curve(1.25, None, 3.0)), notes=("a note",), interrupted=True)
    assert Sensitivity.from_json(found.to_json()) == found
    (tmp_path / "s.json").write_text(found.to_json())
    assert Sensitivity.read(tmp_path / "s.json") == found
    with pytest.raises(InputError, match=r"none.json' cannot be read: No such file"):
        Sensitivity.read(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match=r"bad.json': this is not a saved sensitivity: .*`model`"):
        Sensitivity.read(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (replace(study(), format="surgery.sensitivity/9"), "its format is 'surgery.sensitivity/9'"),
        (study(measured="luck"), "it measures 'luck'"),
        (study(replace(curve(1.0), order=(1, 1, 2))), "the order of a.weight names a position twice"),
        (study(replace(curve(1.0), size=4)), "the order of a.weight names a position twice, or one outside"),
        (study(curve()), "the points of a.weight do not grow from 1 to at most 8"),
        (study(curve(1.0, 1.0, 1.0, 1.0, 1.0)), "the points of a.weight do not grow from 1 to at most 8"),
        (study(replace(curve(1.0), points=(Point(0.5, 4, 1.0), Point(0.6, 4, 1.0)))), "the points of a.weight do not"),
    ],
)
def test_files_that_do_not_fit_together(found: Sensitivity, told: str) -> None:
    with pytest.raises(InputError, match="this is not a valid sensitivity") as raised:
        Sensitivity.from_json(found.to_json())
    assert told in raised.value.fact
