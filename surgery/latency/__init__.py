"""Latency of several models side by side: interleaved, in processes of their own, with every raw sample kept.

Reading order: `harness` (the steps), `subjects` and `forms` (what is timed, and as which file), `runtime` and
`runtimes` (what opens it), `protocol` and `worker` (the measuring process), `cells`, `parity` and `timing` (what it
does), `statistics` (what may be said of it), `results` and `table`; `comparing` holds two results side by side.
"""

from surgery.latency.comparing import Change, Comparison, compare
from surgery.latency.harness import Interrupted, benchmark
from surgery.latency.results import Benchmark, Cell, Model, Row
from surgery.latency.statistics import Ratio, Summary

__all__ = [
    "Benchmark",
    "Cell",
    "Change",
    "Comparison",
    "Interrupted",
    "Model",
    "Ratio",
    "Row",
    "Summary",
    "benchmark",
    "compare",
]
