"""Where a model, its weights and its inputs come from on the command line."""

from __future__ import annotations

from surgery.sources.factories import data_from, function_from
from surgery.sources.files import WeightsFile, read_tensors, read_weights
from surgery.sources.input_specs import parse_input, parse_inputs, read_tensor
from surgery.sources.models import LoadedModel, empty_model, is_library_model, load_model
from surgery.sources.weights import load_checkpoint_, load_weights_

__all__ = [
    "LoadedModel",
    "WeightsFile",
    "data_from",
    "empty_model",
    "function_from",
    "is_library_model",
    "load_checkpoint_",
    "load_model",
    "load_weights_",
    "parse_input",
    "parse_inputs",
    "read_tensor",
    "read_tensors",
    "read_weights",
]
