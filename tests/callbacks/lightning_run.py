"""A script that Lightning starts on every process: `lightning_run.py SCHEDULE PROCESSES FILE`."""

# ruff: noqa: E402, F401, I001 (torchvision is made importable before anything asks for it)
from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
warnings.simplefilter("ignore")

from benchmarks import torchvision_cpu

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from surgery.callbacks.lightning import PruningCallback
from tests.callbacks.loops import SCHEDULES


class Net(pl.LightningModule):
    def __init__(self, processes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.processes = processes
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)).double()

    def training_step(self, batch: Any, index: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-2)

    def train_dataloader(self) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(1)
        data = TensorDataset(torch.randn(64, 8, generator=generator, dtype=torch.float64), torch.arange(64) % 3)
        sampler = DistributedSampler(data, self.processes, self.trainer.global_rank, shuffle=False)
        return DataLoader(data, 16 // self.processes, sampler=sampler)


def main(kind: str, processes: int, file: str) -> None:
    callback = PruningCallback(SCHEDULES[kind], module="net")
    net = Net(processes)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto",
        use_distributed_sampler=False, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback],
    )  # fmt: skip
    trainer.fit(net)
    state = net.net.state_dict()
    for value in state.values() if processes > 1 else ():
        first = trainer.strategy.broadcast(value)
        assert torch.equal(first, value), "the processes differ"
    if trainer.is_global_zero:
        torch.save({"net": state, "params": [change.params for change in callback.changes]}, file)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
