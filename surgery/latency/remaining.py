"""How long a benchmark will still take: by its settings first, then by what it took so far."""

from __future__ import annotations

import time

from surgery.latency.results import Settings
from surgery.latency.timing import WARMUP_SECONDS


class Remaining:
    """The time that is left, in words.

    Args:
        processes: One per runtime, precision, thread count and device.
        batches: Cells in each.
        models: Models in each cell.
        settings: How long each cell is timed.
    """

    def __init__(self, processes: int, batches: int, models: int, settings: Settings) -> None:
        warm_up = batches * models * WARMUP_SECONDS
        self._least, self._most = (warm_up + batches * s for s in (settings.min_seconds, settings.max_seconds))
        self._processes, self._done, self._began = processes, 0, time.monotonic()

    def one_done(self) -> None:
        """One process has ended."""
        self._done += 1

    def told(self) -> str:
        """Which process is next, and how long all that are left will take."""
        left = self._processes - self._done
        if self._done:
            about = f"about {_words(left * (time.monotonic() - self._began) / self._done)} left"
        else:
            about = f"{_words(left * self._least)} to {_words(left * self._most)} left"
        return f" {self._done + 1} of {self._processes} ({about})"


def _words(seconds: float) -> str:
    """`40 s`, `5 min`, `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
