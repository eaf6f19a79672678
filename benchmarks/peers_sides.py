"""What each remover makes of one masked net: parameters, errors, or how it failed.

Every tool is called as its own documentation says, and told what is zero where it does not look for itself.
"""

from __future__ import annotations

import copy
import resource
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

import surgery
from benchmarks import torchvision_cpu  # noqa: F401  # before torchvision, which torch-simplify imports
from benchmarks.architecture import Sizes
from benchmarks.judging import distance, faults, over_largest, widened
from benchmarks.peers_lines import LINES, Line
from benchmarks.zoo_row import PEER_BYTES, in_float64, quiet
from surgery.inputs import Inputs
from surgery.masks import bake
from surgery.proof.cost import count_params
from surgery.version import __version__

OURS = "surgery"
Layer = nn.Conv2d | nn.Linear
Removed = tuple[nn.Module, nn.Module]
"""The slim net, and the one that is judged in float64."""


def zero_rows(layer: Layer | nn.LSTM) -> list[int]:
    """Rows of a weight that are all zero; of an LSTM the units whose every gate is, biases included."""
    if isinstance(layer, nn.LSTM):
        gates = [tensor.reshape(4, layer.hidden_size, -1) for tensor in layer.parameters()]
        zero = torch.stack([(tensor == 0).all(-1).all(0) for tensor in gates]).all(0)
    else:
        zero = (layer.weight.flatten(1) == 0).all(1)
    return zero.nonzero().flatten().tolist()


def maskable(net: nn.Module) -> Iterable[tuple[str, Layer | nn.LSTM]]:
    """The layers that a mask of filters is for, in order."""
    return [(path, module) for path, module in net.named_modules() if isinstance(module, Layer | nn.LSTM)]


def ours(masked: nn.Module, line: Line) -> Removed:
    """`surgery.shrink` without its own proof, so that nothing is put back; the plan once more on a float64 copy."""
    example = line.net.inputs()
    result = surgery.shrink(masked, example.args, example.kwargs, prove=False)
    return result.model, in_float64(bake(masked), result.plan)


def torch_pruning(masked: nn.Module, line: Line) -> Removed:
    """Its dependency graph, told layer by layer which filters are zero: what it then couples goes with them.

    As in "How It Works: DepGraph" of its README.
    """
    import torch_pruning as tp

    net = copy.deepcopy(masked)
    graph = tp.DependencyGraph().build_dependency(net, example_inputs=line.net.inputs().args[0])
    for _, layer in maskable(net):
        if rows := zero_rows(layer):
            prune = graph.get_pruner_of_module(layer).prune_out_channels
            group = graph.get_pruning_group(layer, prune, idxs=rows)
            if graph.check_pruning_group(group):
                group.prune()
    return net, widened(net)


def torch_ao(masked: nn.Module, line: Line) -> Removed:
    """torch.ao's structured pruner with a mask of the rows that are zero; what their biases say is to be kept.

    As in "Quickstart Guide" and "Implementing a Pruner" of its README.
    """
    from torch.ao.pruning._experimental.pruner import BaseStructuredSparsifier  # type: ignore[attr-defined]

    class ZeroRows(BaseStructuredSparsifier):
        def update_mask(self, module: Any, tensor_name: str, **kwargs: Any) -> None:
            getattr(module.parametrizations, tensor_name)[0].mask.data[kwargs["rows"]] = False

    net, config = copy.deepcopy(masked), []
    for path, layer in maskable(net):
        rows = zero_rows(layer)
        if rows and isinstance(layer, nn.LSTM):
            rows = [layer.hidden_size * gate + row for gate in range(4) for row in rows]
            config += [{"tensor_fqn": f"{path}.weight_{kind}_l0", "rows": rows} for kind in ("ih", "hh")]
        elif rows:
            config.append({"tensor_fqn": f"{path}.weight", "rows": rows})
    if not config:
        return net, widened(net)
    pruner: Any = ZeroRows({"prune_bias": False})  # type: ignore[no-untyped-call]
    pruner.prepare(net, config)
    pruner.enable_mask_update = True
    pruner.step()
    slim: nn.Module = pruner.prune()
    return slim, widened(slim)


def torch_simplify(masked: nn.Module, line: Line) -> Removed:
    """`simplify.simplify` with its defaults, on zeros of batch 1, as in "Minimal working example" of its README."""
    from simplify import simplify

    zeros = torch.zeros_like(line.net.inputs(B=1).args[0])
    slim: nn.Module = simplify(copy.deepcopy(masked), zeros)
    return slim, widened(slim)


SIDES: Mapping[str, Callable[[nn.Module, Line], Removed]] = {
    OURS: ours,
    "torch-pruning": torch_pruning,
    "torch.ao": torch_ao,
    "torch-simplify": torch_simplify,
}
PACKAGES = {"torch-pruning": "torch-pruning", "torch.ao": "torch", "torch-simplify": "torch-simplify"}
"""The distribution that each of the others is in."""


def version_of(side: str) -> str:
    """The version of the package that a side is in; "" where it is not installed."""
    try:
        return __version__ if side == OURS else version(PACKAGES[side])
    except PackageNotFoundError:
        return ""


def examined(side: str, name: str) -> Iterator[dict[str, Any]]:
    """One cell of the table, in a process of its own, its facts as they are found.

    `missing` where the package is not installed; `params` before and after; `alike` and `elsewhere`: errors on other
    batches, and at other resolutions or lengths; `failed` where the tool, or the net it handed back, raised.
    """
    torch.set_num_threads(1)
    if side != OURS:
        resource.setrlimit(resource.RLIMIT_AS, (PEER_BYTES, PEER_BYTES))
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries say about themselves
        yield from facts_of(side, LINES[name])


def facts_of(side: str, line: Line) -> Iterator[dict[str, Any]]:
    """`examined`, here."""
    if not version_of(side):
        yield {"missing": f"{PACKAGES[side]} is not installed"}
        return
    masked = line.net.make()
    yield {"params": [count_params(masked), None]}
    try:
        slim, slim64 = SIDES[side](masked, line)
    except Exception as error:  # of any kind: it is the result
        yield {"failed": _words(error)}
        return
    yield {"params": [count_params(masked), count_params(slim)]}
    for place, sizes in (("alike", line.alike), ("elsewhere", line.elsewhere)):
        if sizes:
            yield {place: judged(line, masked, slim, slim64 if side == OURS else None, sizes)}


def judged(
    line: Line, masked: nn.Module, slim: nn.Module, slim64: nn.Module | None, sizes: Iterable[Sizes]
) -> dict[str, Any]:
    """How far a slim net is from the masked one at these sizes, two fresh inputs each.

    Args:
        line: Draws the inputs.
        masked: The truth.
        slim: In the net's own precision.
        slim64: The same cut made in float64, judged to 1e-9; None asks for no more than float32 can give.
        sizes: Laid over the example's.

    Returns:
        `relative_error`: max|slim - masked| over the spread, in float32; `relative_error_float64`, only with `slim64`;
        `over_largest`: max|slim - masked| / max|masked|, in float32; `fault`: why it is not exact, "" where it is.
        Or `failed`: what it raised.
    """
    trials = [pair_of(line, number, at) for number, at in enumerate(sizes)]
    try:
        found = distance(masked, slim, slim64 or widened(slim), trials)
        largest = over_largest(masked, slim, [inputs for pair in trials for inputs in pair])
    except Exception as error:  # of any kind: it is the result
        return {"failed": _words(error)}
    facts = {"relative_error": found.float32, "over_largest": largest, "noise": found.noise}
    if slim64 is None:
        return {**facts, "fault": faults(replace(found, float64=0.0))}
    return {**facts, "relative_error_float64": found.float64, "fault": faults(found)}


def pair_of(line: Line, number: int, sizes: Sizes) -> tuple[Inputs, Inputs]:
    """Two fresh inputs."""
    first, second = (line.net.inputs(seed=100 * number + seed, **sizes) for seed in (1, 2))
    return first, second


def _words(error: BaseException) -> str:
    """Its own words, the middle left out where they are many."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words if len(words) <= 120 else f'{words[:40]} ... {words[-70:]}'}"
