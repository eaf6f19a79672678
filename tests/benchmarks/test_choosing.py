"""The benchmark of ways to choose: its tasks, its peer, its table, and that the page says what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import choosing, choosing_table, readme
from benchmarks.choosing_peer import pruned_by_peer
from benchmarks.choosing_tasks import KINDS, TASKS, kinds_of
from surgery.inputs import Inputs
from surgery.proof.cost import macs


def test_bytes_of_source_are_labelled_by_what_they_are_part_of() -> None:
    text = 'def f(x):  # two\n    return x + 1.5, "a"\n'
    marks = "".join(" knNsco"[kind] for kind in kinds_of(text).tolist())
    assert marks == "kkk nonoo  ccccc\n    kkkkkk n o NNNo sss\n".replace("\n", " ")


@pytest.mark.parametrize("name", list(TASKS))
def test_tasks_hold_apart_what_they_learn_from_and_what_judges(name: str) -> None:
    task = TASKS[name]()
    assert len(task.inputs) == len(task.targets) > len(task.test_inputs) > 400
    learnt = {bytes(sample.flatten().numpy().tobytes()) for sample in task.inputs}
    seen = sum(bytes(sample.flatten().numpy().tobytes()) in learnt for sample in task.test_inputs)
    assert seen < 0.02 * len(task.test_inputs)  # a licence, or a line of dashes
    net = task.make()
    assert net(task.example).shape[:-1] == task.targets[: task.batch].shape
    counts = torch.bincount(task.targets.flatten(), minlength=len(KINDS))
    assert counts.max() < 0.5 * counts.sum()


@pytest.mark.parametrize("importance", ["l2", "taylor"])
@pytest.mark.parametrize("name", list(TASKS))
def test_the_peers_pruner_comes_within_one_percent(name: str, importance: str) -> None:
    task = TASKS[name]()
    net = task.make().eval()
    whole = macs(net, Inputs.of(task.example))
    slim = pruned_by_peer(task, net, whole // 2, importance, 64)
    assert macs(slim, Inputs.of(task.example)) == pytest.approx(whole / 2, rel=0.01)
    assert slim(task.example).shape == net(task.example).shape


def line(way: str, seed: int, tuned: float, **more: Any) -> dict[str, Any]:
    ladder = {} if way.startswith("torch") else {"cut with ladder": 0.5, "tuned with ladder": tuned}
    return {
        "task": "t", "seed": seed, "level": 0.5, "way": way, "dense": 0.9, "share_of_macs": 0.4, "cut": 0.3,
        "tuned": tuned, "latency": 0.52, "off": 0.0, **ladder, **more,
    }  # fmt: skip


def test_the_table_says_where_ours_is_not_the_best(tmp_path: Path) -> None:
    lines = [line("latency-aware", 0, 0.8), line("latency-aware", 1, 0.82), line("uniform", 0, 0.85)]
    lines += [line("uniform", 1, 0.85), line("torch-pruning l2", 0, 0.7), line("torch-pruning l2", 1, 0.9, off=0.3)]
    facts = {"machine": "here", "runtime": "onnxruntime", "lines": lines}
    text = choosing_table.table(facts)
    assert "| t | 0.400 ± 0.000 | **latency-aware** | 0.520 ± 0.000 | 30.00 ± 0.00 | 50.00 ± 0.00 | 81.00" in text
    assert "torch-pruning l2† | 0.520 | 30.00 | – | 70.00 | – |" in text  # the seed that is far off is not in it
    assert "81.00 %, the best of ours 85.00 % (uniform); torch-pruning 70.00 % (l2)." in text
    choosing_table.picture(facts, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_says_what_was_measured() -> None:
    facts = json.loads(choosing.RESULTS.read_text())
    assert {(one["task"], one["seed"]) for one in facts["lines"]} == {(t, s) for t in TASKS for s in choosing.SEEDS}
    assert all(abs(one["off"]) < 0.5 for one in facts["lines"] if "off" in one)
    assert choosing_table.table(facts) in readme.PAGE.read_text()
    assert choosing.RESULTS.with_suffix(".png").exists()
