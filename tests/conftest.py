"""What every test starts from: one thread, fixed seeds, no network, and a torchvision that can be imported."""

from __future__ import annotations

import os
import random

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

import numpy as np
import pytest
import torch

from benchmarks import torchvision_cpu

TORCHVISION = torchvision_cpu.DECLARED  # must exist before the first test imports torchvision, and as long as tests run

torch.set_num_threads(1)  # one per worker of pytest-xdist


@pytest.fixture(autouse=True, scope="session")
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["SURGERY_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (libraries that draw from the global generator)
    torch.manual_seed(0)
