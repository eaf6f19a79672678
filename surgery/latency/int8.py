"""Int8 forms for timing: quantised as `surgery quantize` does, in ranges learnt from the inputs at hand.

Their times are those of int8. What they cost in accuracy on real data is for `surgery.quantize` to say.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from surgery.exporting.program import capture
from surgery.exporting.target import Source
from surgery.inputs import Inputs


def quantise_onnx(float_file: Path, calls: Sequence[Inputs], names: Sequence[str], path: Path) -> None:
    """Write `path`, the float file in int8: static where convolutions carry most of its MACs, else dynamic.

    Raises:
        InputError: The quantiser cannot take it.
    """
    from surgery.quantizing import method, writing

    feeds = [{n: t.numpy() for n, t in zip(names, call.tensors(), strict=True)} for call in calls]
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        chosen, _ = method.chosen(float_file, feeds[0], folder)
        prepared = writing.prepare(float_file, folder)
        if chosen == method.STATIC:
            writing.write_static(prepared, path, feeds)
        else:
            writing.write_dynamic(prepared, path)


def quantise_package(source: Source, calls: Sequence[Inputs], path: Path) -> None:
    """Write `path`, an AOTInductor package of the model in int8.

    Raises:
        MissingExtraError: torchao is not installed.
        InputError: torchao or the compiler cannot take it.
    """
    from surgery.quantizing import inductor

    names = source.model.input_names
    feeds = [{n: t.numpy() for n, t in zip(names, call.tensors(), strict=True)} for call in calls]
    free = replace(source, shapes=None)  # of a graph of one batch size, torchao refuses some
    graph = inductor.quantised_graph(capture(free).exported, feeds, names)
    inductor.compiled(graph.module, source.inputs.tensors(), path, {})
