"""The door: a float model in, an int8 file out, with what that costs and gains."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgery.errors import InputError
from surgery.exporting.staging import staged
from surgery.inputs import Example, Inputs
from surgery.judging import Evaluate
from surgery.latency import Benchmark, benchmark
from surgery.progress import stage
from surgery.quantizing import counting, writing
from surgery.quantizing import data as samples_of
from surgery.quantizing import method as methods
from surgery.quantizing.agreement import compare
from surgery.quantizing.data import Samples
from surgery.quantizing.float_file import Feed, FloatFile, runner
from surgery.quantizing.inductor import SUFFIX
from surgery.quantizing.judging import evaluated_on_both, require_close
from surgery.quantizing.packages import package
from surgery.quantizing.result import FLOAT, INT8, Quantized
from surgery.quantizing.running import AsModule
from surgery.quantizing.source import Source, source_of
from surgery.version import __version__

FRESH = 8
"""Calls to compare on where there is no data: the example, and fresh inputs like it."""


def quantize(
    model: nn.Module | str | os.PathLike[str],
    path: str | os.PathLike[str],
    example_inputs: Example | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    method: str | None = None,
    samples: int = 400,
    evaluate: Evaluate | None = None,
    min_cosine: float | None = None,
    measure: bool = False,
    dynamic_shapes: Any = None,
    overwrite: bool = False,
) -> Quantized:
    """Write `model` as an int8 ONNX file, the last step before deployment.

    `"static"` learns the ranges of activations (uint8) from your data and suits convolutions; `"dynamic"` finds them
    anew in every call and suits transformers. Weights are int8 per channel. Unlike an export, the file does not compute
    the same: how far it is from float is measured and told, on samples that were held back from the calibration. It may
    also be slower: `measure=True` times both.

    Args:
        model: A module, in train or eval mode, which is exported and checked first; or a float .onnx file.
        path: The file to write; its directory must exist. Ending in .onnx; or in .aoti.pt2 for a package of AOTInductor
            (static, from a module, for the example's shapes and processors like this one; the extra quantize-torchao).
        example_inputs: As for `surgery.export`; for a file it may be left out where there is data.
        example_kwargs: The keyword inputs.
        data: Samples like those that the model will see, as for `surgery.choose`: an iterable of batches (a DataLoader;
            of a tuple or list the first tensors are the inputs, labels may follow; or dicts by name), a function that
            returns one, or a tensor with samples along dim 0. Static needs it. Every fourth sample is held back for
            the comparison.
        method: `"static"` or `"dynamic"`; by default static where convolutions carry most multiply-accumulates.
        samples: The most samples that are taken of the data.
        evaluate: Your own measure, such as accuracy: called with the float and with the int8 file, each as a module
            (tensors in, a tensor or a tuple out), returns a number.
        min_cosine: The lowest cosine between float and int8 outputs that you accept, on every sample.
        measure: Time float and int8, interleaved on one thread, on the example; where there is none, on one sample.
        dynamic_shapes: As for `surgery.export`.
        overwrite: Replace a file that is already there.

    Returns:
        The file's path and size, what of it runs in int8, and its distance from float.

    Raises:
        InputError: The model, data, path or an argument cannot be used; nothing is written.
        CheckError: The export or int8 disagrees beyond what is allowed; nothing is kept.
        MissingExtraError: A package is missing.
    """
    path = Path(path)
    _require(path, method, samples, min_cosine)
    if not isinstance(model, nn.Module) and path.exists() and Path(model).exists() and path.samefile(model):
        raise InputError(f"{str(path)!r} is the float file itself", "choose another path: it is needed to compare with")
    with staged(path, overwrite=overwrite) as file, tempfile.TemporaryDirectory(prefix="surgery-quantize-") as name:
        folder = Path(name)
        if path.name.lower().endswith(SUFFIX):
            module, example = _for_package(model, example_inputs, example_kwargs, data)
            _refuse_for_package(method, dynamic_shapes)
            return package(
                module,
                path,
                file,
                example,
                data,
                samples=samples,
                evaluate=evaluate,
                min_cosine=min_cosine,
                measure=measure,
                folder=folder,
                facts=PROVENANCE,
            )
        source = source_of(model, folder, example_inputs, example_kwargs, dynamic_shapes)
        given = _samples(source, data, samples)
        one = samples_of.one_of(given.comparison[0], source.file.slots)
        chosen, why = (method, "as asked") if method else methods.chosen(source.file.path, one, folder)
        if chosen == methods.STATIC and data is None:
            raise InputError(
                f"static quantisation ({why}) needs data to learn the ranges of activations from",
                "pass data=, samples like those that the model will see"
                + ("" if method else "; or method='dynamic', which leaves convolutions in float"),
            )
        if chosen == methods.DYNAMIC:
            given = given.uncalibrated() if data is not None else given
        with stage(f"quantising {path.name} ({chosen})"):
            made = folder / "int8.onnx"
            prepared = writing.prepare(source.file.path, folder)
            if chosen == methods.STATIC:
                writing.write_static(prepared, made, given.calibration)
            else:
                writing.write_dynamic(prepared, made)
            share = counting.count(made, folder)
        if not share.quantised:
            raise InputError(
                f"nothing of the model would run in int8 ({chosen}; it has {share.total} products in float)",
                "try the other method, or keep the float file",
            )
        writing.stamp(made, source.file.path, _facts(chosen, given.calibrated, source.file), file)
        with stage(f"comparing {path.name} with float"):
            found = compare(runner(source.file.path), runner(file), given.comparison, source.file.output_names)
        require_close(found, min_cosine)
        evaluated = None
        if evaluate is not None:
            paths = {FLOAT: source.file.path, INT8: file}
            models = {which: AsModule(runner(place), source.file.slots) for which, place in paths.items()}
            evaluated = evaluated_on_both(evaluate, models)
        call = one if source.example is None else source.feed(source.example)
        timed = _timed({FLOAT: source.file.path, INT8: file}, call) if measure else None
        size_bytes = file.stat().st_size
    return Quantized(
        path=path,
        method=chosen,
        why=why,
        size_bytes=size_bytes,
        float_size_bytes=source.file.size_bytes,
        float_sha256=source.file.sha256,
        float_parity=source.parity,
        share=share,
        calibrated=given.calibrated,
        compared=given.compared,
        compared_on=given.compared_on,
        agreement=found,
        evaluated=evaluated,
        benchmark=timed,
        notes=(*source.notes, *given.notes),
    )


def _timed(files: Mapping[str, Path], call: Feed) -> Benchmark:
    """Both files on one thread, interleaved; each is compared with itself only."""
    return benchmark(files, (), {name: torch.from_numpy(array.copy()) for name, array in call.items()})


def _require(path: Path, method: str | None, samples: int, min_cosine: float | None) -> None:
    """Raise `InputError` for arguments that cannot be used, before anything is done."""
    methods.require_known(method)
    if not path.name.lower().endswith((".onnx", SUFFIX)):
        raise InputError(f"the path {str(path)!r} ends in neither .onnx nor {SUFFIX}", "choose one of the two")
    if samples < 1:
        raise InputError(f"samples is {samples}", "give the most samples to take, at least 1")
    if min_cosine is not None and not 0 < min_cosine <= 1:
        raise InputError(f"min_cosine is {min_cosine}", "give a number above 0, at most 1")


def _samples(source: Source, data: Any, most: int) -> Samples:
    """What to calibrate and compare on: the user's data, or the example and fresh inputs like it."""
    if data is not None:
        return samples_of.read(data, source.names, source.file.slots, most)
    if source.example is None:
        raise InputError("there is nothing to run the file on", "pass data= or example_inputs=")
    calls = [source.feed(call) for call in (source.example, *map(source.example.fresh, range(1, FRESH)))]
    count = sum(samples_of.count_samples(call, source.file.slots) for call in calls)
    return Samples((), tuple(calls), 0, count, "the example and fresh inputs like it")


def _for_package(
    model: Any, example_inputs: Example | None, example_kwargs: Mapping[str, Any] | None, data: Any
) -> tuple[nn.Module, Inputs]:
    """What an AOTInductor package is made from.

    Raises:
        InputError: Something of it is missing.
    """
    if not isinstance(model, nn.Module):
        raise InputError("an AOTInductor package is made from a module", "pass an nn.Module, or write an .onnx file")
    if example_inputs is None and not example_kwargs:
        raise InputError("a module is captured first, which needs an example", "pass example_inputs")
    if data is None:
        raise InputError("static quantisation needs data to learn the ranges of activations from", "pass data=")
    return model, Inputs.of(() if example_inputs is None else example_inputs, example_kwargs)


def _refuse_for_package(method: str | None, dynamic_shapes: Any) -> None:
    """Raise `InputError` for what an AOTInductor package cannot be."""
    if method == methods.DYNAMIC:
        raise InputError("AOTInductor packages are static here", "leave method out, or write an .onnx file")
    if dynamic_shapes:
        fact = "dynamic_shapes has no meaning for an int8 package: it takes the example's shapes only"
        raise InputError(fact, "leave it out, or write an .onnx file")


PROVENANCE = {
    "tool": "surgery",
    "version": __version__,
    "precision": "int8",
    "activations": "uint8",
    "weights": "int8 per channel",
}
"""What every file says of itself."""


def _facts(method: str, calibrated: int, source: FloatFile) -> dict[str, Any]:
    """What an ONNX file says of itself."""
    return PROVENANCE | {
        "method": method,
        "calibration_samples": calibrated,
        "float_sha256": source.sha256,
        "onnxruntime": importlib.metadata.version("onnxruntime"),
    }
