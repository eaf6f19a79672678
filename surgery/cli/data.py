"""What `--data` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def data_of(spec: str | None) -> Any:
    """The data of `package.module:factory` or `@samples.npy`; None where there is none."""
    from surgery.sources import data_from, read_tensor

    if spec is None:
        return None
    return read_tensor(Path(spec[1:])) if spec.startswith("@") else data_from(spec)
