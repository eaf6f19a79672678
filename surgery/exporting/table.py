"""The known export formats: the one line to add for another."""

from __future__ import annotations

from pathlib import Path

from surgery.errors import InputError
from surgery.exporting.aoti import AOTI
from surgery.exporting.onnx import ONNX
from surgery.exporting.pt2 import PT2
from surgery.exporting.target import Target
from surgery.exporting.torchscript import TORCHSCRIPT

TARGETS: tuple[Target, ...] = (ONNX, TORCHSCRIPT, PT2, AOTI)


def target_for(path: Path, name: str | None) -> Target:
    """The target called `name`, or by the longest suffix that `path` ends in.

    Raises:
        InputError: There is no such format, or the path does not tell one.
    """
    if name is not None:
        for target in TARGETS:
            if target.name == name:
                return target
        raise InputError(f"unknown export format {name!r}", f"choose one of {', '.join(t.name for t in TARGETS)}")
    by_suffix = {suffix: target for target in TARGETS for suffix in target.suffixes}
    for suffix in sorted(by_suffix, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return by_suffix[suffix]
    known = ", ".join(f"{suffix} ({target.name})" for suffix, target in by_suffix.items())
    raise InputError(f"the path {str(path)!r} does not tell the export format", f"end it in {known}, or pass format=")
