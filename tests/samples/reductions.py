"""Reductions, and ops that mix the positions of a dim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.samples.sample import Sample

A = torch.ops.aten
X = {"x": (2, 6, 3, 5)}


def over_space(name: str, function: Callable[[Tensor], Any], held: str, found: tuple[int, ...] = ()) -> Sample:
    """A reduction over dims 2 and 3 (or 3): channels pass."""
    return Sample(
        f"{name} over space", function, X, free="x0 x1", held=(held,), found=found, resized={"x": (3, 6, 2, 4)}
    )


def over_last(name: str, function: Callable[[Tensor], Any], held: str, found: tuple[int, ...] = ()) -> Sample:
    """An op along dim 3 alone."""
    return Sample(
        f"{name} along a dim", function, X, free="x0 x1 x2", held=(held,), found=found, resized={"x": (3, 6, 2, 4)}
    )


def over_channels(name: str, function: Callable[[Tensor], Any], held: str) -> Sample:
    """An op that reads the channels together: they are held, and nothing is known."""
    return Sample(f"{name} over channels", function, X, free="x0 x2 x3", held=(held,))


def over_all(name: str, function: Callable[[Tensor], Any], held: str) -> Sample:
    return Sample(f"{name} over everything", function, {"x": (2, 6)}, held=(held,), along=0)


S = (2, 3)
SUMS = (
    Sample("sum over space", lambda x: x.sum(S), X, free="x0 x1 x2 x3", found=(0,), resized={"x": (3, 6, 2, 4)}),
    Sample("sum over channels", lambda x: x.sum(1), X, free="x0 x1 x2 x3", resized={"x": (3, 6, 2, 4)}),
    Sample("sum over channels, kept", lambda x: x.sum((1,), keepdim=True), X, free="x0 x1 x2 x3"),
    Sample("sum over everything", lambda x: x.sum(), {"x": (2, 6)}, free="x0 x1"),
    Sample("sum over columns", lambda x: x.view(3, 2, 4).sum(2), {"x": (3, 8)}, free="x0 x1:2"),
    Sample("sum over rows", lambda x: x.view(3, 2, 4).sum(1), {"x": (3, 8)}, free="x0 x1:4"),
)

OVER_SPACE = (
    over_space("mean", lambda x: x.mean(S), "mean runs over this axis", (0, 1, 2)),
    over_space("mean, kept", lambda x: x.mean((-1, -2), keepdim=True), "mean runs over this axis", (0, 1, 2)),
    over_space("amax", lambda x: x.amax(S), "amax runs over this axis", (0, 1, 2)),
    over_space("amin", lambda x: x.amin(S, keepdim=True), "amin runs over this axis", (0, 1, 2)),
    over_space("var", lambda x: x.var(S, correction=0), "var runs over this axis"),
    over_space("var.dim", lambda x: A.var.dim(x, [2, 3]), "var runs over this axis"),
    over_space("std", lambda x: x.std(S, correction=1), "std runs over this axis"),
    over_space("std.dim", lambda x: A.std.dim(x, [2, 3]), "std runs over this axis"),
    over_space("var_mean", lambda x: torch.var_mean(x, S), "var_mean runs over this axis"),
    over_space("std_mean", lambda x: torch.std_mean(x, S, keepdim=True), "std_mean runs over this axis"),
    over_space("var_mean.correction", lambda x: torch.var_mean(x, S, correction=0), "var_mean runs over this axis"),
    over_space("std_mean.correction", lambda x: torch.std_mean(x, S, correction=0), "std_mean runs over this axis"),
    over_space("logsumexp", lambda x: x.logsumexp(S), "logsumexp runs over this axis"),
    over_space("norm", lambda x: A.norm.ScalarOpt_dim(x, 2, [2, 3]), "norm runs over this axis", (0,)),
    over_space(
        "vector_norm", lambda x: torch.linalg.vector_norm(x, 1, S), "linalg_vector_norm runs over this axis", (0,)
    ),
    over_space("vector_norm of 0", lambda x: torch.linalg.vector_norm(x, 0, S), "linalg_vector_norm runs over", (0,)),
    over_space("norm of minus infinity", lambda x: A.norm.ScalarOpt_dim(x, -torch.inf, [2, 3]), "norm runs over", (0,)),
    over_last("max", lambda x: x.max(3), "max runs over this axis", (0, 1, 2)),
    over_last("min", lambda x: x.min(-1, keepdim=True), "min runs over this axis", (0, 1, 2)),
    over_last("median", lambda x: x.median(3), "median runs over this axis", (0, 1, 2)),
    over_last("prod", lambda x: x.prod(3), "prod runs over this axis"),
    over_last("any", lambda x: (x > 1).any(3), "any runs over this axis"),
    over_last("all", lambda x: (x > 1).all(3), "all runs over this axis"),
    over_last("argmax", lambda x: x.argmax(3), "argmax runs over this axis"),
    over_last("argmin", lambda x: x.argmin(3, keepdim=True), "argmin runs over this axis"),
)

OVER_CHANNELS = (
    over_channels("mean", lambda x: x.mean(1), "mean runs over this axis"),
    over_channels("amax", lambda x: x.amax(1), "amax runs over this axis"),
    over_channels("amin", lambda x: x.amin(1), "amin runs over this axis"),
    over_channels("max", lambda x: x.max(1), "max runs over this axis"),
    over_channels("min", lambda x: x.min(1), "min runs over this axis"),
    over_channels("var", lambda x: x.var(1), "var runs over this axis"),
    over_channels("std", lambda x: x.std(1), "std runs over this axis"),
    over_channels("logsumexp", lambda x: x.logsumexp(1), "logsumexp runs over this axis"),
    over_channels("prod", lambda x: x.prod(1), "prod runs over this axis"),
    over_channels("any", lambda x: (x > 0).any(1), "any runs over this axis"),
    over_channels("all", lambda x: (x > 0).all(1), "all runs over this axis"),
    over_channels("median", lambda x: x.median(1), "median runs over this axis"),
    over_channels("argmax", lambda x: x.argmax(1), "argmax runs over this axis"),
    over_channels("vector_norm", lambda x: torch.linalg.vector_norm(x, 2, 1), "linalg_vector_norm runs over this axis"),
    over_channels("kthvalue", lambda x: x.kthvalue(2, 1), "kthvalue runs over this axis"),
    over_channels("topk", lambda x: x.topk(2, 1), "topk runs over this axis"),
    over_channels("softmax", lambda x: x.softmax(1), "softmax runs over this axis"),
    over_channels("log_softmax", lambda x: x.log_softmax(1), "log_softmax runs over this axis"),
    over_channels("cumsum", lambda x: x.cumsum(1), "cumsum runs over this axis"),
    over_channels("sort", lambda x: x.sort(1), "sort runs over this axis"),
    Sample(
        "mean over columns",
        lambda x: x.view(3, 2, 4).mean(2),
        {"x": (3, 8)},
        free="x0 x1:2",
        found=(),
    ),
    Sample(
        "attention over space (CBAM)",
        lambda x, w: x * torch.conv2d(torch.cat([x.mean(1, True), x.amax(1, True)], 1), w, padding=1).sigmoid(),
        {"x": (2, 6, 3, 5), "w": (1, 2, 3, 3)},
        free="x0",
        held=("mean runs", "amax runs", "conv2d slides", "conv2d meets", "mul meets", "a convolution's kernel"),
    ),
    Sample(
        "attention over channels by a convolution (ECA)",
        lambda x, w: x * torch.conv1d(x.mean((2, 3))[:, None], w, padding=1).sigmoid().transpose(1, 2)[..., None],
        {"x": (2, 6, 3, 5), "w": (1, 1, 3)},
        free="x0",
        held=("mean runs", "conv1d slides over it", "a convolution's kernel", "mul meets"),
    ),
    Sample("softmax over columns", lambda x: x.view(3, 2, 4).softmax(2), {"x": (3, 8)}, free="x0 x1:2"),
    Sample("softmax over rows", lambda x: x.view(3, 2, 4).softmax(1), {"x": (3, 8)}, free="x0 x1:4"),
)

OVER_ALL = (
    over_all("mean", lambda x: x.mean(), "mean runs over this axis"),
    over_all("amax", lambda x: x.amax(), "amax runs over this axis"),
    over_all("max", lambda x: x.max(), "max runs over this axis"),
    over_all("min", lambda x: x.min(), "min runs over this axis"),
    over_all("var", A.var.default, "var runs over this axis"),
    over_all("std", A.std.default, "std runs over this axis"),
    over_all("prod", lambda x: x.prod(), "prod runs over this axis"),
    over_all("any", lambda x: (x > 0).any(), "any runs over this axis"),
    over_all("all", lambda x: (x > 0).all(), "all runs over this axis"),
    over_all("argmax", lambda x: x.argmax(), "argmax runs over this axis"),
    over_all("norm", lambda x: A.norm.Scalar(x, 2), "norm runs over this axis"),
)

MIXING = (
    over_last("softmax", lambda x: x.softmax(3), "softmax runs over this axis"),
    over_last("_softmax", lambda x: A._softmax.default(x, 3, False), "_softmax runs over this axis"),
    over_last("log_softmax", lambda x: x.log_softmax(-1), "log_softmax runs over this axis"),
    over_last("_log_softmax", lambda x: A._log_softmax.default(x, 3, False), "_log_softmax runs over this axis"),
    over_last("cumsum", lambda x: x.cumsum(3), "cumsum runs over this axis"),
    over_last("cumprod", lambda x: x.cumprod(3), "cumprod runs over this axis"),
    over_last("logcumsumexp", lambda x: x.logcumsumexp(3), "logcumsumexp runs over this axis"),
    over_last("cummax", lambda x: x.cummax(3), "cummax runs over this axis"),
    over_last("cummin", lambda x: x.cummin(3), "cummin runs over this axis"),
    over_last("sort", lambda x: x.sort(3), "sort runs over this axis"),
    over_last("stable sort", lambda x: A.sort.stable(x, stable=True, dim=3), "sort runs over this axis"),
    over_last("argsort", lambda x: x.argsort(3), "argsort runs over this axis"),
    over_last("topk", lambda x: x.topk(2, 3), "topk runs over this axis"),
    over_last("kthvalue", lambda x: x.kthvalue(2, 3), "kthvalue runs over this axis"),
    over_last("kthvalue, kept", lambda x: x.kthvalue(2, 3, keepdim=True), "kthvalue runs over this axis"),
)

GATED = (
    Sample("glu", lambda x: F.glu(x, 1), {"x": (2, 8, 5)}, free="x0 x1:4 x2", found=(0,), resized={"x": (3, 8, 4)}),
    Sample("glu, the last dim", F.glu, {"x": (2, 3, 6)}, free="x0 x1 x2:3", found=(0, 1, 2)),
    Sample(
        "glu to one channel",
        lambda x: F.glu(x, 1),
        {"x": (3, 2)},
        free="x0",
        held=("glu leaves one channel of it",),
    ),
    Sample("glu over columns", lambda x: F.glu(x.view(3, 2, 6), 2), {"x": (3, 12)}, free="x0 x1:6"),
    Sample("glu over rows", lambda x: F.glu(x.view(3, 4, 5), 1), {"x": (3, 20)}, free="x0 x1:10"),
)

SAMPLES = (*SUMS, *OVER_SPACE, *OVER_CHANNELS, *OVER_ALL, *MIXING, *GATED)
