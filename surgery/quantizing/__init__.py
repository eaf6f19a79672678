"""Int8 files, last of all: a float model as integers for ONNX Runtime, its difference measured and told, not proven.

Reading order: `door` (the steps), `source` and `float_file` (what comes in), `data` (the user's samples), `method`
(static or dynamic), `writing` (the quantiser), `counting` (what really runs in int8), `agreement` (how far from float),
`judging`, `timing`; then `packages` and `inductor` (the same for AOTInductor).
"""

from __future__ import annotations

from surgery.quantizing.agreement import Agreement
from surgery.quantizing.door import quantize
from surgery.quantizing.result import Quantized

__all__ = ["Agreement", "Quantized", "quantize"]
