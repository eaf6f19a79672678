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
    from onnxscript import ir
    from onnxscript import opset18 as op
    from onnxscript.function_libs.torch_lib.ops import nn

    rank = len(query.shape)
    if rank == 3:
        query, key, value = (_with_batch(tensor) for tensor in (query, key, value))  # a mask [n, l, s] fits as it is
    result = nn.aten_scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
    )
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
    return op.Squeeze(result, op.Constant(value_ints=[0])) if rank == 3 else result


def _with_batch(tensor: Any) -> Any:
    """[...] as [1, ...], with the shape and dtype that translations ask for."""
    from onnxscript import ir
    from onnxscript import opset18 as op

    result = op.Unsqueeze(tensor, op.Constant(value_ints=[0]))
    result.shape, result.dtype = ir.Shape([1, *tensor.shape]), tensor.dtype
    return result
