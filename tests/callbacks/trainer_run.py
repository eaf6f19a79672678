"""A script for `torchrun`: transformers' Trainer on two processes, `trainer_run.py SCHEDULE FOLDER`."""

# ruff: noqa: E402, F401, I001 (torchvision is made importable before anything asks for it)
from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
warnings.simplefilter("ignore")
os.environ["HF_HUB_OFFLINE"] = "1"

from benchmarks import torchvision_cpu

import torch

from surgery.callbacks.transformers import PruningCallback
from surgery.errors import InputError
from tests.callbacks.loops import SCHEDULES
from tests.callbacks.test_transformers import bert, trainer

if __name__ == "__main__":
    model, place = bert(), Path(sys.argv[2])
    run = trainer(model, PruningCallback(SCHEDULES[sys.argv[1]]), place / "out", gradient_accumulation_steps=1)
    try:
        run.train()
    except InputError as error:
        (place / f"refused-{os.environ['RANK']}").write_text(str(error))
    else:
        torch.save(model.state_dict(), place / f"net-{os.environ['RANK']}.pt")
