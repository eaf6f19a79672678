"""Runs of `runs.py` in processes of their own, under the launchers that users have."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(Path(__file__).with_name("runs.py"))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def launcher(count: int, accelerate: bool = False) -> list[str]:
    """What stands before the script: nothing, `torchrun`, or `accelerate launch`."""
    if accelerate:
        several = ["--multi_gpu", "--main_process_port", str(free_port())] if count > 1 else ["--cpu"]
        several += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1"]
        return [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(count), *several]
    if count == 1:
        return [sys.executable]
    several = ["--nproc_per_node", str(count), "--master_port", str(free_port())]
    return [sys.executable, "-m", "torch.distributed.run", *several]


def begun(out: Path, *given: str, count: int = 1, accelerate: bool = False) -> subprocess.Popen[str]:
    """A run that has begun."""
    return subprocess.Popen(
        [*launcher(count, accelerate), SCRIPT, str(out), *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


@dataclass(frozen=True)
class Done:
    """What a run left: of every process what it found, and the weights."""

    found: list[dict[str, Any]]
    weights: dict[str, torch.Tensor]


def read(out: Path, count: int) -> Done:
    found = [json.loads(Path(f"{out}.{rank}.json").read_text()) for rank in range(count)]
    return Done(found, torch.load(out, weights_only=True))


def run(out: Path, *given: str, count: int = 1, accelerate: bool = False) -> Done:
    """A whole run."""
    process = begun(out, *given, count=count, accelerate=accelerate)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told
    return read(out, count)


def killed(out: Path, directory: Path, times: int, seed: int, *given: str, count: int = 1) -> Done:
    """A run that is killed so many times, each after a few more checkpoints, and taken up again."""
    given = (*given, f'checkpoints="{directory}"', "resume=true", "checkpoint_every=1")
    chance = random.Random(seed)
    for _ in range(times):
        process = begun(out, *given, count=count)
        kill_after(process, directory, newest(directory) + chance.randint(1, 4), chance.random() * 0.02)
    return run(out, *given, count=count)


def newest(directory: Path) -> int:
    return max((int(path.name[5:]) for path in directory.glob("step-*")), default=0)


def kill_after(process: subprocess.Popen[str], directory: Path, step: int, seconds: float) -> None:
    """SIGKILL to all processes of a run once its checkpoint of a step is there, and a moment later."""
    while process.poll() is None and newest(directory) < step:
        time.sleep(0.001)
    time.sleep(seconds)
    assert process.poll() is None, process.communicate()[0]
    all_ = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in all_:
        one.kill()
    psutil.wait_procs(all_, timeout=30)
    process.communicate()
