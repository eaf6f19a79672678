from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from surgery.errors import InputError
from surgery.quantizing.data import CHUNK, GIVEN, HELD_BACK, TOO_FEW, read
from surgery.quantizing.float_file import Slot

X = (Slot("x", (None, 3), np.dtype(np.float32)),)
TWO = (Slot("ids", (None, 4), np.dtype(np.int64)), Slot("mask", (None, 4), np.dtype(np.float32)))
FIXED = (Slot("x", (2, 3), np.dtype(np.float32)),)


def rows_of(feeds: Any) -> list[float]:
    """The first value of every sample."""
    return [float(row[0]) for feed in feeds for row in feed["x"]]


def numbered(count: int) -> torch.Tensor:
    return torch.arange(float(count))[:, None].expand(-1, 3)


def test_every_fourth_sample_is_held_back() -> None:
    for data in (
        numbered(10),
        numbered(10).numpy(),
        list(numbered(10).split(3)),
        [(n, 7) for n in numbered(10).split(1)],
    ):
        found = read(data, ["x"], X, 100)
        assert sorted(rows_of(found.comparison)) == [3, 7]
        assert sorted(rows_of(found.calibration)) == [0, 1, 2, 4, 5, 6, 8, 9]
        assert (found.calibrated, found.compared, found.compared_on) == (8, 2, HELD_BACK)


def test_too_few_to_hold_any_back() -> None:
    found = read(numbered(3), ["x"], X, 100)
    assert rows_of(found.calibration) == rows_of(found.comparison) == [0, 1, 2]
    assert found.compared_on == TOO_FEW


def test_nothing_is_taken_beyond_the_limit() -> None:
    def endless() -> Any:
        while True:
            yield numbered(3)

    found = read(endless(), ["x"], X, 8)
    assert found.calibrated + found.compared == 8
    assert read(numbered(100), ["x"], X, 70).calibrated == 53
    assert max(len(feed["x"]) for feed in read(numbered(100), ["x"], X, 100).calibration) <= CHUNK


def test_all_is_compared_where_nothing_is_calibrated() -> None:
    found = read(numbered(10), ["x"], X, 100).uncalibrated()
    assert (found.calibration, found.calibrated, found.compared, found.compared_on) == ((), 0, 10, GIVEN)
    assert sorted(rows_of(found.comparison)) == list(range(10))


def test_calls_of_a_fixed_batch_stay_whole() -> None:
    found = read(list(numbered(10).split(2)), ["x"], FIXED, 100)
    assert rows_of(found.comparison) == [6, 7]
    assert (found.calibrated, found.compared) == (8, 2)


def test_inputs_by_name_and_by_place() -> None:
    ids, mask = torch.ones(4, 4, dtype=torch.int32), torch.zeros(4, 4)
    by_name = read([{"mask": mask, "labels": ids, "ids": ids}], ["ids", "mask"], TWO, 9)
    assert by_name.calibration[0]["ids"].dtype == np.int64
    assert by_name.notes == ("'labels' of the data's items was not used",)
    by_place = read([(ids, mask, torch.zeros(4))], ["ids", "mask"], TWO, 9)
    assert np.array_equal(by_place.calibration[0]["mask"], by_name.calibration[0]["mask"])
    dropped = read([(numbered(4), ids, mask)], ["unused", "ids", "mask"], TWO, 9)
    assert set(dropped.calibration[0]) == {"ids", "mask"}
    assert dropped.notes == ()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([], "the data is empty"),
        (torch.zeros(0, 3), r"item 0 of the data: input 'x' is empty \(\[0, 3\]\)"),
        (
            [torch.zeros(2, 3), torch.zeros(3)],
            r"item 1 .* shape \[3\], the model takes \[any, 3\] float32\n.*batch dim",
        ),
        ([torch.zeros(2, 4)], r"has shape \[2, 4\], the model takes \[any, 3\] float32\n.*dynamic_shapes="),
        ([torch.full((2, 3), float("nan"))], "item 0 of the data: input 'x' holds NaN"),
        ([torch.full((2, 3), float("inf"))], "holds infinity"),
        ([torch.full((2, 3), 1e300, dtype=torch.float64)], "holds infinity"),
        ([torch.zeros(2, 3, dtype=torch.uint8)], "input 'x' is uint8, the model takes float32"),
        ([{"y": torch.zeros(2, 3)}], r"item 0 of the data has no 'x' \(it has y\)"),
        ([3.0], r"item 0 of the data \(float\) gives 0 tensors, the model takes 1"),
        (3.0, "the data is a float"),
        ("images/", "the data is a str"),
    ],
)
def test_data_that_cannot_be_used(data: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read(data, ["x"], X, 100)


def test_integers_that_do_not_fit() -> None:
    slots = (Slot("x", (None,), np.dtype(np.int32)),)
    with pytest.raises(InputError, match="input 'x' holds values beyond int32"):
        read([torch.tensor([2**40])], ["x"], slots, 9)
