"""Ops that read all of their operands at once, losses among them: nothing that reaches them may go."""

from __future__ import annotations

from typing import Any

from surgery.calls import Call
from surgery.layout import Layout
from surgery.registry import rule

_COUNTING = "masked_scatter.default take.default histc.default item.default".split()
_MATRICES = (
    "det.default linalg_det.default linalg_norm.default linalg_matrix_norm.default "
    "linalg_matrix_norm.str_ord frobenius_norm.dim nuclear_norm.default kron.default block_diag.default diag.default"
).split()
_LOSSES = (
    "cross_entropy_loss.default nll_loss.default nll_loss_nd.default nll_loss2d.default mse_loss.default "
    "l1_loss.default smooth_l1_loss.default huber_loss.default kl_div.default binary_cross_entropy.default "
    "binary_cross_entropy_with_logits.default soft_margin_loss.default cosine_embedding_loss.default "
    "triplet_margin_loss.default margin_ranking_loss.default"
).split()


@rule(*(f"aten.{op}" for op in (*_COUNTING, *_MATRICES, *_LOSSES)))
def wholesale(call: Call, **arguments: Any) -> Any:
    """What comes out rests on every position."""
    for argument in arguments.values():
        call.hold_all(argument, f"{call.name} reads all of it")
    outputs = tuple(Layout(shape) for shape in call.shapes)
    return outputs[0] if len(outputs) == 1 else outputs
