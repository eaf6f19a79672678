"""Model surgery: remove what is dead in a trained network, exactly, and prove it."""

from surgery.analyses import Analysis, analyze
from surgery.checkpoints import load, save
from surgery.choosing import choose
from surgery.export import Export, Parity, export
from surgery.inputs import Inputs
from surgery.latency import Benchmark, Ratio, benchmark
from surgery.plans import Plan
from surgery.proof.prove import Proof, verify
from surgery.results import Result
from surgery.shrinking import shrink
from surgery.version import __version__

__all__ = [
    "Analysis",
    "Benchmark",
    "Export",
    "Inputs",
    "Parity",
    "Plan",
    "Proof",
    "Ratio",
    "Result",
    "__version__",
    "analyze",
    "benchmark",
    "choose",
    "export",
    "load",
    "save",
    "shrink",
    "verify",
]
