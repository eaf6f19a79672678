"""What the tests of the callbacks train: tiny nets in the frameworks' own loops."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import surgery

STEPS = 8
"""Two of them an epoch."""

SCHEDULES = {
    "gradual cuts": surgery.Gradual(0.5, how=surgery.Structured(), updates=3),
    "cuts in rounds": surgery.Iterative(0.5, how=surgery.Structured(), prunings=2),
    "gradual masks": surgery.Gradual(0.8, updates=3),
    "masks at once": surgery.OneShot(0.6),
    "masked channels": surgery.OneShot(0.5, how=surgery.Structured(cut=False)),
    "ticket": surgery.LotteryTicket(0.6, prunings=2),
    "ticket of channels": surgery.LotteryTicket(0.5, how=surgery.Structured(), prunings=1),
}
CUTS = {"gradual cuts", "cuts in rounds", "ticket of channels"}


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def images() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(32, 3, 9, 9, generator=generator), torch.arange(32) % 5)
    return DataLoader(data, batch_size=16)


def classifier(pl: Any) -> Any:
    """A LightningModule of `lightning.pytorch` or `pytorch_lightning`, with AdamW and a cosine."""

    class Classifier(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = convolutions()
            self.losses: list[float] = []

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, index: int) -> Tensor:
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.losses.append(float(loss.detach()))
            return loss

        def test_step(self, batch: Any, index: int) -> None:
            self.log("loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

        def predict_step(self, batch: Any, index: int) -> Tensor:
            return self(batch[0])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), 1e-2)
            rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    return Classifier()


def trainer(pl: Any, callbacks: list[Any], place: Path | None = None, **settings: Any) -> Any:
    """A Trainer of eight steps; with a place, a checkpoint after each and a log in CSV."""
    if place is not None:
        saving = pl.callbacks.ModelCheckpoint(place, "{step}", every_n_train_steps=1, save_top_k=-1)
        settings = {"logger": pl.loggers.CSVLogger(place), **settings, "callbacks": [*callbacks, saving]}
    else:
        settings = {"logger": False, "enable_checkpointing": False, **settings, "callbacks": callbacks}
    return pl.Trainer(
        **{"max_epochs": STEPS // 2, **settings},
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice, and what torch says of Lightning's code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*Experiment logs directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need to be provided.*")
        warnings.filterwarnings("ignore", ".*You're resuming from a checkpoint that ended before the epoch ended.*")
        yield
