"""What an export hands back: where the file is, and how well it agrees with the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Parity:
    """The comparison of a file, run in its own runtime, with the model that it was made from.

    `max_rel_error` is max|a - b| / spread, where spread is the largest change of an output element across the test
    inputs. It and `bound` belong to the output that came closest to its bound (or went furthest beyond it).

    Attributes:
        max_abs_error: Largest difference of any element of any output.
        max_rel_error: Largest difference over the spread, as above.
        bound: What `max_rel_error` may be: max(1e-5, 4 * noise), noise being the model's own rounding over the spread.
        passed: Whether every output stayed within its own bound, with the model's shape and dtype.
        n_inputs: How many inputs were compared.
        batch_sizes: The sizes of dim 0 that were compared, ascending; empty where the inputs share no batch dim.
    """

    max_abs_error: float
    max_rel_error: float
    bound: float
    passed: bool
    n_inputs: int
    batch_sizes: tuple[int, ...]

    def __str__(self) -> str:
        batches = f", batch {', '.join(map(str, self.batch_sizes))}" if self.batch_sizes else ""
        plural = "" if self.n_inputs == 1 else "s"
        verdict = "agrees" if self.passed else "DISAGREES"
        return (
            f"{verdict} with the model: relative error {self.max_rel_error:.1e} (bound {self.bound:.1e}) "
            f"on {self.n_inputs} input{plural}{batches}"
        )


@dataclass(frozen=True)
class Export:
    """One exported file.

    Attributes:
        path: Where it was written.
        format: The format's name, `"onnx"`, `"torchscript"`, `"pt2"` or `"aoti"`.
        size_bytes: Size of all that was written (an ONNX model above 1.8 GB has a second file beside it).
        load_ms: What opening the file takes in its own runtime, from the page cache, libraries imported.
        opset: The ONNX opset that is in the file; None for other formats.
        parity: How well it agrees with the model.
        notes: What a reader should know, one sentence each.
    """

    path: Path
    format: str
    size_bytes: int
    load_ms: float
    opset: int | None
    parity: Parity
    notes: tuple[str, ...]

    def __str__(self) -> str:
        opset = "" if self.opset is None else f", opset {self.opset}"
        lines = [f"{self.path}: {self.format}{opset}, {readable_size(self.size_bytes)}; {self.parity}"]
        if self.notes:
            lines.append("  note: " + "; ".join(self.notes))
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        parity = asdict(self.parity) | {"batch_sizes": list(self.parity.batch_sizes)}
        return asdict(self) | {"path": str(self.path), "parity": parity, "notes": list(self.notes)}


def readable_size(size_bytes: int) -> str:
    """`size_bytes` with a decimal unit: `"44.7 MB"`."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
