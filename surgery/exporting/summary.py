"""Several exports of one model as a table: form, size, load time, parity."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from surgery.errors import CheckError, SurgeryError
from surgery.exporting.result import Export, readable_size


def as_table(exports: Sequence[Export], failed: Mapping[Path, SurgeryError]) -> str:
    """One line per file that was written, and why the others were not."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name, justify in (("file", "left"), ("form", "left"), ("size", "right"), ("load", "right"), ("parity", "left")):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    for export in exports:
        form = export.format if export.opset is None else f"{export.format}, opset {export.opset}"
        load = f"{export.load_ms:.3g} ms" if export.load_ms < 1000 else f"{export.load_ms / 1000:.2f} s"
        table.add_row(str(export.path), form, readable_size(export.size_bytes), load, str(export.parity))
    for path, error in failed.items():
        verdict = "deleted: it disagrees" if isinstance(error, CheckError) else "not written"
        table.add_row(str(path), "", "", "", verdict)
    text = io.StringIO()
    Console(file=text, width=1000, color_system=None).print(table)  # a wrapped line would lose its columns
    lines = "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n").splitlines()
    lines += ["", *(f"note: {export.path}: {note}" for export in exports for note in export.notes)]
    for path, error in failed.items():
        lines.append(f"failed: {path}: {error.fact}" + (f"\n  -> {error.way_out}" if error.way_out else ""))
    return "\n".join(lines).rstrip("\n")
