"""How much memory a plan takes beside the checkpoint that it is made from, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

LAYERS, WIDTH = 24, 2048

CODE = """
import json, resource, sys
import torch
from torch import nn
import surgery

width, layers, where = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def make(width, layers):
    with torch.device("meta"):
        parts = [part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU())]
        return nn.Sequential(*parts, nn.Linear(width, 3))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

small = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
surgery.choose(small, torch.ones(1, 8))  # what is imported on the way
before = peak()
plan = surgery.choose(make(width, layers), torch.ones(1, width), checkpoint=where, importance=sys.argv[4])
print(json.dumps({"rise": peak() - before, "removed": plan.removed_channels}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["l2", "fpgm"])
def test_no_more_than_a_few_of_the_largest_tensors(importance: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    largest = WIDTH * WIDTH * 4
    for number in range(0, 2 * LAYERS, 2):
        weight = torch.randn(WIDTH, WIDTH) / 50
        weight[torch.rand(WIDTH) < 0.1] = 0
        weight.view(-1)[::997] = 0  # zeros that are no rows
        tensors = {f"{number}.weight": weight, f"{number}.bias": torch.randn(WIDTH)}
        save_file(tensors, tmp_path / f"model-{number // 2 + 1:05d}-of-{LAYERS + 1:05d}.safetensors")
    last = {f"{2 * LAYERS}.weight": torch.randn(3, WIDTH), f"{2 * LAYERS}.bias": torch.zeros(3)}
    save_file(last, tmp_path / f"model-{LAYERS + 1:05d}-of-{LAYERS + 1:05d}.safetensors")
    words = [str(WIDTH), str(LAYERS), str(tmp_path), importance]
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["removed"] > LAYERS * WIDTH * 0.4
    assert LAYERS * largest > 400e6
    assert found["rise"] < 8 * largest  # a third of the checkpoint; FPGM has the distances of all rows, too
