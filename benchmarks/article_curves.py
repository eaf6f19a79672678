"""The four curves of the article: accuracy against the share of the weights that is gone, under masks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import surgery
from benchmarks.article_tasks import Task

LR = 3e-3

STEP = 3**0.5
"""Each level has so many times fewer weights than the one before: every second one is a power of 3."""

CURVES = {
    "one-shot": "one-shot, tuned",
    "one-shot, long": "one-shot, tuned as long as iterative",
    "iterative": "iterative",
    "ticket": "lottery ticket",
    "mask": "ticket from a mask found once",
}


def trained(task: Task, seed: int, epochs: int) -> tuple[nn.Module, Mapping[str, Tensor]]:
    """A net, and what it was before it was trained."""
    torch.manual_seed(seed)
    net = task.net()
    early = copy.deepcopy(net.state_dict())
    tuned_(net, task, seed, epochs)
    return net, early


def tuned_(net: nn.Module, task: Task, seed: int, epochs: int, **more: Any) -> surgery.Fitted:
    """Train a net in place, the same way in all of the benchmark."""
    more |= {"lr": LR, "lr_schedule": "onecycle"}
    return surgery.fit(net, task.loader(seed), F.cross_entropy, epochs=epochs, seed=seed, **more)


def curves(
    task: Task, dense: nn.Module, early: Mapping[str, Tensor], seed: int, levels: int
) -> Iterator[dict[str, Any]]:
    """A line for every point: the curve, how many times fewer weights, the accuracy."""
    amounts = [1 - STEP**-level for level in range(1, levels + 1)]
    for level, amount in enumerate(amounts, 1):
        for name, times in (("one-shot", 1), ("one-shot, long", level)):
            net = copy.deepcopy(dense)
            # the learning rate starts anew as often as in iterative pruning
            for turn in range(times):
                tuned_(net, task, seed + turn, task.tuning, schedule=surgery.OneShot(amount))
            yield _point(name, level, amount, task.accuracy(net.eval()), seed)
        net = copy.deepcopy(dense)
        tuned_(net, task, seed, task.epochs, schedule=surgery.LotteryTicket(amount, 1, early=early))
        yield _point("mask", level, amount, task.accuracy(net.eval()), seed)
    for name, schedule, epochs in (
        ("iterative", surgery.Iterative(amounts[-1], levels), task.tuning),
        ("ticket", surgery.LotteryTicket(amounts[-1], levels, early=early), task.epochs),
    ):
        done = tuned_(copy.deepcopy(dense), task, seed, epochs, schedule=schedule, evaluate=task.accuracy)
        last = {epoch.round: epoch.value for epoch in done.epochs}  # of the last epoch of each round
        for level, amount in enumerate(amounts, 1):
            yield _point(name, level, amount, last[level - 1], seed)


def _point(curve: str, level: int, amount: float, accuracy: float | None, seed: int) -> dict[str, Any]:
    print(f"  {CURVES[curve]}, {STEP**level:.3g} times fewer: {accuracy:.2%}", flush=True)
    return {"curve": curve, "level": level, "amount": amount, "accuracy": accuracy, "seed": seed}


def at_level(points: Sequence[Mapping[str, Any]], curve: str, level: int) -> dict[int, float]:
    """The accuracy of a curve at a level, by seed."""
    return {one["seed"]: one["accuracy"] for one in points if one["curve"] == curve and one["level"] == level}
