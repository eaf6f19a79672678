from __future__ import annotations

import re

import pytest

from tests.cli.conftest import IMAGE, CommandLine
from tests.targeting.stand_in import StandIn, stand_in

assert stand_in  # a fixture

DATA = """
import torch


def batches():
    torch.manual_seed(1)
    return [(torch.randn(4, 3, 9, 9), torch.zeros(4)) for _ in range(8)]


def first_score(model):
    with torch.no_grad():
        return model(batches()[0][0])[0, 0]


def squares(outputs, targets):
    return (outputs - targets[:, None]).square().mean()


def none():
    return []
"""


@pytest.fixture(autouse=True)
def _data(surgery: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    (surgery.place / "prune_data.py").write_text(DATA)
    monkeypatch.syspath_prepend(str(surgery.place))
    monkeypatch.delitem(__import__("sys").modules, "prune_data", raising=False)


def test_the_ladder_and_what_is_written(surgery: CommandLine) -> None:
    told = ("--data", "prune_data:batches", "--evaluate", "prune_data:first_score", "--keep", "0.5")
    ran = surgery("prune", "cli_zoo:dense", *IMAGE, *told, "-o", "slim", "--export", "onnx", "--json")
    assert ran.code == 0
    assert ran.data["command"] == "prune"
    ladder = ran.data["compensated"]["ladder"]
    assert [rung["name"] for rung in ladder] == ["fold", "bias", "lstsq", "batchnorm"]
    assert ladder[2]["error"] < ladder[0]["error"]
    assert all(rung["evaluated"] is not None for rung in ladder)
    assert ran.data["params_after"] < ran.data["params_before"]
    assert {path.name for path in (surgery.place / "slim").iterdir()} >= {"model.safetensors", "model.onnx"}


def test_some_rungs_in_words(surgery: CommandLine) -> None:
    ran = surgery("prune", "cli_zoo:dense", *IMAGE, "--data", "prune_data:batches", "--rung", "lstsq")
    assert ran.code == 0
    assert "least squares" in ran.out
    assert "mean-activation bias" not in ran.out
    assert "proof passed" in ran.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--data", "prune_data:none"), "the data is empty"),
        (("--rung", "all"), "unknown rung 'all'"),
        (("--export", "onnx"), "--export keeps a file in the directory"),
        (("--keep", "0"), "keep_ratio is 0"),
    ],
)
def test_bad_words(surgery: CommandLine, words: tuple[str, ...], told: str) -> None:
    ran = surgery("prune", "cli_zoo:dense", *IMAGE, *words)
    assert ran.code == 2
    assert told in ran.error


def test_everything_that_choose_takes_is_there(surgery: CommandLine) -> None:
    told = ("--data", "prune_data:batches", "--importance", "taylor", "--loss", "prune_data:squares", "--macs", "60%")
    ran = surgery("prune", "cli_zoo:dense", *IMAGE, *told, "--protect", "head", "--rung", "bias", "--json")
    assert ran.code == 0, ran.err
    assert ran.data["macs_after"] <= 0.6 * ran.data["macs_before"]
    ran = surgery("prune", "cli_zoo:dense", *IMAGE, "--macs", "60%", "--keep", "0.5")
    assert (ran.code, ran.error.partition("\n")[0]) == (2, "error: 2 budgets were given: keep_ratio, macs")


def test_a_latency_is_a_budget(surgery: CommandLine, stand_in: StandIn) -> None:
    asked = ("--latency", "80%", "--runtime", "onnxruntime", "--threads", "2")
    ran = surgery("prune", "cli_zoo:dense", *IMAGE, *asked, "--report", "page.html", "-o", "slim", "--json")
    assert ran.code == 0, ran.err
    aim = ran.data["aim"]
    assert (aim["asked"], aim["runtime"], aim["threads"]) == ("80%", "onnxruntime", 2)
    assert abs(aim["share"] / 0.8 - 1) <= 0.05
    assert "Latency, 80% asked for" in (surgery.place / "page.html").read_text()
    ran = surgery("choose", "cli_zoo:dense", *IMAGE, "--latency", "0.8", "--same-share", "-o", "plan.json")
    assert ran.code == 0, ran.err
    assert "within 5 % of it" in ran.out


def test_a_latency_that_cannot_be_is_refused(surgery: CommandLine, stand_in: StandIn) -> None:
    ran = surgery("choose", "cli_zoo:dense", *IMAGE, "--latency", "1us", "-o", "plan.json")
    assert ran.code == 2
    assert "cannot be reached in eager: with all that may go gone" in ran.error
    assert not (surgery.place / "plan.json").exists()


DEEP = """
import torch

from tests.depth_nets import tokens


def model():
    return tokens()


def data():
    return [torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(1))]
"""


def test_whole_blocks(surgery: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    (surgery.place / "deep_zoo.py").write_text(DEEP)
    monkeypatch.delitem(__import__("sys").modules, "deep_zoo", raising=False)
    given = ("deep_zoo:model", "--input", "2x7x5")
    chosen = surgery("choose", *given, "--depth", "2", "--data", "deep_zoo:data", "-o", "plan.json", "--json")
    assert chosen.code == 0
    assert len(chosen.data["removed_modules"]) == 2
    shrunk = surgery("shrink", *given, "--plan", "plan.json", "-o", "slim", "--json")
    assert shrunk.data["removed_modules"] == chosen.data["removed_modules"]
    assert shrunk.data["proof"]["passed"]
    share = surgery("prune", *given, "--depth", "0.5", "--report", "page.html")
    assert share.code == 0
    told = re.search(r"2 modules went as a whole: (\S+), (\S+)", share.out)
    assert told is not None
    page = (surgery.place / "page.html").read_text().replace("<wbr>", "")
    assert f"As a whole went {told[1]}, {told[2]}." in page
    assert page.count(">went as a whole<") == 2
    again = surgery("shrink", "deep_zoo:model", "--input", "2x7x5", "--depth")
    assert "nothing was removed" in again.out
    assert surgery("prune", *given, "--depth", "many").code == 2
