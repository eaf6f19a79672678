"""torch-pruning's own pruner, as its documentation has it, at a given number of multiply-accumulates."""

from __future__ import annotations

import copy
from typing import Any

import torch_pruning as tp
from torch import nn

from benchmarks.choosing_tasks import Bytes, Task, loss
from surgery.inputs import Inputs
from surgery.proof.cost import macs

CLOSE = 0.01
"""How far the multiply-accumulates may be off, over what was asked for."""

TRIES = 24


def pruned_by_peer(task: Task, dense: nn.Module, wanted: int, importance: str, samples: int) -> nn.Module:
    """The net that its pruner leaves with as many multiply-accumulates, within 1 %, found by halving.

    By `"l2"`: its `MagnitudePruner`, the same share of every group; by `"taylor"`: one ranking over all groups, by
    gradients over as many samples as ours look at. Heads go whole, as in its example for timm.
    """
    inputs = Inputs.of(task.example)
    low, high = 0.0, 1.0
    best: tuple[float, nn.Module] | None = None
    for _ in range(TRIES):
        ratio = (low + high) / 2
        net = _pruned(task, dense, ratio, importance, samples)
        left = 0 if net is None else macs(net, inputs)
        off = abs(left / wanted - 1)
        if net is not None and (best is None or off < best[0]):
            best = (off, net)
        if off <= CLOSE / 2:
            break
        low, high = (ratio, high) if left > wanted else (low, ratio)
    assert best is not None
    if best[0] > CLOSE:
        print(f"  torch-pruning {importance}: {best[0]:.1%} off the multiply-accumulates, nothing nearer was found")
    return best[1]


def _pruned(task: Task, dense: nn.Module, ratio: float, importance: str, samples: int) -> nn.Module | None:
    net = copy.deepcopy(dense).eval()
    heads = {m.qkv: m.num_heads for m in net.modules() if hasattr(m, "qkv")}
    settings: dict[str, Any] = {"pruning_ratio": ratio, "ignored_layers": _stays(net)}
    if heads:
        settings |= {"num_heads": heads, "prune_num_heads": True, "prune_head_dims": False, "head_pruning_ratio": ratio}
    if importance == "taylor":
        settings |= {"importance": tp.importance.GroupTaylorImportance(), "global_pruning": True}
    else:
        settings |= {"importance": tp.importance.GroupMagnitudeImportance(p=2)}
    if isinstance(net, Bytes):
        settings["unwrapped_parameters"] = [(net.place, 2)]
    pruner = tp.pruner.BasePruner(net, task.example, **settings)
    if importance == "taylor":
        net.zero_grad()
        for batch, targets in task.batches(samples):
            loss(net(batch), targets).backward()
    pruner.step()
    for module in net.modules():
        if getattr(module, "qkv", None) in pruner.num_heads:
            attention: Any = module
            attention.num_heads = pruner.num_heads[attention.qkv]
            if not attention.num_heads:  # its ranking took a whole attention: the net cannot run
                return None
            attention.head_dim = attention.qkv.out_features // (3 * attention.num_heads)
            attention.attn_dim = attention.num_heads * attention.head_dim
    net.zero_grad(set_to_none=True)
    return net


def _stays(net: nn.Module) -> list[nn.Module]:
    """What its pruner is told to leave: the scores, and the embeddings with the stream that they begin."""
    if isinstance(net, Bytes):
        into_stream = [module for name, module in net.named_modules() if name.endswith(("attn.proj", "mlp.fc2"))]
        return [net.head, net.embed, *into_stream]
    return [module for name, module in net.named_modules() if name == "classify"]
