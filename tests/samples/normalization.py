"""Norms: those with frozen statistics leave channels apart, the others hold what they average over."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.samples.sample import Plain, Sample

A = torch.ops.aten


def gain(size: int) -> torch.Tensor:
    """A gain that is 0 at the position before the last."""
    return (torch.arange(size, dtype=torch.float64) + 1) * (torch.arange(size) != size - 2)


def variance(size: int) -> torch.Tensor:
    return torch.arange(size, dtype=torch.float64) / 3 + 0.5


BATCH = (
    Sample(
        "batch_norm in eval mode",
        lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b, eps=0.1),
        {"x": (2, 6, 3, 4), "m": (6,), "v": variance(6), "w": gain(6), "b": (6,)},
        free="x0 x1 x2 x3 m0 v0 w0 b0",
        found=(0, 1, 2, 4),
        resized={"x": (3, 6, 2, 5)},
    ),
    Sample(
        "batch_norm of matrices, without gain and shift",
        F.batch_norm,
        {"x": (2, 6), "m": (6,), "v": variance(6)},
        free="x0 x1 m0 v0",
        found=(0, 1, 2),
    ),
    Sample(
        "batch_norm with statistics that are not tracked",
        lambda x, m, v: F.batch_norm(x, m, v * v),
        {"x": (2, 6, 3), "m": (6,), "v": Plain((6,))},
        free="x0 x2",
        held=("batch_norm meets an operand whose dim 1 cannot shrink",),
    ),
    Sample(
        "batch_norm by the batch's statistics",
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        {"x": (2, 6, 3, 4), "w": gain(6), "b": (6,)},
        free="x1 w0 b0",
        held=("batch_norm averages over this dim",),
        found=(0, 1, 2, 4),
        resized={"x": (3, 6, 2, 5)},
    ),
    Sample(
        "a weight that is standardised in forward",
        lambda x: F.batch_norm(x.view(1, 6, -1), None, None, training=True).view(6, 2, 3),
        {"x": (6, 2, 3)},
        free="x0",
        held=("batch_norm averages over this dim",),
        found=(0, 1, 2),
        pattern="x0",
        along=0,
    ),
    Sample(
        "_native_batch_norm_legit_no_training",
        lambda x, m, v, w, b: A._native_batch_norm_legit_no_training.default(x, w, b, m, v, 0.1, 0.1)[0],
        {"x": (2, 6, 3, 4), "m": (6,), "v": variance(6), "w": gain(6), "b": (6,)},
        free="x0 x1 x2 x3 m0 v0 w0 b0",
        found=(0, 1, 2, 4),
    ),
)

INSTANCE = (
    Sample(
        "instance_norm",
        lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
        {"x": (2, 6, 3, 4), "w": gain(6), "b": (6,)},
        free="x0 x1 w0 b0",
        held=("instance_norm averages over this dim",),
        found=(0, 1, 2, 4),
        resized={"x": (3, 6, 2, 5)},
    ),
    Sample(
        "instance_norm with running statistics",
        lambda x, m, v, w, b: F.instance_norm(x, m, v, w, b, use_input_stats=False),
        {"x": (2, 6, 5), "m": (6,), "v": variance(6), "w": gain(6), "b": (6,)},
        free="x0 x1 x2 m0 v0 w0 b0",
        found=(0, 1, 2, 4),
        resized={"x": (3, 6, 4)},
    ),
)

MIXING = (
    Sample(
        "layer_norm",
        lambda x, w, b: F.layer_norm(x, (6,), w, b),
        {"x": (2, 3, 6), "w": gain(6), "b": (6,)},
        free="x0 x1",
        held=("layer_norm averages over this axis",),
        found=(4,),
        pattern="x2",
        along=2,
        resized={"x": (2, 5, 6)},
    ),
    Sample(
        "layer_norm over two dims, without gain",
        lambda x: F.layer_norm(x, (3, 6)),
        {"x": (2, 3, 6)},
        free="x0",
        held=("layer_norm averages over this axis",),
        found=(),
    ),
    Sample(
        "layer_norm over the columns of a multi-head view",
        lambda x, w: F.layer_norm(x.view(2, 3, 4), (4,), w),
        {"x": (2, 12), "w": (4,)},
        free="x0 x1:3",
        held=("layer_norm averages over this axis",),
    ),
    Sample(
        "rms_norm",
        lambda x, w: F.rms_norm(x, (6,), w),
        {"x": (2, 3, 6), "w": gain(6)},
        free="x0 x1",
        held=("rms_norm averages over this axis",),
        found=(0, 4),
        pattern="x2",
        along=2,
    ),
    Sample(
        "rms_norm whose module holds eps",
        lambda x, w, eps: F.rms_norm(x, (6,), w, eps),
        {"x": (2, 3, 6), "w": gain(6)},
        free="x0 x1 x2 w0",
        found=(0, 4),
        pattern="x2",
        along=2,
        eps=0.03,
    ),
    Sample(
        "rms norm written out",
        lambda x, w, eps: w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)),
        {"x": (2, 3, 6), "w": gain(6)},
        free="x0 x1 x2 w0",
        found=(0, 4),
        pattern="x2",
        along=2,
        eps=0.03,
    ),
    Sample(
        "rms norm written out, with one added to its gain",
        lambda x, w, eps: (x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)) * (1.0 + w),
        {"x": (2, 3, 6), "w": gain(6)},
        free="x0 x1 x2 w0",
        found=(0,),
        pattern="x2",
        along=2,
        eps=0.03,
    ),
    Sample(
        "rms norm written out, with an eps that no module holds",
        lambda x, w: w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.03)),
        {"x": (2, 3, 6), "w": gain(6)},
        free="x0 x1",
        held=("mean runs over this axis",),
        pattern="x2",
        along=2,
    ),
    Sample(
        "group_norm",
        lambda x, w, b: F.group_norm(x, 3, w, b),
        {"x": (2, 6, 5, 4), "w": gain(6), "b": (6,)},
        free="x0",
        held=("group_norm averages over this axis",),
        found=(4,),
    ),
    Sample(
        "group_norm without gain",
        lambda x: F.group_norm(x, 3),
        {"x": (2, 6, 5)},
        free="x0",
        held=("group_norm averages",),
    ),
    Sample(
        "local_response_norm",
        lambda x: F.local_response_norm(x, 3),
        {"x": (2, 6, 5, 4)},
        free="x0",
        held=("avg_pool3d slides over it", "div meets an operand whose dim"),
    ),
)

WEIGHTS = (
    Sample(
        "_weight_norm",
        lambda v, g: torch._weight_norm(v, g, 0),
        {"v": (5, 6, 3), "g": (5, 1, 1)},
        free="v0 g0",
        held=("weight_norm takes a norm over this axis",),
        pattern="v1",
    ),
    Sample(
        "_weight_norm over another dim",
        lambda v, g: torch._weight_norm(v, g, 2),
        {"v": (5, 6, 3), "g": (1, 1, 3)},
        free="v2 g2",
        held=("weight_norm takes a norm over this axis",),
        pattern="v1",
    ),
    Sample(
        "_weight_norm over all dims",
        lambda v, g: torch._weight_norm(v, g, -1),
        {"v": (5, 6), "g": ()},
        held=("weight_norm takes a norm over this axis",),
        pattern="v1",
    ),
    Sample(
        "_weight_norm_interface",
        lambda v, g: A._weight_norm_interface.default(v, g, 0),
        {"v": (5, 6, 3), "g": (5, 1, 1)},
        free="v0 g0",
        held=("weight_norm takes a norm over this axis",),
        pattern="v1",
    ),
    Sample(
        "spectral norm's division",
        lambda v: v / torch.linalg.vector_norm(v),
        {"v": (5, 6)},
        held=("linalg_vector_norm runs over this axis",),
        pattern="v1",
    ),
)

RESPONSES = (
    Sample(
        "global response norm",
        lambda x, w, b, eps: (
            (y := x.norm(p=2, dim=(2, 3), keepdim=True)),
            x + b + w * (x * (y / (y.mean(1, keepdim=True) + eps))),
        )[1],
        {"x": (2, 6, 3, 4), "w": (6, 1, 1), "b": (6, 1, 1)},
        free="x0 x1 w0 b0",
        held=("linalg_vector_norm runs over this axis",),
        eps=0.3,
    ),
    Sample(
        "global response norm, added and multiplied in one",
        lambda x, w, b, eps: torch.addcmul(b, w.view(1, 1, -1), x * (x.abs() / (x.abs().mean(-1, keepdim=True) + eps))),
        {"x": (2, 3, 6), "w": (6,), "b": (6,)},
        free="x0 x1 x2 w0 b0",
        eps=0.3,
    ),
    Sample(
        "what a mean divides, without a gain",
        lambda x, eps: x / (x.mean(-1, keepdim=True) + eps),
        {"x": (2, 3, 6)},
        free="x0 x1",
        held=("mean runs over this axis",),
        eps=0.3,
    ),
)

DISTANCES = (
    Sample(
        "cosine_similarity",
        lambda x, y: F.cosine_similarity(x, y, dim=1),
        {"x": (2, 6), "y": (2, 6)},
        held=("cosine_similarity reads whole vectors",),
    ),
    Sample(
        "pairwise_distance", F.pairwise_distance, {"x": (2, 6), "y": (2, 6)}, held=("pairwise_distance reads whole",)
    ),
    Sample("cdist", torch.cdist, {"x": (2, 6), "y": (3, 6)}, held=("cdist reads whole vectors",)),
)

SAMPLES = (*BATCH, *INSTANCE, *MIXING, *RESPONSES, *WEIGHTS, *DISTANCES)
