"""Trainings to write pages of, with numbers that a reader can follow."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from surgery.fitting.result import Epoch, Fitted
from surgery.plans import Plan
from surgery.proof.prove import Proof
from surgery.recovering import Recovered
from surgery.schedules import Change
from tests.reporting.pages import stranded_result

STEPS, EPOCHS, ROUNDS = 20, 3, 2
"""Steps of an epoch, epochs of a round, rounds."""

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20" fill="#123456"/></svg>'
)


def proven(error: float) -> Proof:
    """A proof that passed with an error of so much."""
    return Proof(True, error, error, 1e-15, 1e-7, 1.0, 1e-5, 1e-9, "float32", 3, ("[2, 3]",))


def fitted(*, masked: bool = False, valued: bool = True, notes: tuple[str, ...] = ()) -> Fitted:
    """Two rounds of three epochs; a cut before each, one of them not at its start."""
    count = STEPS * EPOCHS * ROUNDS
    epochs = [
        Epoch(n // EPOCHS, n % EPOCHS, STEPS * (n + 1), 1 / (1 + n), 1e-3, 0.5 + 0.1 * n if valued else None)
        for n in range(EPOCHS * ROUNDS)
    ]
    plan = None if masked else Plan(())
    changes = (
        Change(0, 0, 0.3, 0.3, 700, 9_000, plan, proven(2e-7), 1.25, 1.25),
        Change(1, 5, 0.6, 0.6, 400, 5_000, plan, proven(3e-7), 0.5, 0.5, rewound=True),
    )
    losses = tuple(math.exp(-step / 30) for step in range(count))
    best = epochs[-2] if valued else None
    return Fitted(nn.Linear(2, 2), losses, tuple(epochs), changes, best, steps=STEPS, notes=notes)


def recovered(**training: Any) -> Recovered:
    """What `surgery.recover` hands back."""
    record = {
        "epochs": 6,
        "steps": STEPS * EPOCHS * ROUNDS,
        "teacher": {"teacher": "zoo:<dense>", "temperature": 4.0, "weight": 0.9, "features": ["stem"]},
        "evaluate": {"teacher": 0.99, "before": 0.41, "after": 0.97},
    }
    cut = stranded_result()
    done = fitted(**training)
    return Recovered(**vars(replace(cut, training=(record,))), fitted=done)


def png(path: Path, width: int = 3, height: int = 2) -> Path:
    """A small picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + b"\x20\x60\xa0" * width for _ in range(height))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def embedded(address: str) -> bytes:
    """What an address of data holds."""
    return base64.b64decode(address.partition(";base64,")[2])
