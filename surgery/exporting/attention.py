"""Attention in ONNX as PyTorch computes it: queries of any rank, and zeros in rows that see no key."""

from __future__ import annotations

from typing import Any


def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """query [..., h, l, d], key, value [..., h, s, d], attn_mask [..., l, s]: the ONNX graph of one fused attention.

    The translation that `onnxscript` brings takes 4 dims only. Under a boolean mask it gives a row whose keys are all
    masked (the padding of a left-padded batch) the mean of all values, and under a mask of -inf it gives NaN, which
    spoils the next layer. PyTorch gives such rows zeros (`_safe_softmax`), so this one does.
    """
    from onnxscript import ir, opset18
    from onnxscript.function_libs.torch_lib.ops import nn

    op: Any = opset18  # its annotations are those of graphs, not of this tracing
    shape_after = None
    if len(query.shape) != 4 and (attn_mask is None or len(attn_mask.shape) <= 3):
        shape_after = op.Concat(op.Shape(query, start=0, end=-1), op.Shape(value, start=-1), axis=0)
        query, key, value = _of_four_dims(query), _of_four_dims(key), _of_four_dims(value)
    result = nn.aten_scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    if attn_mask is not None:
        if attn_mask.dtype == ir.DataType.BOOL:
            sees = op.Cast(attn_mask, to=ir.DataType.INT32)
            nothing = op.Constant(value=ir.tensor(0, dtype=ir.DataType.INT32))
        else:
            sees = attn_mask
            nothing = op.Constant(value=ir.tensor(float("-inf"), dtype=attn_mask.dtype))
        highest = op.ReduceMax(sees, op.Constant(value_ints=[-1]), keepdims=1)  # [..., l, 1]
        zero = op.Constant(value=ir.tensor(0.0, dtype=query.dtype))
        result = op.Where(op.Greater(highest, nothing), result, zero)
    return result if shape_after is None else op.Reshape(result, shape_after)


def _of_four_dims(tensor: Any) -> Any:
    """[..., h, l, d] as [n, h, l, d], with the shape and dtype that translations ask for."""
    from onnxscript import ir, opset18

    op: Any = opset18
    last = op.Shape(tensor, start=-3)
    result = op.Reshape(tensor, op.Concat(op.Constant(value_ints=[-1]), last, axis=0))
    result.shape, result.dtype = ir.Shape([None, *tensor.shape[-3:]]), tensor.dtype
    return result
