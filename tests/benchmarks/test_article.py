"""The article's experiments: what is learnt, who is compared with whom, and that the page says what was measured."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import article, article_tasks, readme
from benchmarks.article_curves import CURVES, STEP, curves, trained
from benchmarks.article_picture import pictures
from benchmarks.article_table import claims, no_worse, table
from benchmarks.article_tasks import digits, downloaded
from benchmarks.article_things import _Made
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.latency import Benchmark
from surgery.latency.machine import this_machine
from surgery.latency.results import Cell, Row, Settings
from surgery.proof.cost import macs


def test_what_is_learnt_from_is_not_what_judges() -> None:
    task = digits()
    learnt = {bytes(one.numpy().tobytes()) for one in task.pictures}
    assert not any(bytes(one.numpy().tobytes()) in learnt for one in task.test_pictures)
    assert len(task.labels) > 2 * len(task.test_labels) > 800


def test_the_other_architecture_has_no_more_to_multiply(tmp_path: Path) -> None:
    task = digits()
    made = _Made(task, task.net(), 0, tmp_path)
    inputs = Inputs.of(task.example)
    for share in article.SHARES:
        smaller = task.smaller(made._width(share))
        assert 0.8 * share < macs(smaller, inputs) / macs(made.dense, inputs) <= share


def test_mnist_is_read_as_torchvision_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 10)):
        pictures = bytes(count * 28 * 28 - 1) + bytes([255])
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, count, 28, 28) + pictures)
        labels = bytes(n % 10 for n in range(count))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, count) + labels)
    monkeypatch.setattr(article_tasks, "ROOT", tmp_path)
    task = downloaded("mnist")
    assert task.pictures.shape == (30, 1, 28, 28)
    assert task.labels[:3].tolist() == [0, 1, 2]
    assert (task.pictures.min(), task.pictures.max()) == (-2, 2)
    assert task.net()(task.example).shape == (10, 10)
    assert task.smaller(0.5)(task.example).shape == (10, 10)


def test_data_that_cannot_be_had_is_refused_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(article_tasks, "ROOT", tmp_path)
    monkeypatch.setattr(datasets, "CIFAR10", refuse)
    with pytest.raises(InputError, match=r"could not be downloaded: .*no route to host") as refused:
        downloaded("cifar10")
    assert "--data digits" in refused.value.way_out


def test_every_curve_has_every_level() -> None:
    task = dataclasses.replace(digits(), epochs=1, tuning=1)
    task = dataclasses.replace(task, pictures=task.pictures[:256], labels=task.labels[:256])
    dense, early = trained(task, 0, 1)
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    points = list(curves(task, dense, early, 0, 2))
    assert {(one["curve"], one["level"]) for one in points} == {(curve, level) for curve in CURVES for level in (1, 2)}
    assert [one["amount"] for one in points if one["curve"] == "iterative"] == [1 - 1 / STEP, 1 - 1 / STEP**2]
    torch.testing.assert_close(dict(dense.state_dict()), before)


def timed(**latency: float) -> dict[str, Any]:
    """A benchmark of nets that take so many milliseconds, in every runtime."""
    names = {"masked": "masked channels 0.2", "cut": "their cut 0.2"}
    rows = tuple(
        Row(names.get(name, name), tuple(ms * (1 + 1e-4 * n) for n in range(30)), (ms,) * 30)
        for name, ms in latency.items()
    )
    cells = tuple(
        Cell(runtime, 1, "cpu", 4, rows, sittings=(15, 15)) for runtime in ("eager", "torchscript", "onnxruntime")
    )
    settings = Settings(("eager",), (1,), None, ("cpu",), 30, 1.0, 1.0, 0)
    loaded: dict[str, Any] = json.loads(Benchmark(this_machine(), settings, cells, 0.1, 0.1).to_json())
    return loaded


def facts(ways: dict[str, tuple[float, float]] | None = None, hooks: float = 2.3, **accuracy: float) -> dict[str, Any]:
    """Two seeds and levels; the accuracy of a curve is 0.9 where none is given; `ways`: accuracy and latency."""
    names = {curve: curve.replace(", ", "_").replace("-", "_") for curve in CURVES}
    points = [
        {"curve": curve, "level": level, "accuracy": accuracy.get(names[curve], 0.9), "seed": seed}
        for curve in CURVES for level in (1, 2) for seed in (0, 1)
    ]  # fmt: skip
    ways = ways or {"nothing": (0.9, 1.0), "int8 only": (0.9, 0.4), "prune + distil + int8": (0.895, 0.04)}
    things = [
        {"way": way, "model": "m", "runtime": "eager", "accuracy": right, "seed": seed, "latency": latency,
         "share": 0.2 if "prune" in way else None, "size_bytes": 1000}
        for way, (right, latency) in ways.items() for seed in (0, 1)
    ]  # fmt: skip
    one = timed(dense=2.0, baked=2.0, hooks=hooks, masked=2.0, cut=1.0)
    return {
        "machine": "here", "data": "digits", "batch": 4, "train": 100, "test": 100, "epochs": 2, "tuning": 1,
        "dense": [{"seed": 0, "accuracy": 0.9}, {"seed": 1, "accuracy": 0.9}], "points": points, "things": things,
        "benchmarks": [{"seed": seed, "benchmark": one} for seed in (0, 1)],
    }  # fmt: skip


def verdicts(given: dict[str, Any]) -> dict[str, bool]:
    return {claim: verdict == "held" for claim, verdict, _ in claims(given)}


def test_claims_hold_where_nothing_is_lost_and_the_cut_is_faster() -> None:
    assert all(verdicts(facts()).values())
    assert len(verdicts(facts())) == 9


@pytest.mark.parametrize(
    ("given", "claim"),
    [
        (facts(one_shot=0.8), "magnitude pruning: 3× fewer parameters without loss"),
        (facts(iterative=0.8, ticket=0.8, one_shot_long=0.8), "iterative pruning is at least as good as one-shot"),
        (facts(ticket=0.95, mask=0.95), "a lottery ticket is as good as iterative pruning"),
        (facts(ticket=0.8), "a lottery ticket is as good as iterative pruning"),
        (facts(mask=0.8), "a ticket from a mask found once works from the start"),
        (facts(hooks=2.0), "with the hooks of the masks slower"),
        (
            facts({"nothing": (0.9, 1.0), "prune": (0.9, 0.01), "prune + distil + int8": (0.8, 0.001)}),
            "pruning, distillation and int8 together are the fastest without loss",
        ),
    ],
)
def test_a_claim_that_does_not_hold_is_said_not_to(given: dict[str, Any], claim: str) -> None:
    assert [name for name, held in verdicts(given).items() if not held] == [claim]
    assert f"| {claim} | **did not hold** |" in table(given)


def test_the_best_within_each_latency_is_named() -> None:
    (told,) = [figures for claim, _, figures in claims(facts()) if "fastest" in claim]
    best = "prune + distil + int8 20% (89.50 at 0.040)"
    assert told.startswith(f"without loss: {best}; within 50%: int8 only (90.00 at 0.400); within 20%: {best};")


def test_no_worse_is_within_the_spread_or_one_sample() -> None:
    assert no_worse([0.0, -0.002], 0.002)
    assert no_worse([-0.02, 0.01], 0.002)
    assert not no_worse([-0.02, -0.021], 0.002)


def test_pictures_are_drawn_beside_the_results(tmp_path: Path) -> None:
    drawn = pictures(facts(), tmp_path / "a.json")
    assert [path.name for path, _ in drawn] == ["a_curves.png", "a_things.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path, _ in drawn)


def test_the_report_page_shows_the_pictures(tmp_path: Path) -> None:
    page = article.reported(facts(), pictures(facts(), tmp_path / "a.json"), tmp_path / "a.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "Accuracy against measured latency" in page


def test_the_page_says_what_was_measured() -> None:
    found = json.loads(article.RESULTS.read_text())
    assert {one["seed"] for one in found["dense"]} == set(article.SEEDS)
    assert {one["level"] for one in found["points"]} == set(range(1, article.LEVELS + 1))
    assert table(found) in readme.PAGE.read_text()
    assert all(article.RESULTS.with_name(name).exists() for name in ("article_curves.png", "article_things.png"))
