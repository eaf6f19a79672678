"""Where and with what it was made, and how to get the model back: names with their values."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch

from surgery.checkpoints import Saved
from surgery.exporting import Export
from surgery.latency.results import Benchmark
from surgery.sources import is_library_model
from surgery.version import __version__

OPENED = {
    "onnx": "session = onnxruntime.InferenceSession({path})",
    "torchscript": "model = torch.jit.load({path})",
    "pt2": "model = torch.export.load({path}).module()",
    "aoti": "model = torch._inductor.aoti_load_package({path})",
}
"""How the file of each format is opened."""


@dataclass(frozen=True)
class Snippet:
    """Lines of Python, and what they are for."""

    what: str
    lines: tuple[str, ...]


def versions() -> tuple[tuple[str, Any], ...]:
    """What this process runs on."""
    return (("surgery", __version__), ("torch", torch.__version__), ("Python", platform.python_version()))


def named(value: object) -> tuple[tuple[str, Any], ...]:
    """The fields of a dataclass, each with its value."""
    if not is_dataclass(value):
        return ()
    return tuple((field.name, getattr(value, field.name)) for field in fields(value))


def conditions(benchmark: Benchmark) -> tuple[tuple[str, Any], ...]:
    """How a benchmark was asked for, and the load beside it."""
    load = tuple("unknown" if one is None else f"{one:.2f}" for one in (benchmark.load_start, benchmark.load_end))
    return (*named(benchmark.settings), ("load_average", " to ".join(load)))


def snippets(*, slim: bool, saved: Saved | None, exports: Iterable[Export]) -> tuple[Snippet, ...]:
    """How to load the slim model and its exports again."""
    found = []
    if saved is not None:
        found.append(_from(saved))
    elif slim:
        lines = (
            'surgery.save(result, "slim")',
            'model = surgery.load("slim", fresh_model)  # your class, as it was before the cut',
        )
        found.append(Snippet("The slim model: weights as safetensors, the plan as JSON, no pickle", lines))
    for export in exports:
        if export.format in OPENED:
            what = f"{export.path.name} ({export.format})"
            found.append(Snippet(what, (OPENED[export.format].format(path=json.dumps(str(export.path))),)))
    return tuple(found)


def _from(saved: Saved) -> Snippet:
    place = json.dumps(str(saved.directory))
    if saved.plain:
        return Snippet(f"The slim model: {saved.told}", (f"model = AutoModel.from_pretrained({place})",))
    source = saved.manifest.source
    alone = saved.manifest.transformers is not None or (source is not None and is_library_model(source))
    call = f"surgery.load({place})" if alone else f"surgery.load({place}, fresh_model)"
    comment = "" if alone else "  # your class, as it was before the cut"
    return Snippet("The slim model: weights as safetensors, the plan as JSON, no pickle", (f"model = {call}{comment}",))
