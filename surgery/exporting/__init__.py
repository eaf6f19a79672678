"""A model as a file for another runtime, checked in that runtime before it is handed over.

Reading order: `door` (the steps), `target` (what a format is), `torchscript` and `onnx` (the formats), `flat` (tensors
in, tensors out), `parity` (the check), `staging` (all or nothing on disk). A new format is one file that ends in a
`Target`, and one line in `table`.
"""

from __future__ import annotations

from surgery.exporting.door import export
from surgery.exporting.result import Export, Parity

__all__ = ["Export", "Parity", "export"]
