from __future__ import annotations

import json

import pytest

from surgery.sensitivities import Sensitivity
from tests.cli.conftest import IMAGE, CommandLine
from tests.reporting.pages import Page

MORE = """

def right(model):
    data, labels = batches()[0]
    return (model(data).argmax(1) == labels).double().mean()


calls = []


def stopped(model):
    calls.append(model)
    if len(calls) == 4:
        raise KeyboardInterrupt
    return 1.0
"""


@pytest.fixture(autouse=True)
def _more(surgery: CommandLine) -> None:
    with (surgery.place / "cli_zoo.py").open("a") as file:
        file.write(MORE)


LOSS = ("--data", "cli_zoo:batches", "--loss", "cli_zoo:loss")


def test_measured_saved_drawn_and_chosen_by(surgery: CommandLine) -> None:
    places = ("-o", "s.json", "--plot", "s.svg", "--report", "s.html")
    ran = surgery("sensitivity", "cli_zoo:dense", *IMAGE, *LOSS, "--ratios", "0.25, 0.5", *places)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("sensitivity of Net: mean loss, on 7 samples; ")
    assert ran.out.endswith("\nsaved as s.json\ndrawn in s.svg\nreport in s.html\n")
    found = Sensitivity.read(surgery.place / "s.json")
    assert [(curve.name, len(curve.points)) for curve in found.curves] == [("conv1.weight", 2), ("conv2.weight", 2)]
    assert "sensitivity" in Page((surgery.place / "s.html").read_text(encoding="utf-8")).sections

    chosen = ("--sensitivity", "s.json", "--global", "--keep", "0.5", "--json")
    ran = surgery("choose", "cli_zoo:dense", *IMAGE, *chosen)
    assert (ran.code, ran.data["removed_channels"]) == (0, 6)
    ran = surgery("prune", "cli_zoo:dense", *IMAGE, *chosen, *LOSS[:2], "--report", "p.html")
    assert ran.code == 0, ran.err
    page = Page((surgery.place / "p.html").read_text(encoding="utf-8"))
    assert {"compensated", "sensitivity"} <= set(page.sections)


def test_as_json_by_the_users_own_measure(surgery: CommandLine) -> None:
    ran = surgery("sensitivity", "cli_zoo:dense", *IMAGE, "--evaluate", "cli_zoo:right", "--protect", "head", "--json")
    assert ran.code == 0, ran.err
    found = Sensitivity.from_json(json.dumps(ran.data["sensitivity"]))
    assert found.measured == "evaluate"
    assert [curve.name for curve in found.curves] == ["conv1.weight"]


def test_ctrl_c_keeps_what_was_measured(surgery: CommandLine) -> None:
    words = ("--evaluate", "cli_zoo:stopped", "--ratios", "0.25,0.5", "-o", "s.json")
    ran = surgery("sensitivity", "cli_zoo:dense", *IMAGE, *words)
    assert ran.code == 130
    assert "interrupted: here is what was measured until now" in ran.err
    found = Sensitivity.read(surgery.place / "s.json")
    assert (found.interrupted, len(found.curves)) == (True, 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("sensitivity",),
            "error: there is nothing to measure the model by\n  -> pass --evaluate, or --data (and --loss)",
        ),
        (("sensitivity", *LOSS, "--ratios", "half"), "error: --ratios is 'half'\n  -> write shares between commas"),
        (("sensitivity", *LOSS, "--ratios", "1.5"), "error: ratios is 1.5"),
        (("sensitivity", *LOSS, "--plot", "s.png"), "error: the picture 's.png' does not end in .svg"),
        (("sensitivity", *LOSS, "-o", "cli_zoo.py"), "error: 'cli_zoo.py' exists already"),
        (("sensitivity", "--data", "cli_zoo:nothing"), "error: the data is empty"),
        (("sensitivity", "--data", "cli_zoo:wrong"), "error: Net fails on item 0 of the data ([2, 4, 9, 9])"),
        (("choose", "--sensitivity", "none.json"), "error: 'none.json' cannot be read: No such file or directory"),
        (("choose", "--sensitivity", "cli_zoo.py"), "error: 'cli_zoo.py': this is not a saved sensitivity"),
        (
            ("prune", "--sensitivity", "s.json", "--importance", "l1"),
            "error: two importances were given: l1 and 's.json'",
        ),
    ],
)
def test_bad_words(surgery: CommandLine, words: tuple[str, ...], told: str) -> None:
    command, *rest = words
    ran = surgery(command, "cli_zoo:dense", *IMAGE, *rest)
    assert (ran.code, ran.out) == (2, "")
    assert ran.error.startswith(told)
