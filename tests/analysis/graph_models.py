"""Small models whose own code is hard to run narrower, with inputs of any batch and size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgery.analysis.graph_modules import GraphModel
from surgery.analysis.graphs import as_graph
from surgery.inputs import Inputs


class Attention(nn.Module):
    """A block of nn.MultiheadAttention, which asserts its sizes and drops out inside attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, dropout=0.2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Dropout(0.3), nn.Linear(24, 16))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(x)


class Literal(nn.Module):
    """A ViT block whose views have their sizes written down, in a dict, called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(64, 192, bias=False)
        self.out = nn.Linear(64, 64)

    def forward(self, x: Tensor, *, scale: Tensor | None = None, double: bool = False) -> dict[str, Any]:
        b, n, _ = x.shape
        q, k, v = (part.view(b, n, 4, 16).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, 64)
        places = torch.arange(n, device=x.device).view(1, n, 1)
        y = self.out(y) + places
        if scale is not None:
            y = y * scale
        return {"y": y * 2 if double else y, "parts": [q, (k, v)], "length": n}


class Convolutions(nn.Module):
    """Batch norms, one of them averaging over all batches, and dropouts."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 6, 3)
        self.average = nn.BatchNorm2d(6, momentum=None)
        self.drop = nn.Dropout2d(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn(self.a(x)))
        y = self.drop(self.average(self.b(y)))
        return F.dropout(y, 0.25, self.training).mean((2, 3))


class Tied(nn.Module):
    """One weight under two names, a literal tensor, a buffer that is not saved, and one that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("shift", torch.arange(4.0), persistent=False)
        self.register_buffer("unread", torch.ones(2))
        self.embedding.weight.requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids) + self.shift) * torch.tensor(2.0)


MODELS: Mapping[str, tuple[Callable[[], nn.Module], Callable[[int, int], Inputs]]] = {
    "attention": (Attention, lambda b, n: Inputs.of(torch.randn(b, n, 16))),
    "literal": (
        Literal,
        lambda b, n: Inputs((torch.randn(b, n, 64),), {"scale": torch.randn(b, n, 1), "double": True}),
    ),
    "convolutions": (Convolutions, lambda b, n: Inputs.of(torch.randn(b, 3, n, n))),
    "tied": (Tied, lambda b, n: Inputs.of(torch.randint(0, 11, (b, n)))),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
        lambda b, n: Inputs.of(torch.randn(b, n, 16)),
    ),
}
NAMES = tuple(MODELS)


@cache
def built(name: str, batch: int, size: int) -> tuple[nn.Module, GraphModel]:
    torch.manual_seed(0)
    build, inputs = MODELS[name]
    model = build()
    return model, as_graph(model, inputs(batch, size))


def made(name: str, batch: int = 2, size: int = 6) -> tuple[nn.Module, GraphModel, Callable[[int, int], Inputs]]:
    """A model and its graph, both copied as one, so that they share their tensors."""
    return (*copy.deepcopy(built(name, batch, size)), MODELS[name][1])
