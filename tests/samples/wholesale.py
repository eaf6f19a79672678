"""Ops that read all of their operands at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from tests.samples.sample import Operand, Sample

A = torch.ops.aten
CLASSES = torch.tensor([1, 0, 3])


def reading(op: str, function: Callable[..., Any], **operands: Operand) -> Sample:
    return Sample(
        f"{op} reads all of it", function, operands or {"x": (3, 4)}, held=(f"{op} reads all of it",), pattern="x0"
    )


def square(op: str, function: Callable[..., Any]) -> Sample:
    return reading(op, function, x=(4, 4))


def loss(op: str, function: Callable[..., Any]) -> Sample:
    return reading(op, function, x=(3, 4), y=(3, 4))


COUNTING = (
    reading("take", A.take.default, x=(3, 4), i=torch.tensor([3, 11, 0])),
    reading(
        "masked_scatter",
        lambda x, m, y: x.masked_scatter(m, y),
        x=(3, 4),
        m=torch.tensor([True, False, True, True]),
        y=(4, 4),
    ),
    reading("histc", lambda x: A.histc.default(x, 5, -1, 1)),
)

MATRICES = (
    square("det", torch.det),
    square("linalg_det", torch.linalg.det),
    reading("linalg_norm", torch.linalg.norm),
    reading("linalg_matrix_norm", lambda x: A.linalg_matrix_norm.default(x, 1)),
    reading("linalg_matrix_norm", torch.linalg.matrix_norm),
    reading("frobenius_norm", lambda x: A.frobenius_norm.dim(x, [0, 1])),
    reading("nuclear_norm", A.nuclear_norm.default),
    reading("kron", A.kron.default, x=(3, 4), y=(2, 1)),
    reading("block_diag", lambda x, y: A.block_diag.default([x, y]), x=(3, 4), y=(2, 5)),
    square("diag", torch.diag),
)

LOSSES = (
    reading("cross_entropy_loss", F.cross_entropy, x=(3, 4), y=CLASSES),
    reading("nll_loss", A.nll_loss.default, x=(3, 4), y=CLASSES),
    reading("nll_loss_nd", A.nll_loss_nd.default, x=(3, 4), y=CLASSES),
    reading("nll_loss2d", A.nll_loss2d.default, x=(1, 4, 1, 3), y=CLASSES.reshape(1, 1, 3)),
    loss("mse_loss", F.mse_loss),
    loss("l1_loss", F.l1_loss),
    loss("smooth_l1_loss", F.smooth_l1_loss),
    loss("huber_loss", F.huber_loss),
    loss("kl_div", lambda x, y: A.kl_div.default(x, y.abs())),
    loss("binary_cross_entropy", lambda x, y: A.binary_cross_entropy.default(x.sigmoid(), y.sigmoid())),
    loss("binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits),
    loss("soft_margin_loss", F.soft_margin_loss),
    loss("cosine_embedding_loss", lambda x, y: A.cosine_embedding_loss.default(x, y, torch.ones(3))),
    loss("triplet_margin_loss", lambda x, y: A.triplet_margin_loss.default(x, y, x * y)),
    loss("margin_ranking_loss", lambda x, y: A.margin_ranking_loss.default(x, y, x * 0 + 1)),
)

SAMPLES = (*COUNTING, *MATRICES, *LOSSES)
