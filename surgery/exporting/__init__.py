"""A model as a file for another runtime, checked in that runtime before it is handed over.

Reading order: `door` (the steps), `target` (what a format is), `torchscript`, `onnx` with `attention`, `pt2` and `aoti`
(the formats), `flat` (tensors in, tensors out), `parity` and `sizes` (the check), `staging` (all or nothing on disk),
`opening` and `comparing` (files against models, and each other). A new format is one file that ends in a `Target`, one
line in `table`, and one in `opening`.
"""

from __future__ import annotations

from surgery.exporting.door import export
from surgery.exporting.result import Export, Parity

__all__ = ["Export", "Parity", "export"]
