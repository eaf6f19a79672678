"""What quantising hands back: where the file is, what of it is int8, and how far it is from float."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from surgery.exporting.result import Parity
from surgery.latency import Benchmark, Ratio
from surgery.quantizing.agreement import Agreement
from surgery.quantizing.counting import Share

FLOAT, INT8 = "float", "int8"
"""What the two files are called in `Quantized.benchmark`."""

LISTED = 3
"""How many float nodes the text names."""


@dataclass(frozen=True)
class Quantized:
    """One int8 file, beside the float one that it was made from.

    Attributes:
        path: Where it was written.
        method: `"static"` or `"dynamic"`.
        why: Why this method.
        size_bytes: Of the file.
        float_size_bytes: Of the float file; of the module's tensors for a package.
        float_sha256: Of the float file; None for a package, which is made from the module.
        float_parity: How well the float file agrees with the model; None where there is none, or it was given.
        share: Which of its convolutions and matrix products run in int8 here.
        calibrated: How many samples the ranges were learnt from; 0 for dynamic.
        compared: How many samples the agreement was taken on.
        compared_on: What these samples are, in words.
        agreement: Int8 beside float, an entry per output.
        evaluated: What the user's own function says of float and of int8, if there is one.
        benchmark: The times of both, if asked for.
        notes: What a reader should know, one sentence each.
    """

    path: Path
    method: str
    why: str
    size_bytes: int
    float_size_bytes: int
    float_sha256: str | None
    float_parity: Parity | None
    share: Share
    calibrated: int
    compared: int
    compared_on: str
    agreement: tuple[Agreement, ...]
    evaluated: tuple[float, float] | None
    benchmark: Benchmark | None
    notes: tuple[str, ...]

    @property
    def min_cosine(self) -> float | None:
        """The lowest cosine of any sample of any output; None where all outputs are integers."""
        return min((one.min_cosine for one in self.agreement if one.min_cosine is not None), default=None)

    @property
    def ratio(self) -> Ratio | None:
        """Float over int8: above 1, int8 is faster; None where nothing was timed."""
        if self.benchmark is None:
            return None
        (cell,) = self.benchmark.cells
        return self.benchmark.ratio_in(cell, FLOAT, INT8)

    def __str__(self) -> str:
        calibrated = f", calibrated on {self.calibrated} samples" if self.calibrated else ""
        sizes = f"{self.size_bytes / 1e6:.3g} MB instead of {self.float_size_bytes / 1e6:.3g} MB"
        lines = [f"{self.path}: int8 ({self.method}{calibrated}; {self.why}), {sizes}"]
        left = ", ".join(self.share.left[:LISTED]) + (" ..." if len(self.share.left) > LISTED else "")
        of = f"{self.share.quantised} of {self.share.total} convolutions and matrix products run in int8"
        lines.append(f"  {of}" + (f"; in float: {left}" if left else ""))
        lines.append(f"  against float, on {self.compared} samples ({self.compared_on}):")
        lines += [f"    {one}" for one in self.agreement]
        if self.evaluated is not None:
            lines.append("  evaluated: {:.6g} in float, {:.6g} in int8".format(*self.evaluated))
        if (ratio := self.ratio) is not None:
            assert self.benchmark is not None, "a ratio is of times"
            lines.append(f"  float over int8 ({self.benchmark.cells[0]}): {ratio}")
            if ratio.verdict == "slower":
                lines.append("  int8 is slower here: keep the float file")
        if self.notes:
            lines.append("  note: " + "; ".join(self.notes))
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON; of the times, the ratio."""
        data = {name: value for name, value in vars(self).items() if name != "benchmark"}
        ratio = self.ratio
        return data | {
            "path": str(self.path),
            "float_parity": None if self.float_parity is None else asdict(self.float_parity),
            "share": asdict(self.share),
            "agreement": [asdict(one) for one in self.agreement],
            "min_cosine": self.min_cosine,
            "ratio": None if ratio is None else asdict(ratio),
        }
