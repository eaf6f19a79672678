from __future__ import annotations

import sys

import msgspec

from surgery.plans import Plan
from tests.cli.conftest import CommandLine

BRANCHES = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.head(torch.relu(self.left(x) + self.right(x)))


def masked():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.left.weight[[0, 1, 2, 3]] = 0
        net.right.weight[[0, 4]] = 0
    return net


def agreeing():
    net = masked()
    with torch.no_grad():
        net.right.weight[[1, 2, 3]] = 0
        net.left.weight[4] = 0
    return net
"""
MASKED = ("cli_branches:masked", "--input", "1x3x5x5")


def place(surgery: CommandLine) -> None:
    (surgery.place / "cli_branches.py").write_text(BRANCHES)
    sys.modules.pop("cli_branches", None)


def test_align_then_shrink_by_the_plan(surgery: CommandLine) -> None:
    place(surgery)
    ran = surgery("align", *MASKED, "-o", "plan.json")
    assert ran.code == 0, ran.err
    assert "note: aligning (average) changes the function: it zeroes 2 more channels" in ran.out
    assert ran.out.endswith("saved as plan.json\n")
    plan = Plan.read(surgery.place / "plan.json")
    assert plan.removed_channels == 3

    ran = surgery("align", *MASKED, "-o", "plan.json", "--json")
    assert (ran.code, ran.data["error"]["fact"]) == (2, "'plan.json' exists already")
    ran = surgery("align", *MASKED, "--agreement", "any", "--round-to", "2", "--json")
    assert ran.code == 0
    assert {key: ran.data[key] for key in ("command", "agreement", "more_zeroed", "output")} == {
        "command": "align", "agreement": "any", "more_zeroed": 3, "output": None
    }  # fmt: skip
    assert Plan.from_json(msgspec.json.encode(ran.data["plan"])).removed_channels == 4

    ran = surgery("shrink", *MASKED, "--plan", "plan.json", "--json")
    assert ran.code == 0, ran.err
    assert ran.data["removed_channels"] == 3
    assert ran.data["proof"]["passed"] is True


def test_explain_carries_the_same_facts_as_json(surgery: CommandLine) -> None:
    place(surgery)
    ran = surgery("explain", *MASKED, "--json")
    assert ran.code == 0, ran.err
    (group,) = ran.data["stranded"]
    assert group["keep_alive"] == [["right.weight", 3], ["left.weight", 1]]
    assert (group["stranded"], group["alignable"], group["pinned"]) == (4, 4, 0)
    told = ran.data["aligning"]
    assert told["any"] == {"channels": 4, "params": 40, "macs": 4 * 25 * 8}
    assert told["average"]["params"] == 20
    assert told["groups"][0]["name"] == "left.weight"
    text = surgery("explain", *MASKED).out
    assert "right.weight keeps 3 of 6 channels alive" in text
    assert "aligned alone: 40 parameters" in text


def test_nothing_to_align_is_said_and_is_no_error(surgery: CommandLine) -> None:
    place(surgery)
    ran = surgery("align", "cli_branches:agreeing", *MASKED[1:])
    assert ran.code == 0, ran.err
    assert "note: no masks disagree: the plan is what shrink would do" in ran.out
    ran = surgery("explain", "cli_branches:agreeing", *MASKED[1:], "--json")
    assert ran.data["aligning"] is None


def test_the_way_out_is_written_as_flags(surgery: CommandLine) -> None:
    place(surgery)
    (surgery.place / "cli_branches.py").write_text(BRANCHES.replace("[0, 1, 2, 3]]", "[0, 4, 5]]"))
    ran = surgery("align", *MASKED)
    assert ran.code == 0, ran.err
    assert "; --agreement any aligns all that any producer zeroed" in ran.out
