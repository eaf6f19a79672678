"""ONNX: one self-contained file below 1.8 GB, a dynamic batch, no paths of this machine in it; runs in ONNX Runtime."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from surgery.errors import InputError
from surgery.exporting.attention import attention
from surgery.exporting.program import KNOWN, Program, capture, free_dims
from surgery.exporting.promoting import promote_
from surgery.exporting.quiet import without, without_logs
from surgery.exporting.shapes import symbol
from surgery.exporting.target import Loaded, Source, Target, Written, first_line

if TYPE_CHECKING:
    import onnx_ir

EXTERNAL_BYTES = 1_800_000_000
"""Weights above this go into a second file: a protobuf message ends at 2 GiB."""


def write(source: Source, path: Path) -> Written:
    """Write `path`, and `path` + `.data` beside it for the weights of a large model.

    Raises:
        InputError: The model cannot be captured, or uses an operator that ONNX has no translation for.
    """
    # these take seconds to import, and most programs that import this package do not export
    import onnx
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    if any(tensor.is_complex() for tensor in source.inputs.tensors()):
        raise InputError("ONNX has no complex inputs", "take real and imaginary parts as two inputs of the model")
    program = capture(source)
    promote_(program.exported)
    model = _translate(source, program)
    ClearMetadataAndDocStringPass()(model)
    model.metadata_props["surgery"] = json.dumps(dict(source.provenance))
    notes = list(program.notes)
    weights = (*source.model.parameters(), *source.model.buffers())
    external = sum(t.numel() * t.element_size() for t in weights) > EXTERNAL_BYTES
    if external:
        notes.append(f"the weights are in {path.name}.data, which must stay beside the file")
    onnx_ir.save(model, path, external_data=f"{path.name}.data" if external else None)
    onnx.checker.check_model(str(path))
    if source.changed_buffers:
        notes.append(
            f"the model changes its buffer {source.changed_buffers[0]!r} in forward; the file starts every run anew"
        )
    in_file = {value.name: value.shape for value in model.graph.inputs}
    dynamic = [
        {dim: size for dim, size in free.items() if not (shape := in_file.get(name)) or not isinstance(shape[dim], int)}
        for name, free in zip(source.model.input_names, free_dims(program.exported, program.shapes), strict=True)
    ]
    return Written(tuple(dynamic), model.opset_imports[""], tuple(notes))


def _translate(source: Source, program: Program) -> onnx_ir.Model:
    """The captured program as an `onnx_ir.Model`."""
    try:
        with without(*KNOWN), without_logs():
            translated = torch.onnx.export(
                program.exported,
                (),
                dynamo=True,
                verbose=False,  # it would print to stdout
                input_names=source.model.input_names,
                output_names=source.model.output_names,
                dynamic_shapes=program.shapes if any(program.shapes) else None,
                custom_translation_table={torch.ops.aten.scaled_dot_product_attention.default: attention},
            )
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        fact = f"{type(source.model.model).__name__} cannot be translated to ONNX: {first_line(cause)}"
        raise InputError(fact, "replace that operator in the model, or export to TorchScript") from error
    assert translated is not None, "with dynamo=True a program is returned"
    return translated.model


def load(path: Path) -> Loaded:
    """Open the file in ONNX Runtime on the CPU, with one thread between operators.

    Raises:
        InputError: ONNX Runtime has no kernel for the model, as for most bfloat16 operators.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    way_out = "export model.float() instead, if its dtype is the reason"
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"ONNX Runtime cannot load this model on the CPU: {_plain(error)}", way_out) from error
    inputs = session.get_inputs()
    dynamic = tuple(
        {
            dim: symbol(str(size or f"{value.name} {dim}"))
            for dim, size in enumerate(value.shape)
            if type(size) is not int
        }
        for value in inputs
    )

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        if odd := [t.dtype for t in tensors if t.dtype == torch.bfloat16]:
            raise InputError(f"ONNX Runtime takes no {odd[0]} inputs from Python", way_out)
        feed = {value.name: t.detach().cpu().numpy() for value, t in zip(inputs, tensors, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return Loaded(run, tuple(value.name for value in inputs), dynamic)


def weights_beside(path: Path) -> dict[str, int]:
    """The files that hold weights of an ONNX model, by name, with the least number of bytes of each.

    Raises:
        InputError: This is no ONNX model.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        fact = f"{str(path)!r} ({path.stat().st_size} bytes) is no ONNX model, or cut short: {first_line(error)}"
        raise InputError(fact, "compare its size with the original's, or export the model again") from error
    if not model.graph.node and not model.graph.output:
        raise InputError(f"{str(path)!r} is no ONNX model: it holds no graph", "export the model again")
    sizes: dict[str, int] = {}
    for tensor in model.graph.initializer:
        if onnx.external_data_helper.uses_external_data(tensor):
            where = onnx.external_data_helper.ExternalDataInfo(tensor)
            end = (where.offset or 0) + (where.length or 0)
            sizes[where.location] = max(sizes.get(where.location, 0), end)
    return sizes


def _plain(error: Exception) -> str:
    """ONNX Runtime's message without its error number and the path of the temporary file."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : |Load model from .* failed: ?", "", first_line(error))


ONNX = Target("onnx", "ONNX Runtime", (".onnx",), cpu_only=True, write=write, load=load)
