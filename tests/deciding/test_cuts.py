from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

import surgery
from surgery.deciding.checksums import checksum
from surgery.deciding.cuts import zero_
from surgery.deciding.parts import Zeros
from surgery.errors import InputError, PlanError


def net() -> nn.Sequential:
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
    return nn.Sequential(first, nn.ReLU(), second, nn.Flatten(), nn.Linear(4 * 36, 5))


def plan() -> surgery.Plan:
    return surgery.choose(net(), torch.randn(1, 3, 6, 6), keep_ratio=0.5)


def test_json_is_the_identity() -> None:
    made = plan()
    again = surgery.Plan.from_json(made.to_json())
    assert again == made
    assert type(again) is surgery.Plan


def broken(change: Any) -> str:
    data = json.loads(plan().to_json())
    change(data)
    return json.dumps(data)


def set_keep(data: dict[str, Any], keep: list[int]) -> None:
    next(axis for axis in data["axes"] if axis["name"] == "0.weight" and axis["dim"] == 0)["keep"] = keep


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "this is not a plan"),
        ("[]", "this is not a plan"),
        ('{"axes": 3}', "this is not a plan"),
        ("[" * 100_000, "this is not a plan"),
        (broken(lambda d: d.update(format_version=99)), "the plan has format 99, this version reads up to 1"),
        (broken(lambda d: set_keep(d, [0, 0, 1])), "0.weight: doubled or unordered positions on dim 0"),
        (broken(lambda d: set_keep(d, [2, 1])), "0.weight: doubled or unordered positions on dim 0"),
        (broken(lambda d: set_keep(d, [0, 8])), "0.weight: position 8 of 8 on dim 0"),
        (broken(lambda d: set_keep(d, [])), "0.weight: nothing would be left of dim 0"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        surgery.Plan.from_json(text)


def test_a_missing_file_is_one_clear_error(tmp_path: Any) -> None:
    with pytest.raises(PlanError, match=r"cannot read the plan .*No such file"):
        surgery.Plan.read(tmp_path / "plan.json")


def test_explain_tells_each_channels_fate() -> None:
    made = plan()
    axis = made.axis("0.weight")
    gone = sorted(set(range(8)) - set(axis.keep))
    assert "is removed: dead" in made.explain("0.weight", gone[0])
    staying = [made.explain("0.weight", index) for index in axis.keep]
    assert all("stays: not chosen" in text or "stays: carrier" in text for text in staying)
    assert "stays: pinned: it is an output of the model" in made.explain("4.weight", 0)


def test_explain_refuses_what_is_not_there() -> None:
    made = plan()
    with pytest.raises(InputError, match=r"no dim 0 of '0\.weigth'[\s\S]*did you mean 0\.weight"):
        made.explain("0.weigth", 0)
    with pytest.raises(InputError, match=r"0\.weight has no position 8 on dim 0[\s\S]*from 0 to 7"):
        made.explain("0.weight", 8)


def test_a_foreign_model_is_refused() -> None:
    with pytest.raises(PlanError, match=r"the model has no 0\.weight"):
        plan().mask(nn.Linear(3, 3))
    with pytest.raises(PlanError, match=r"0\.weight is \[6, 3, 3, 3\], the plan was made for \[8, 3, 3, 3\]"):
        plan().mask(nn.Sequential(nn.Conv2d(3, 6, 3)))


def test_zero_in_a_grouped_weight_is_one_column_of_one_group() -> None:
    weight = torch.ones(4, 3, 2)
    zero_(weight, Zeros("w", 1, (1, 5), conv_groups=2))  # column 1 of group 0, column 2 of group 1
    expected = torch.ones(4, 3, 2)
    expected[:2, 1] = 0
    expected[2:, 2] = 0
    torch.testing.assert_close(weight, expected)


def test_checksums_see_any_bit() -> None:
    weight = torch.randn(5, 7)
    other = weight.clone()
    other[3, 3] = torch.nextafter(other[3, 3], torch.tensor(9.0))
    assert checksum(weight) == checksum(weight.clone())
    assert checksum(weight) != checksum(other)
    assert checksum(torch.empty(0)) == 0
    assert checksum(torch.ones(3, dtype=torch.bfloat16)) != checksum(torch.zeros(3, dtype=torch.bfloat16))
