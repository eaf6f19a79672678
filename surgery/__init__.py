"""Model surgery: remove what is dead in a trained network, exactly, and prove it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from surgery.version import __version__

if TYPE_CHECKING:
    from surgery.aligning import align
    from surgery.analyses import Analysis, analyze
    from surgery.checkpoints import load, save
    from surgery.choosing import choose
    from surgery.compensating import Compensated, compensate
    from surgery.distilling import Distillation
    from surgery.exporting import Export, Parity, export
    from surgery.fitting import Fitted, fit
    from surgery.inputs import Inputs
    from surgery.latency import Benchmark, Ratio, benchmark
    from surgery.plans import Plan
    from surgery.proof.prove import Proof
    from surgery.pruning import Pruned, prune
    from surgery.quantizing import Quantized, quantize
    from surgery.recovering import Recovered, recover
    from surgery.reporting import report
    from surgery.results import Result
    from surgery.schedules import (
        Change,
        Gradual,
        Iterative,
        LotteryTicket,
        OneShot,
        Pruner,
        Structured,
        Unstructured,
        keep_masks,
        rewind_,
        sparsify_,
        wear_,
    )
    from surgery.sensing import sensitivity
    from surgery.sensitivities import Sensitivity
    from surgery.shrinking import shrink
    from surgery.sparsities import Sparsity, sparsity
    from surgery.training import cut_ema_, cut_ema_state, cut_optimizer_, cut_optimizer_state
    from surgery.verifying import verify

_HOMES = {
    "surgery.aligning": ("align",),
    "surgery.analyses": ("Analysis", "analyze"),
    "surgery.checkpoints": ("load", "save"),
    "surgery.choosing": ("choose",),
    "surgery.compensating": ("Compensated", "compensate"),
    "surgery.distilling": ("Distillation",),
    "surgery.exporting": ("Export", "Parity", "export"),
    "surgery.fitting": ("Fitted", "fit"),
    "surgery.inputs": ("Inputs",),
    "surgery.latency": ("Benchmark", "Ratio", "benchmark"),
    "surgery.plans": ("Plan",),
    "surgery.proof.prove": ("Proof",),
    "surgery.pruning": ("Pruned", "prune"),
    "surgery.quantizing": ("Quantized", "quantize"),
    "surgery.recovering": ("Recovered", "recover"),
    "surgery.reporting": ("report",),
    "surgery.results": ("Result",),
    "surgery.schedules": (
        *("Change", "Gradual", "Iterative", "LotteryTicket", "OneShot", "Pruner", "Structured", "Unstructured"),
        *("keep_masks", "rewind_", "sparsify_", "wear_"),
    ),
    "surgery.sensing": ("sensitivity",),
    "surgery.sensitivities": ("Sensitivity",),
    "surgery.shrinking": ("shrink",),
    "surgery.sparsities": ("Sparsity", "sparsity"),
    "surgery.training": ("cut_ema_", "cut_ema_state", "cut_optimizer_", "cut_optimizer_state"),
    "surgery.verifying": ("verify",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Analysis",
    "Benchmark",
    "Change",
    "Compensated",
    "Distillation",
    "Export",
    "Fitted",
    "Gradual",
    "Inputs",
    "Iterative",
    "LotteryTicket",
    "OneShot",
    "Parity",
    "Plan",
    "Proof",
    "Pruned",
    "Pruner",
    "Quantized",
    "Ratio",
    "Recovered",
    "Result",
    "Sensitivity",
    "Sparsity",
    "Structured",
    "Unstructured",
    "__version__",
    "align",
    "analyze",
    "benchmark",
    "choose",
    "compensate",
    "cut_ema_",
    "cut_ema_state",
    "cut_optimizer_",
    "cut_optimizer_state",
    "export",
    "fit",
    "keep_masks",
    "load",
    "prune",
    "quantize",
    "recover",
    "report",
    "rewind_",
    "save",
    "sensitivity",
    "shrink",
    "sparsify_",
    "sparsity",
    "verify",
    "wear_",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds, and `surgery --help` does not need it."""
    if name not in _HOME:
        raise AttributeError(f"module 'surgery' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
