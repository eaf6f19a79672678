"""The door: model in, checked file out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgery.errors import CheckError, InputError
from surgery.exporting.binding import bound
from surgery.exporting.parity import LOOSE, NOISES, Examiner, Trial, judge
from surgery.exporting.preparing import source_of
from surgery.exporting.result import Export, Parity
from surgery.exporting.sizes import FreeDims
from surgery.exporting.staging import staged
from surgery.exporting.table import target_for
from surgery.exporting.target import Source, Target, first_line
from surgery.inputs import Example, Inputs
from surgery.progress import stage


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    format: str | None = None,
    dynamic_shapes: Any = None,
    overwrite: bool = False,
) -> Export:
    """Write `model` as a file for another runtime, and hand it over only if it computes the same there.

    The file takes the example's tensors in order, under the names of the model's own arguments, and returns its output
    tensors; what is not a tensor in the example is fixed as given. It computes what the model does in eval mode. The
    model itself is not touched. The file is compared with the model on the example, on fresh inputs, at
    batch 1, 3 and 5 where its batch is free, and at another size of every other dim that it says is free.

    Args:
        model: Any module, in train or eval mode.
        path: Where to write; its directory must exist.
        example_inputs: A tensor, or a tuple of the positional inputs.
        example_kwargs: The keyword inputs.
        format: `"onnx"`, `"torchscript"`, `"pt2"` (a `torch.export` program) or `"aoti"` (compiled by AOTInductor for
            machines like this one, which needs a C++ compiler and takes half a minute or more); by default from the
            suffix (.onnx, .pt, .pt2, .aoti.pt2).
        dynamic_shapes: Which dims may change size, as `torch.export` takes it; plain names work:
            `{"x": {0: "batch"}}`. By default dim 0 of every tensor, where they share it; `{}` for a file that promises
            the example's shapes only.
        overwrite: Replace a file that is already there.

    Returns:
        The file's path, size, load time, opset, parity with the model, and notes. Nothing is printed to stdout.

    Raises:
        InputError: The format, path, inputs or `dynamic_shapes` cannot be used, or the model cannot take this form.
        CheckError: The file was made but computes something else; it is deleted again.
    """
    path = Path(path)
    target = target_for(path, format)
    inputs = Inputs.of(example_inputs, example_kwargs)
    with staged(path, overwrite=overwrite) as file, torch.no_grad():
        source = source_of(model, inputs, target, dynamic_shapes)
        examiner = Examiner(source.model, source.inputs)
        with stage(f"writing {path.name} ({target.name})"):
            written = target.write(source, file)
        with stage(f"checking {path.name} in {target.runtime}"):
            load_ms = _load_ms(target, file)
            parity = _checked(source, examiner, target, file, written.dynamic)
        notes = [*written.notes, *examiner.notes]
        if source.model.left_out:
            notes.append(f"left out, since not a tensor: {', '.join(source.model.left_out)}")
        if parity.bound > LOOSE:
            notes.append(
                f"the model's own rounding is {parity.bound / NOISES:.0e} of its spread: smaller faults cannot be seen"
            )
        size_bytes = sum(part.stat().st_size for part in file.parent.iterdir())
    return Export(path, target.name, size_bytes, load_ms, written.opset, parity, tuple(notes))


def _load_ms(target: Target, file: Path) -> float:
    """Milliseconds for opening `file`, after it was opened once: libraries imported, the file in the page cache.

    Raises:
        CheckError: Its runtime does not open it.
    """
    try:
        target.load(file)
        began = time.perf_counter()
        target.load(file)
    except (InputError, OSError):
        raise
    except Exception as error:
        fact = f"{target.runtime} cannot open the exported file: {first_line(error)}"
        raise CheckError(fact, "nothing was kept; try another format") from error
    return (time.perf_counter() - began) * 1000


def _checked(source: Source, examiner: Examiner, target: Target, file: Path, dynamic: Sequence[FreeDims]) -> Parity:
    """The parity of `file` with the model.

    Raises:
        CheckError: They disagree, or the file does not run where the model does.
    """
    runner = bound(target.load(file), source.model.input_names)
    trials, answers = list(examiner.trials(dynamic)), []
    for trial in trials:
        try:
            answers.append(runner(trial.tensors))
        except InputError:
            raise
        except Exception as error:
            fact = f"{target.runtime} cannot run the exported file on {trial.label}: {first_line(error)}"
            raise CheckError(fact, _way_out([trial])) from error
        if source.changed_buffers:  # each run starts from the saved state, as the model's did
            runner = bound(target.load(file), source.model.input_names)
    verdict = judge(trials, answers, source.model.output_names)
    if not verdict.parity.passed:
        figures = f"relative error {verdict.parity.max_rel_error:.1e}, bound {verdict.parity.bound:.1e}"
        fact = f"the exported file disagrees with the model: {figures} ({verdict.where})"
        raise CheckError(fact, _way_out(verdict.broken))
    return verdict.parity


def _way_out(broken: Sequence[Trial]) -> str:
    """What to do about trials on which the file is wrong: are all of them of another size than the example?"""
    if all(trial.resized for trial in broken):
        return "nothing was kept; pass dynamic_shapes={} for a file that promises the example's shapes only"
    return "nothing was kept; try another format, or look for Python code in forward that depends on the input's values"
