"""Int8 for PyTorch's own runtime: torchao quantises the captured graph, AOTInductor compiles it for this machine.

Static, activations uint8 and weights int8 per channel, as for ONNX Runtime. The package takes the shapes of the
example only: compiled with a free batch, AOTInductor computes something else (torch 2.13, torchao 0.18). That it
computes what the quantised graph does is checked before it is handed over.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surgery.errors import CheckError, InputError, MissingExtraError
from surgery.exporting.quiet import without_logs
from surgery.exporting.target import first_line
from surgery.quantizing.agreement import Agreement
from surgery.quantizing.counting import Share
from surgery.quantizing.float_file import Array, Feed, Slot

SUFFIX = ".aoti.pt2"

CHATTER = ("torchao", "torch.utils", "torch._inductor", "torch.export", "root")

SLACK = (1.5, 0.01)
"""How much further from float than the quantised graph the package may be: times, and more; rounding may differ."""

PRODUCTS = ("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default", "aten.linear.default")


@dataclass(frozen=True)
class Graph:
    """A quantised graph, and which of its convolutions and dense layers take int8."""

    module: nn.Module
    share: Share


def slots_of(names: Sequence[str], tensors: Sequence[Tensor], *, free: bool) -> tuple[Slot, ...]:
    """The inputs of a graph whose batch is free, or not."""
    return tuple(
        Slot(name, ((None, *tensor.shape[1:]) if free else tuple(tensor.shape)), np.dtype(tensor.numpy().dtype))
        for name, tensor in zip(names, tensors, strict=True)
    )


def quantised_graph(exported: torch.export.ExportedProgram, feeds: Sequence[Feed], names: Sequence[str]) -> Graph:
    """The program with its weights in int8 and its activations rounded in the ranges that `feeds` show.

    Raises:
        MissingExtraError: torchao is not installed.
        InputError: torchao cannot quantise the program.
    """
    try:
        with _quiet():
            steps: Any = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
            x86: Any = importlib.import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] != "torchao":
            raise
        raise MissingExtraError("torchao", "quantize-torchao") from error
    try:
        with _quiet(), torch.no_grad():
            quantizer = x86.X86InductorQuantizer()
            quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
            watched = steps.prepare_pt2e(exported.module(), quantizer)
            for feed in feeds:
                watched(*(torch.from_numpy(feed[name]) for name in names))
            made: nn.Module = steps.convert_pt2e(watched)
    except Exception as error:
        raise InputError(f"torchao cannot quantise the model: {first_line(error)}", "write an .onnx file") from error
    return Graph(made, _share(made))


def _share(module: nn.Module) -> Share:
    """Which of the graph's products have int8 operands."""
    assert isinstance(module, torch.fx.GraphModule), "torchao hands back a graph"
    products = [node for node in module.graph.nodes if str(node.target) in PRODUCTS]
    left = tuple(f"{node.target} {node.name}" for node in products if "dequantize" not in str(node.args[0]))
    return Share(len(products) - len(left), len(products), left)


def compiled(module: nn.Module, tensors: Sequence[Tensor], path: Path, facts: Mapping[str, Any]) -> None:
    """Compile the module, at these shapes, into `path`, with `facts` as its metadata.

    Raises:
        InputError: There is no C++ compiler, or AOTInductor refuses the module.
    """
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(module, tuple(tensors), strict=False)
            torch._inductor.aoti_compile_and_package(
                program,
                package_path=str(path),
                inductor_configs={
                    "freezing": True,
                    "aot_inductor.metadata": {name: str(value) for name, value in facts.items()},
                },
            )
    except Exception as error:
        fact = f"AOTInductor cannot compile the model: {first_line(error)}"
        raise InputError(fact, "install g++ if that is the reason, or write an .onnx file") from error


def opened(path: Path, names: Sequence[str]) -> Any:
    """A package as a function of its feed."""
    with _quiet():
        package: Any = torch._inductor.aoti_load_package(str(path))

    def run(feed: Feed) -> list[Array]:
        with torch.no_grad():
            output = package(*(torch.from_numpy(feed[name]) for name in names))
        return [t.numpy() for t in ([output] if isinstance(output, Tensor) else output)]

    return run


def require_faithful(graph: Sequence[Agreement], package: Sequence[Agreement]) -> None:
    """Raise `CheckError` where the package is further from float than the quantised graph that it was made from."""
    for ours, theirs in zip(package, graph, strict=True):
        if ours.error is None or theirs.error is None:
            continue
        times, more = SLACK
        if not ours.error <= times * theirs.error + more:
            raise CheckError(
                f"AOTInductor does not compute what the quantised graph does: {ours.name} is off by {ours.error:.1%} "
                f"of what it varies, the graph by {theirs.error:.1%}",
                "nothing was kept; write an .onnx file",
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what torchao and the compiler say of themselves."""
    with without_logs(CHATTER), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
