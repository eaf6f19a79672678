"""Every number of the demo, as one value and as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from surgery.demo.account import Layer
from surgery.exporting import Export
from surgery.latency import Benchmark, Ratio
from surgery.proof.prove import Proof

DENSE, HOOKS, ZEROS, SLIM = "dense", "masked (hooks)", "masked (zeros)", "slim"
"""The four models: before masking; as `torch.nn.utils.prune` leaves it; its zeros written into the weights; cut."""

BATCHES = (1, 64)
RUNTIMES = {"eager": "PyTorch", "torchscript": "TorchScript", "onnxruntime": "ONNX Runtime"}
"""How the benchmark calls them, and how people do."""


@dataclass(frozen=True)
class Outcome:
    """What the demo found.

    Attributes:
        accuracy: By model, the share of test digits that it gets right.
        test_digits: How many there are.
        same_predictions: On how many of them masked and slim name the same digit.
        largest_difference: Of any score of any test digit, masked against slim.
        layers: What became of every convolution's filters.
        params: By model; the slim one has fewer.
        macs: Multiply-accumulates per picture, by model.
        proof: Masked against slim.
        reload_difference: The largest difference of a score between the slim model and its copy from disk.
        exports: The files for other runtimes, each compared with the slim model.
        benchmark: The latencies of all four models; None where nothing was timed.
    """

    accuracy: Mapping[str, float]
    test_digits: int
    same_predictions: int
    largest_difference: float
    layers: tuple[Layer, ...]
    params: Mapping[str, int]
    macs: Mapping[str, int]
    proof: Proof
    reload_difference: float
    exports: tuple[Export, ...]
    benchmark: Benchmark | None

    @property
    def passed(self) -> bool:
        """Whether the slim net answers as the masked one does, also when it comes back from disk."""
        return self.proof.passed and self.same_predictions == self.test_digits and self.reload_difference == 0

    def ratio(self, runtime: str, batch: int) -> Ratio | None:
        """How many times faster the slim net is than the masked one (zeros); None where that was not timed."""
        if self.benchmark is None:
            return None
        return self.benchmark.ratio(ZEROS, SLIM, runtime=runtime, batch=batch)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON: files by name, times by their summary (benchmark.json has every sample)."""
        return {
            "passed": self.passed,
            "accuracy": dict(self.accuracy),
            "test_digits": self.test_digits,
            "same_predictions": self.same_predictions,
            "largest_difference": self.largest_difference,
            "filters": {
                "in_all": sum(layer.filters for layer in self.layers),
                "masked": sum(layer.masked for layer in self.layers),
                "gone": sum(layer.filters - layer.kept for layer in self.layers),
                "masked_gone": sum(layer.masked_gone for layer in self.layers),
                "stranded": sum(layer.masked - layer.masked_gone for layer in self.layers),
            },
            "layers": [asdict(layer) for layer in self.layers],
            "params": dict(self.params),
            "macs_per_picture": dict(self.macs),
            "proof": asdict(self.proof),
            "reload_difference": self.reload_difference,
            "exports": [export.as_dict() | {"path": export.path.name} for export in self.exports],
            "latency": self._latency(),
            "machine": None if self.benchmark is None else asdict(self.benchmark.machine),
        }

    def _latency(self) -> list[dict[str, Any]]:
        """A line per runtime and batch size: the times of all models, and the ratio of masked to slim."""
        if self.benchmark is None:
            return []
        return [
            {
                "runtime": cell.runtime,
                "threads": cell.threads,
                "batch": cell.batch,
                "models": {row.model: row.failure or asdict(row.summary()) for row in cell.rows},
                "masked_over_slim": asdict(self.benchmark.ratio_in(cell, ZEROS, SLIM)),
            }
            for cell in self.benchmark.cells
        ]
