"""What was measured before, on this machine and with these versions: no table is measured twice."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import platformdirs

FOLDER = "SURGERY_CACHE_DIR"
"""The variable that names another folder than the user's cache folder."""

_log = logging.getLogger("surgery")


@dataclass(frozen=True)
class Reading:
    """A model's latency over the dense one's: the median over interleaved pairs, and its 95 % interval.

    Attributes:
        share: The median.
        low, high: The interval.
        ms: The model's own median.
        dense_ms: The dense model's, beside it.
        doubt: What the benchmark had to say about it.
    """

    share: float
    low: float
    high: float
    ms: float
    dense_ms: float
    doubt: str = ""

    def beside(self, other: Reading) -> Reading:
        """The mean of two, and an interval that holds both."""
        return Reading(
            share=(self.share + other.share) / 2,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            ms=(self.ms + other.ms) / 2,
            dense_ms=(self.dense_ms + other.dense_ms) / 2,
            doubt=self.doubt or other.doubt,
        )


def digest(parts: Iterable[object]) -> str:
    """A name for whatever these are printed as."""
    found = hashlib.sha256()
    for part in parts:
        found.update(repr(part).encode())
        found.update(b"\0")
    return found.hexdigest()[:32]


def cache_folder() -> Path:
    """Where readings are kept: `latency` in the user's cache folder for surgery, or in `$SURGERY_CACHE_DIR`."""
    return Path(os.environ.get(FOLDER) or platformdirs.user_cache_dir("surgery", appauthor=False)) / "latency"


@dataclass
class Store:
    """The readings of one model in one place, by widths; each is on disk as soon as it was measured.

    A folder that cannot be written is a store that forgets.
    """

    path: Path
    readings: dict[str, Reading] = field(default_factory=dict)

    @staticmethod
    def of(*identity: object) -> Store:
        """The store for a model, a machine and a way of measuring."""
        path = cache_folder() / f"{digest(identity)}.json"
        return Store(path, _read(path))

    def keep(self, found: Mapping[str, Reading]) -> None:
        """Add readings, on disk as well: written beside, then moved into place, with what others kept meanwhile."""
        self.readings = {**_read(self.path), **self.readings, **found}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.stem, suffix=".part")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(msgspec.json.encode(self.readings))
                Path(name).replace(self.path)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("the table of latencies cannot be kept in %s: %s", self.path.parent, error)


def _read(path: Path) -> dict[str, Reading]:
    """What is kept there; nothing, where it cannot be read."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, Reading])
        if any(not 0 < one.share * one.dense_ms < math.inf for one in found.values()):
            raise ValueError("it holds what is no time")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:  # what msgspec raises is a ValueError
        _log.warning("the table of latencies in %s cannot be read (%s): it is measured anew", path, error)
        return {}
    return found
