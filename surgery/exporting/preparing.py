"""What a target writes from: an eval copy of the model, tensors in and tensors out, with its example beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from surgery.errors import InputError
from surgery.exporting.flat import FlatModel
from surgery.exporting.shapes import flat_shapes, require_dims
from surgery.exporting.state import KeptState, eval_copy
from surgery.exporting.target import Source, Target, first_line
from surgery.inputs import Inputs
from surgery.version import __version__


def source_of(model: nn.Module, inputs: Inputs, target: Target, dynamic_shapes: Any) -> Source:
    """All that `target` needs in order to write `model`, which is not touched.

    Args:
        model: Any module; masks and parametrizations are baked into the copy.
        inputs: The example, on the model's device.
        target: The format; one that only the CPU runs gets copies there.
        dynamic_shapes: As `surgery.export` takes it.

    Raises:
        InputError: The model cannot be copied or run on the example, or `dynamic_shapes` does not fit it.
    """
    copied = eval_copy(model)
    if target.cpu_only:
        copied, inputs = copied.to("cpu"), inputs.to("cpu")
    flat = FlatModel(copied, inputs)
    shapes = None if dynamic_shapes is None else flat_shapes(dynamic_shapes, flat.input_paths)
    if shapes is not None:
        require_dims(shapes, inputs.tensors(), flat.input_names)
    with KeptState(copied) as state:
        try:
            output = inputs.call(copied)
        except Exception as error:
            fact = f"{type(model).__name__} cannot run on the example inputs: {first_line(error)}"
            raise InputError(fact, "pass inputs that it accepts") from error
    flat.learn_outputs_(output)
    provenance = {
        "tool": "surgery",
        "version": __version__,
        "torch": torch.__version__,
        "source": type(model).__name__,
    }
    return Source(flat, inputs, shapes, provenance, state.changed)
