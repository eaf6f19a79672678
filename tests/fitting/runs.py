"""What tests run in processes of their own: `python runs.py OUT CASE [SETTING=JSON ...]`, under a launcher or without.

Writes the losses and the weights of process 0 to OUT, and what every process found out to OUT.<rank>.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import surgery
import surgery.errors


def samples(count: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 8, generator=generator, dtype=torch.float64)
    return x, x[:, :3].argmax(1)


def plain(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)]
    return nn.Sequential(*layers).double()


def normed() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)]
    return nn.Sequential(*layers).double()


def loader(count: int = 50, batch: int = 8) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*samples(count)), batch_size=batch, shuffle=True)


def accuracy(model: nn.Module) -> float:
    x, y = samples()
    return float((model(x).argmax(1) == y).double().mean())


class Breaking(TensorDataset):
    """A data set whose sample 33 cannot be read."""

    def __getitem__(self, index: Any) -> Any:
        if index == 33:
            raise OSError("sample 33 is gone")
        return super().__getitem__(index)


class Partly(nn.Module):
    """A layer that is never called, one that is frozen, and a weight that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.idle, self.frozen = nn.Linear(8, 3), nn.Linear(8, 8).requires_grad_(False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.second(self.first(self.frozen(x)).relu()).relu())
        return found


MODELS = {"plain": plain, "normed": normed, "partly": lambda: Partly().double(), "dropout": lambda: plain(0.5)}
DATA = {
    "loader": loader,
    "rows": lambda: [(x, y) for x, y in zip(*(one.split(7) for one in samples()), strict=True)],
    "broken": lambda: DataLoader(Breaking(*samples()), batch_size=8),
}
SCHEDULES = {
    None: None,
    "gradual": surgery.Gradual(0.6, updates=2, how=surgery.Structured()),
    "iterative": surgery.Iterative(0.5, prunings=2, how=surgery.Structured()),
    "masks": surgery.Iterative(0.5, prunings=2),
    "ticket": surgery.LotteryTicket(0.5, prunings=2),
}


def sharding() -> Any:
    """Accelerate's FSDP2 on CPUs: it shards well there, but asks for a GPU before it does."""
    from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState, PartialState

    made = Accelerator(cpu=True)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="size_based_wrap", min_num_params=40, cpu_ram_efficient_loading=False
    )
    AcceleratorState._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    return made


def broken(*_: Any) -> Any:
    raise RuntimeError("only here")


def main(out: str, *given: str) -> None:
    told: dict[str, Any] = dict(one.split("=", 1) for one in given)
    told = {name: json.loads(value) for name, value in told.items()}
    model = MODELS[told.pop("model", "plain")]()
    data = DATA[told.pop("data", "loader")]()
    settings = {"epochs": 2, "lr": 0.01, "schedule": SCHEDULES[told.pop("schedule", None)], **told}
    if settings.pop("evaluate", False):
        settings["evaluate"] = accuracy
    if settings.pop("teacher", False):
        settings["teacher"] = plain()
    if (momentum := settings.pop("momentum", None)) is not None:
        settings["optimizer"] = lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=momentum)
    if settings.pop("sharded", False):
        settings["accelerator"] = sharding()
    rank, breaks = int(os.environ.get("RANK", "0")), settings.pop("breaks", None)
    loss: Any = nn.functional.cross_entropy
    if rank == 1 and breaks == "evaluate":
        settings["evaluate"] = broken
    if rank == 1 and breaks == "loss":
        loss = broken
    if settings.pop("tells", False):
        try:
            surgery.fit(model, data, loss, **settings)
        except surgery.errors.SurgeryError as error:
            Path(f"{out}.{rank}.txt").write_text(str(error))
            time.sleep(2)  # the launcher ends the others when the first is gone
            raise
    fitted = surgery.fit(model, data, loss, **settings)
    found = fitted.as_dict() | {
        "type": type(fitted.model).__name__,
        "kinds": sorted({type(p).__name__ for p in fitted.model.parameters()}),
        "sum": sum(float(p.sum()) for p in fitted.model.state_dict().values()),
    }
    Path(f"{out}.{rank}.json").write_text(json.dumps(found))
    if rank == 0:
        torch.save(fitted.model.state_dict(), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
