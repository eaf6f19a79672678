"""What is done to saved directories, and what `load` says of them then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from surgery.checkpoints import load
from surgery.checkpoints.directories import sha256
from surgery.checkpoints.manifest import digested
from surgery.errors import InputError
from tests.checkpoints.nets import Net

SAME = "pass the very model that it was made from, before it was shrunk"
AGAIN = "copy the whole directory again"
NOT_OURS = "name a directory that surgery.save wrote, or copy it again"


def refusal(directory: Path, model: Any = Net) -> tuple[str, str]:
    with pytest.raises(InputError, match=r".") as caught:
        load(directory, model)
    return caught.value.fact.replace(str(directory), "DIR"), caught.value.way_out


def edit(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = directory / "surgery.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_bytes(digested(json.dumps(data).encode()))


def rehash(directory: Path) -> None:
    edit(directory, lambda d: d.update(weights_sha256=sha256(directory / "model.safetensors")))


class Bomb:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def header(**tensors: Any) -> bytes:
    """A safetensors file of 16 bytes of data whose header claims anything."""
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * 16
