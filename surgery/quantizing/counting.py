"""What really runs in int8: read off the graph that ONNX Runtime makes of a file on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FLOAT = {
    "Conv", "ConvTranspose", "FusedConv", "MatMul", "FusedMatMul", "Gemm", "FusedGemm", "Attention",
    "MultiHeadAttention", "LSTM", "GRU", "RNN",
}  # fmt: skip
INT8 = {
    "QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "QGemm", "QAttention", "DynamicQuantizeLSTM",
}  # fmt: skip
"""Ops that multiply, by what they multiply; fused kinds of ONNX Runtime included."""


@dataclass(frozen=True)
class Share:
    """How many of the nodes that multiply run in int8, of how many; and the others, as `"MatMul node_name"`."""

    quantised: int
    total: int
    left: tuple[str, ...]


def count(path: Path, folder: Path) -> Share:
    """The share of a file's convolutions and matrix products that ONNX Runtime runs in int8 here.

    Args:
        path: A quantised file.
        folder: Where ONNX Runtime may write the graph that it runs.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "run.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    left = tuple(f"{node.op_type} {node.name}".strip() for node in nodes if node.op_type in FLOAT)
    quantised = sum(node.op_type in INT8 for node in nodes)
    return Share(quantised, quantised + len(left), left)
