"""`surgery recover`: slim directory + data + teacher, to a recovered slim directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgery.checkpoints import describe
from tests.cli.conftest import IMAGE, CommandLine

pytest.importorskip("accelerate")

FACTORY = ("--factory", "cli_zoo:dense")
OUT = ("-o", "out")
TRAIN = ("--data", "cli_zoo:batches", "--epochs", "2")
LOSS = ("--loss", "cli_zoo:loss")


@pytest.fixture
def slim(surgery: CommandLine) -> Path:
    assert surgery("prune", "cli_zoo:dense", *IMAGE, "--keep", "0.5", "-o", "slim").code == 0
    return surgery.place / "slim"


@pytest.fixture
def code(surgery: CommandLine) -> Path:
    """More of the user's own module."""
    path = surgery.place / "cli_zoo.py"
    path.write_text(
        path.read_text()
        + """

def few():
    yield from batches()


def lost(outputs, targets):
    return outputs.mean() * float("nan")


def mean(model):
    return float(model(batches()[0][0]).mean())


def small():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
"""
    )
    return path


def test_with_a_teacher(code: Path, surgery: CommandLine, slim: Path) -> None:
    teacher = ("--teacher", "cli_zoo:dense", "--feature", "conv1", "--temperature", "2", "--distil-weight", "0.5")
    words = ("--evaluate", "cli_zoo:mean", "--report", "page.html", "-o", "out", "--json")
    before = {path.name: path.read_bytes() for path in slim.iterdir()}
    ran = surgery("recover", "slim", *FACTORY, *TRAIN, *LOSS, *teacher, *words)
    assert ran.code == 0, ran.err
    (record,) = ran.data["training"]
    assert (record["epochs"], record["steps"], record["loss"]) == (2, 4, "loss")
    assert record["teacher"]["teacher"] == "cli_zoo:dense"
    assert (record["teacher"]["temperature"], record["teacher"]["weight"]) == (2, 0.5)
    assert record["teacher"]["features"] == ["conv1"]
    assert record["evaluate"].keys() == {"teacher", "before", "after"}
    assert len(ran.data["fitted"]["losses"]) == 4
    assert ran.data["proof"]["passed"]
    assert {path.name: path.read_bytes() for path in slim.iterdir()} == before
    saved = describe(surgery.place / "out")
    assert json.loads(json.dumps(saved.manifest.training)) == ran.data["training"]
    assert saved.plan == describe(slim).plan
    assert saved.manifest.source == "cli_zoo:dense"
    page = (surgery.place / "page.html").read_text()
    assert "with cli_zoo:dense as its teacher" in page
    assert "<h1>slim</h1>" in page
    again = surgery("explain", "out", *FACTORY, *IMAGE)
    assert again.code == 0, again.err
    assert "then trained" in again.err


def test_in_words_and_by_rounds(code: Path, surgery: CommandLine, slim: Path) -> None:
    assert surgery("prune", "slim", *FACTORY, *IMAGE, "--keep", "0.5", "-o", "twice").code == 0
    ran = surgery("recover", "twice", *FACTORY, *TRAIN, "--teacher", "slim", "--feature", "conv2", *OUT)
    assert ran.code == 0, ran.err
    assert "trained after the cut (the proof is of the cut, before training)" in ran.out
    assert "teacher: slim, temperature 4, weight 0.9, features conv2 (1)" in ran.out
    assert 'saved in out: surgery.load("out", model) loads it' in ran.out
    ran = surgery("recover", "out", *FACTORY, "--data", "cli_zoo:few", "--epochs", "2", *LOSS, *OUT, "--overwrite")
    assert ran.code == 0, ran.err
    assert len(describe(surgery.place / "out").manifest.training) == 2


def test_a_run_goes_on_from_its_checkpoints(code: Path, surgery: CommandLine, slim: Path) -> None:
    words = ("recover", "slim", *FACTORY, *TRAIN, *LOSS, "--checkpoints", "kept")
    assert surgery(*words, "-o", "out").code == 0
    ran = surgery(*words, "-o", "again")
    assert ran.code == 2
    assert "--resume to go on from it" in ran.error
    ran = surgery(*words, "--resume", "-o", "again", "--json")
    assert ran.code == 0, ran.err
    assert ran.data["fitted"]["resumed_at"] == 4
    weights = [(surgery.place / name / "model.safetensors").read_bytes() for name in ("out", "again")]
    assert weights[0] == weights[1]


def test_a_teacher_with_random_weights_is_told(code: Path, surgery: CommandLine, slim: Path) -> None:
    ran = surgery("recover", "slim", *FACTORY, "--data", "cli_zoo:batches", "--teacher", "torchvision:alexnet", *OUT)
    assert ran.code == 2
    assert "torchvision:alexnet: random weights" in ran.err
    assert "the teacher (AlexNet) fails on the student's inputs" in ran.error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "cli_zoo:none_such", *LOSS, "-o", "slim"), "'slim' exists already\n  -> pass --overwrite"),
        ((*TRAIN, *OUT), "the model's output (Tensor) holds none\n  -> pass --loss"),
        ((*TRAIN, *LOSS, "-o", "none/out"), "none' does not exist"),
        ((*TRAIN, *LOSS, "--feature", "conv1", *OUT), "--feature is about a teacher, and none is named"),
        ((*TRAIN, *LOSS, "--patience", "2", *OUT), "patience has nothing to go by\n  -> pass --evaluate"),
        ((*TRAIN, *LOSS, "--resume", *OUT), "without a directory\n  -> pass --checkpoints"),
        ((*TRAIN, "--teacher", "cli_zoo:small", *OUT), "the teacher's output is [4, 3], the student's [4, 2]"),
        ((*TRAIN, "--teacher", "cli_zoo:dense", "--feature", "conv3", *OUT), "no module 'conv3'"),
        ((*TRAIN, "--teacher", "cli_zoo:dense", "--distil-kind", "logits", *OUT), "kind is 'logits'"),
        (("--data", "cli_zoo:nothing", *LOSS, *OUT), "the data is empty"),
        ((*TRAIN, *LOSS, "--precision", "int8", *OUT), "precision is 'int8'"),
        ((*TRAIN, *LOSS), "Missing option '--output'"),
    ],
)
def test_refusals_leave_nothing(
    code: Path, surgery: CommandLine, slim: Path, words: tuple[str, ...], said: str
) -> None:
    before = sorted(path.name for path in surgery.place.iterdir())
    ran = surgery("recover", "slim", *FACTORY, *words)
    assert ran.code == 2, ran.err
    assert said in ran.error
    assert sorted(path.name for path in surgery.place.iterdir()) == before


def test_a_loss_that_is_no_number_is_a_failed_check(code: Path, surgery: CommandLine, slim: Path) -> None:
    ran = surgery("recover", "slim", *FACTORY, *TRAIN, "--loss", "cli_zoo:lost", *OUT)
    assert ran.code == 1
    assert "the loss is nan at step" in ran.error
    assert not (surgery.place / "out").exists()


def test_a_factory_must_be_named(surgery: CommandLine, slim: Path) -> None:
    ran = surgery("recover", "slim", *TRAIN, *LOSS, *OUT)
    assert ran.code == 2
    assert "name it: --factory cli_zoo:dense" in ran.error


def test_what_is_no_slim_directory(surgery: CommandLine) -> None:
    ran = surgery("recover", "cli_zoo:dense", *TRAIN, *LOSS, *OUT)
    assert ran.code == 2
    assert "there is no directory 'cli_zoo:dense'" in ran.error
