"""How the demo trains its net, masks it and asks it for answers. Nothing here is special: any training would do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from surgery.demo.digits import Digits
from surgery.progress import track

BATCH = 64


def train_(model: nn.Module, digits: Digits, *, epochs: int, learning_rate: float, seed: int, what: str) -> None:
    """AdamW under a one-cycle schedule (Smith, 2018); leaves the model in eval mode.

    Masks of `torch.nn.utils.prune` stay in force: their hooks multiply them in before every call.

    Args:
        model: `[n, 1, 8, 8] -> [n, 10]`.
        digits: What to learn from.
        epochs: Times that every picture is seen.
        learning_rate: The highest of the cycle.
        seed: Of the order of the pictures.
        what: What the progress bar says.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    steps = len(digits.pictures) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps)
    model.train()
    for _ in track(range(epochs), what):
        order = torch.randperm(len(digits.pictures), generator=generator)
        for batch in order[: steps * BATCH].split(BATCH):
            loss = F.cross_entropy(model(digits.pictures[batch]), digits.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def mask_half_(model: nn.Module) -> None:
    """Mask the half of every convolution's filters with the smallest norm, layer by layer; the hooks stay in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            prune.ln_structured(module, "weight", amount=0.5, n=2, dim=0)


def scores(model: nn.Module, pictures: Tensor) -> Tensor:
    """What the model answers: `[n, 1, 8, 8] -> [n, 10]`."""
    with torch.no_grad():
        answer: Tensor = model(pictures)
    return answer


def accuracy(answer: Tensor, labels: Tensor) -> float:
    """The share of pictures whose highest score `[n, 10]` is at their label `[n]`, from 0 to 1."""
    return float((answer.argmax(1) == labels).double().mean())
