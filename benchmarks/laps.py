"""A stop watch for stages that follow one another."""

from __future__ import annotations

import gc
import time


class Laps:
    """Wall and processor time of consecutive stages, in ms; `end` closes the stage that is running.

    Garbage of earlier work is collected before the first stage begins, so that nobody pays for another's.

    Attributes:
        wall_ms: By stage.
        cpu_ms: Processor time of the process, by stage.
    """

    def __init__(self) -> None:
        self.wall_ms: dict[str, float] = {}
        self.cpu_ms: dict[str, float] = {}
        gc.collect()
        self._cpu_ns, self._wall_ns = time.process_time_ns(), time.perf_counter_ns()

    def end(self, stage: str) -> None:
        """The stage called `stage` is over, and the next one begins."""
        wall_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        self.wall_ms[stage] = (wall_ns - self._wall_ns) / 1e6
        self.cpu_ms[stage] = (cpu_ns - self._cpu_ns) / 1e6
        self._cpu_ns, self._wall_ns = time.process_time_ns(), time.perf_counter_ns()
