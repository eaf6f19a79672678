"""torch-pruning on one net of the zoo, without hints: does it end, does the result run, how much is left?

Its standard use: weights by their norm, half of every group, the last linear layer kept, and no word about heads,
queries, keys or splits.
"""

from __future__ import annotations

import time
import warnings
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from benchmarks.architecture import Architecture
from benchmarks.judging import answers
from surgery.exporting.target import first_line
from surgery.proof.cost import count_params

PACKAGE = f"torch-pruning {version('torch-pruning')}"


def peer_facts(architecture: Architecture, net: nn.Module) -> dict[str, Any]:
    """What it makes of `net`, which it changes: `params`, `ended`, `runs`, `same_shapes`, `seconds`, `failed`."""
    import torch_pruning as tp

    inputs = architecture.inputs()
    shapes = [tuple(tensor.shape) for tensor in answers(net, inputs, torch.float32)]
    kept = [module for module in net.modules() if isinstance(module, nn.Linear)][-1:]
    facts: dict[str, Any] = {"params": [count_params(net), None], "ended": False, "runs": False, "same_shapes": False}
    example = dict(inputs.kwargs) if inputs.kwargs else inputs.args[0]
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says about the net is not for our reader
            importance = tp.importance.MagnitudeImportance(p=2)
            tp.pruner.MagnitudePruner(net, example, importance, pruning_ratio=0.5, ignored_layers=kept).step()
        facts |= {"ended": True, "params": [facts["params"][0], count_params(net)]}
        facts["seconds"] = round(time.perf_counter() - began, 2)
        found = [tuple(tensor.shape) for tensor in answers(net, architecture.inputs(seed=8), torch.float32)]
        facts |= {"runs": True, "same_shapes": found == shapes}
    except Exception as error:  # of any kind: it is the result
        facts["failed"] = f"{type(error).__name__}: {first_line(error)}"
        facts.setdefault("seconds", round(time.perf_counter() - began, 2))
    return facts
