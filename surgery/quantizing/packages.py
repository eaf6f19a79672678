"""The door for int8 packages of AOTInductor: torchao quantises, AOTInductor compiles, both are compared with float."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from surgery.errors import InputError
from surgery.exporting.flat import FlatModel
from surgery.exporting.program import capture
from surgery.exporting.state import KeptState, eval_copy
from surgery.exporting.target import Source, first_line
from surgery.inputs import Inputs
from surgery.judging import Evaluate
from surgery.latency import benchmark
from surgery.progress import stage
from surgery.proof.cost import size_bytes
from surgery.quantizing.agreement import compare
from surgery.quantizing.data import read
from surgery.quantizing.float_file import Array, Feed
from surgery.quantizing.inductor import compiled, opened, quantised_graph, require_faithful, slots_of
from surgery.quantizing.judging import evaluated_on_both, require_close
from surgery.quantizing.method import STATIC
from surgery.quantizing.result import FLOAT, INT8, Quantized
from surgery.quantizing.running import AsModule

Runner = Callable[[Feed], list[Array]]


def package(
    model: nn.Module,
    path: Path,
    file: Path,
    example: Inputs,
    data: Any,
    *,
    samples: int,
    evaluate: Evaluate | None,
    min_cosine: float | None,
    measure: bool,
    folder: Path,
    facts: Mapping[str, Any],
) -> Quantized:
    """Write `file` and say what became of it; see `quantize`, which calls this for paths that end in .aoti.pt2.

    Raises:
        InputError: The model cannot be captured, quantised or compiled, or the data cannot be used.
        CheckError: The package disagrees with the quantised graph, or beyond what is allowed with float.
        MissingExtraError: torchao is not installed.
    """
    example = example.to("cpu")
    copied = eval_copy(model).to("cpu")
    flat = FlatModel(copied, example)
    with KeptState(copied) as state, torch.no_grad():
        try:
            flat.learn_outputs_(example.call(copied))
        except InputError:
            raise
        except Exception as error:
            fact = f"{type(model).__name__} cannot run on the example inputs: {first_line(error)}"
            raise InputError(fact, "pass inputs that it accepts") from error
    tensors = example.tensors()
    names = flat.input_names
    with stage(f"quantising {path.name} (torchao)"):
        program = capture(Source(flat, example, None, {}, state.changed))
        slots = slots_of(names, tensors, free=any(program.shapes))
        given = read(data, names, slots, samples)
        graph = quantised_graph(program.exported, given.calibration, names)
    if not graph.share.quantised:
        raise InputError("nothing of the model would run in int8", "keep it in float")
    with stage(f"compiling {path.name} (AOTInductor)"):
        compiled(graph.module, tensors, file, {**facts, "method": STATIC, "calibration_samples": given.calibrated})

    def float_run(feed: Feed) -> list[Array]:
        with torch.no_grad():
            return [output.numpy() for output in flat.outputs([torch.from_numpy(feed[name]) for name in names])]

    int8_run = _whole_batches(opened(file, names), len(tensors[0]) if slots[0].shape[0] is None else None)
    with stage(f"comparing {path.name} with float"):
        found = compare(float_run, int8_run, given.comparison, flat.output_names)
        of_graph = compare(float_run, _run_module(graph.module, names), given.comparison, flat.output_names)
        require_faithful(of_graph, found)
    require_close(found, min_cosine)
    evaluated = None
    if evaluate is not None:
        evaluated = evaluated_on_both(evaluate, {FLOAT: AsModule(float_run, slots), INT8: AsModule(int8_run, slots)})
    timed = None
    if measure:
        compiled(flat, tensors, folder / "float.pt2", {})
        timed = benchmark({FLOAT: folder / "float.pt2", INT8: file}, tuple(tensors), trust=True)
    shape = ", ".join(str(list(tensor.shape)) for tensor in tensors)
    isa = torch.backends.cpu.get_cpu_capability()
    return Quantized(
        path=path,
        method=STATIC,
        why="as AOTInductor takes it",
        size_bytes=file.stat().st_size,
        float_size_bytes=size_bytes(model),
        float_sha256=None,
        float_parity=None,
        share=graph.share,
        calibrated=given.calibrated,
        compared=given.compared,
        compared_on=given.compared_on,
        agreement=found,
        evaluated=evaluated,
        benchmark=timed,
        notes=(
            *given.notes,
            "AOTInductor writes paths of this machine into a package",
            f"it takes inputs of shape {shape} only, and processors like this one ({isa})",
        ),
    )


def _run_module(module: nn.Module, names: Sequence[str]) -> Runner:
    """A quantised graph as a function of its feed."""

    def run(feed: Feed) -> list[Array]:
        with torch.no_grad():
            output = module(*(torch.from_numpy(feed[name]) for name in names))
        return [t.numpy() for t in ([output] if isinstance(output, torch.Tensor) else output)]

    return run


def _whole_batches(run: Runner, size: int | None) -> Runner:
    """A function of calls of one batch size as one of any: the last call is filled up with rows of the first."""
    if size is None:
        return run

    def several(feed: Feed) -> list[Array]:
        count = len(next(iter(feed.values())))
        parts = []
        for start in range(0, count, size):
            places = np.arange(start, start + size) % count
            left = min(size, count - start)
            outputs = run({name: value[places] for name, value in feed.items()})
            if any(output.shape[:1] != (size,) for output in outputs):
                raise InputError("an output of the model has no batch dim to be compared along", "write an .onnx file")
            parts.append([output[:left] for output in outputs])
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    return several
