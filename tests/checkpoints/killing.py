"""Run as a script: save over a saved directory again and again, each time killed at another point; say what is left.

    python killing.py DIRECTORY

Prints one JSON line per point: what was about to happen, and whether the old or the new model can be loaded.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import surgery
from surgery.checkpoints import directories, load, save, saving

CALLS: list[str] = []


def killed_at(number: int, half_way: bool) -> None:
    """Kill this process before the given call of those that change something on disk, or in the midst of a write."""

    def watched(owner: Any, name: str, midst: Callable[..., None] | None = None) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            CALLS.append(name)
            if len(CALLS) == number:
                if half_way and midst is not None:
                    midst(*args)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, call)

    watched(Path, "mkdir")
    watched(saving, "save_file", lambda _tensors, path: Path(path).write_bytes(b"half"))
    watched(Path, "write_bytes", lambda path, data: os.write(os.open(path, os.O_CREAT | os.O_WRONLY), data[:9]))
    watched(saving.shutil, "copymode")
    watched(saving.shutil, "copyfile", lambda _source, path: Path(path).write_bytes(b"half"))
    watched(os, "fsync")
    watched(directories, "_exchange")
    watched(Path, "rename")
    watched(Path, "unlink")
    watched(Path, "rmdir")


def make() -> nn.Module:
    return nn.Linear(2, 2)


def main(directory: Path) -> None:
    cut = surgery.shrink(make(), torch.rand(2, 2), prove=False)
    with tempfile.TemporaryDirectory() as exported:
        export = surgery.export(cut.model, Path(exported) / "model.pt", torch.rand(2, 2))
        tell(directory, cut, export)


def tell(directory: Path, cut: surgery.Result, export: surgery.Export) -> None:
    old, new = make(), make()
    models = {"old": old, "new": new}
    target = directory / "slim"
    beside = directory / "notes.txt"
    beside.write_text("mine")
    for way, exists in (("swap", True), ("move", True), ("", False)):
        if way == "move":
            directories._exchange = lambda one, other: False
        for number in range(1, 100):
            for half_way in (False, True):
                shutil.rmtree(directory)
                directory.mkdir()
                beside.write_text("mine")
                if exists:
                    save(replace(cut, model=old), target, exports=[export])
                if (child := os.fork()) == 0:
                    killed_at(number, half_way)
                    save(replace(cut, model=new), target, exports=[export], overwrite=True)
                    os._exit(0)
                _, status = os.waitpid(child, 0)
                seen = target.exists()
                try:
                    weight = load(target, make).weight
                    left = next((name for name, model in models.items() if torch.equal(weight, model.weight)), "?")
                except surgery.errors.InputError as error:
                    left = str(error)
                whole = sorted(path.name for path in target.iterdir()) if target.exists() else []
                report = {"way": way, "exists": exists, "number": number, "seen": seen, "left": left, "whole": whole}
                save(replace(cut, model=new), target, exports=[export], overwrite=True)  # the next one works
                after = load(target, make).weight
                report |= {"next": torch.equal(after, new.weight), "mine": beside.read_text()}
                sys.stdout.write(json.dumps(report | {"killed": os.WIFSIGNALED(status)}) + "\n")
                sys.stdout.flush()
            if not os.WIFSIGNALED(status):
                break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
