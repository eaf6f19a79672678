"""Judge any two models or exported files against each other, whoever made them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgery.errors import InputError
from surgery.exporting.comparing import Side, compare, flat_model
from surgery.exporting.flat import input_names
from surgery.exporting.opening import open_file
from surgery.inputs import Example, Inputs
from surgery.proof.prove import Proof
from surgery.proof.prove import verify as verify_models

Judged = nn.Module | str | os.PathLike[str]


def verify(
    a: Judged,
    b: Judged,
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    trust: bool = False,
) -> Proof:
    """Judge any two: does `b` compute what `a` does? Models shrunk by other tools included.

    Two models are compared in float64, too, as copies cast up. What `b` was given by its maker (a folded bias, a
    rescaled gain) is rounded to its own dtype, and that shows: the bound there is max(1e-9, 4 eps of that dtype,
    noise). A file is compared in its own precision, to max(1e-5, 4 · the model's own rounding noise), on the CPU;
    between two files that noise is estimated. Which it was stands in `Proof.notes`.

    Args:
        a: A model, or the path of an exported file: .onnx, .pt (TorchScript), .pt2, .aoti.pt2. For a directory that
            `surgery.save` wrote pass what `surgery.load` makes of it.
        b: The same.
        example_inputs: A tensor, or a tuple of the positional inputs. A file's inputs are found by name, else by
            position.
        example_kwargs: The keyword inputs.
        trust: Allow the code inside a TorchScript file, .pt2 or AOTInductor package to run. ONNX files hold none.

    Raises:
        InputError: `a` fails on the example, is random in eval mode, or returns nothing comparable; a file is missing,
            damaged, not what its suffix says, code that is not trusted, or takes other inputs.
    """
    if isinstance(a, nn.Module) and isinstance(b, nn.Module):
        return verify_models(a, b, example_inputs, example_kwargs)
    inputs = Inputs.of(example_inputs, example_kwargs).to("cpu")
    model = next((side for side in (a, b) if isinstance(side, nn.Module)), None)
    names = input_names(model, inputs)

    def opened(side: Judged) -> Side:
        if isinstance(side, nn.Module):
            return flat_model(side, inputs)
        path = Path(side)
        if path.is_dir():
            fact = f"{str(path)!r} is a directory"
            raise InputError(fact, "pass surgery.load(directory, model), or the path of an exported file")
        file = open_file(path, names, trust=trust)
        for i, name in zip(file.order, file.loaded.input_names, strict=False):
            names[i] = names[i] or name  # of what had a position only, the first file knows the name
        return file

    with torch.no_grad():
        return compare(opened(a), opened(b), inputs)
