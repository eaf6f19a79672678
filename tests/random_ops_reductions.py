"""Reductions and ops along a dim: each on feature maps `x`, `y` of one shape and a dim `d`, brought back to a map."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.random_ops_pointwise import Function

A = torch.ops.aten

ALONG: dict[str, Function] = {
    "aten.sum.dim_IntList": lambda x, y, d: x + x.sum(d, keepdim=True),
    "aten.mean.dim": lambda x, y, d: x - x.mean(d, keepdim=True),
    "aten.amax.default": lambda x, y, d: x - x.amax(d, keepdim=True),
    "aten.amin.default": lambda x, y, d: x * x.amin(d, keepdim=True),
    "aten.max.dim": lambda x, y, d: x + x.max(d, keepdim=True)[0],
    "aten.min.dim": lambda x, y, d: x + x.min(d, keepdim=True)[0],
    "aten.median.dim": lambda x, y, d: x - x.median(d, keepdim=True)[0],
    "aten.var.correction": lambda x, y, d: x + x.var(d, correction=0, keepdim=True),
    "aten.var.dim": lambda x, y, d: x + A.var.dim(x, [d], False, True),
    "aten.std.correction": lambda x, y, d: x + x.std(d, correction=0, keepdim=True),
    "aten.std.dim": lambda x, y, d: x * A.std.dim(x, [d], False, True),
    "aten.var_mean.correction": lambda x, y, d: sum(torch.var_mean(x, d, correction=0, keepdim=True), x),
    "aten.var_mean.dim": lambda x, y, d: sum(A.var_mean.dim(x, [d], False, True), x),
    "aten.std_mean.correction": lambda x, y, d: sum(torch.std_mean(x, d, correction=0, keepdim=True), x),
    "aten.std_mean.dim": lambda x, y, d: sum(A.std_mean.dim(x, [d], False, True), x),
    "aten.logsumexp.default": lambda x, y, d: x - x.logsumexp(d, keepdim=True),
    "aten.prod.dim_int": lambda x, y, d: x + (1 + 0.1 * x).prod(d, keepdim=True),
    "aten.linalg_vector_norm.default": lambda x, y, d: x + torch.linalg.vector_norm(x, 2, d, keepdim=True),
    "aten.norm.ScalarOpt_dim": lambda x, y, d: x + A.norm.ScalarOpt_dim(x, 2, [d], True),
    "aten.any.dim": lambda x, y, d: x + x.amax(d, keepdim=True) * (x > 0).any(d, keepdim=True),
    "aten.all.dim": lambda x, y, d: x + x.amin(d, keepdim=True) * (x > 0).all(d, keepdim=True),
    "aten.argmax.default": lambda x, y, d: x + x.gather(d, x.argmax(d, keepdim=True)),
    "aten.argmin.default": lambda x, y, d: x + x.gather(d, x.argmin(d, keepdim=True)),
    "aten.kthvalue.default": lambda x, y, d: x + x.kthvalue(2, d, keepdim=True)[0],
    "aten.topk.default": lambda x, y, d: x.topk(2, d)[0],
}

EVERYTHING: dict[str, Function] = {
    "aten.sum.default": lambda x, y, d: x + (0.1 * x.sum()).tanh(),
    "aten.mean.default": lambda x, y, d: x + x.mean(),
    "aten.max.default": lambda x, y, d: x - x.max(),
    "aten.min.default": lambda x, y, d: x - x.min(),
    "aten.var.default": lambda x, y, d: x + A.var.default(x, False),
    "aten.std.default": lambda x, y, d: x + A.std.default(x, False),
    "aten.prod.default": lambda x, y, d: x + (1 + 0.02 * x.tanh()).prod(),
    "aten.norm.Scalar": lambda x, y, d: x / (1 + A.norm.Scalar(x, 2)),
    "aten.any.default": lambda x, y, d: x + x.amax() * (x > 0).any(),
    "aten.all.default": lambda x, y, d: x + x.amin() * (x > -1).all() * 0,
}

MIXED: dict[str, Function] = {
    "aten.softmax.int": lambda x, y, d: x.softmax(d),
    "aten._softmax.default": lambda x, y, d: A._softmax.default(x, d, False),
    "aten.log_softmax.int": lambda x, y, d: x.log_softmax(d),
    "aten._log_softmax.default": lambda x, y, d: A._log_softmax.default(x, d, False),
    "aten.cumsum.default": lambda x, y, d: x.cumsum(d) * 0.5,
    "aten.cumprod.default": lambda x, y, d: (1 + 0.1 * x).cumprod(d),
    "aten.logcumsumexp.default": lambda x, y, d: x.logcumsumexp(d),
    "aten.cummax.default": lambda x, y, d: x.cummax(d)[0],
    "aten.cummin.default": lambda x, y, d: x.cummin(d)[0],
    "aten.sort.default": lambda x, y, d: x.sort(d)[0],
    "aten.sort.stable": lambda x, y, d: A.sort.stable(x, stable=True, dim=d)[0],
    "aten.argsort.default": lambda x, y, d: x.gather(d, x.argsort(d)),
    "aten.glu.default": lambda x, y, d: F.glu(x, d),
    "aten.cosine_similarity.default": lambda x, y, d: x * F.cosine_similarity(x, y, dim=d).unsqueeze(d),
    "aten.pairwise_distance.default": lambda x, y, d: x + F.pairwise_distance(x, y, keepdim=True),
    "aten.cdist.default": lambda x, y, d: torch.cdist(x, y) * 0.3,
}

REDUCTIONS: dict[str, Function] = ALONG | EVERYTHING | MIXED
