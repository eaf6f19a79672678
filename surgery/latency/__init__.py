"""Latency of several models side by side: interleaved, in processes of their own, with every raw sample kept."""

from surgery.latency.harness import benchmark
from surgery.latency.results import Benchmark, Cell, Row
from surgery.latency.statistics import Ratio, Summary

__all__ = ["Benchmark", "Cell", "Ratio", "Row", "Summary", "benchmark"]
