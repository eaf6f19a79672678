"""Latency of several models side by side: interleaved, in processes of their own, with every raw sample kept."""

from surgery.latency.harness import Interrupted, benchmark
from surgery.latency.results import Benchmark, Cell, Model, Row
from surgery.latency.statistics import Ratio, Summary

__all__ = ["Benchmark", "Cell", "Interrupted", "Model", "Ratio", "Row", "Summary", "benchmark"]
