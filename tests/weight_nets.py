"""Nets whose heads lie in weights and biases of their own rank: what XLNet, Funnel, ConvBERT and Griffin do."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DIM, HEADS, WIDTH = 12, 4, 6


class EinsumAttention(nn.Module):
    """Weights `[dim, heads, width]`, contracted by einsum (XLNet); positions by a weight of their own."""

    def __init__(self, *, shifted: bool = False) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.empty(HEADS, WIDTH)) if shifted else None
        self.norm = nn.LayerNorm(DIM)
        for name in ("q", "k", "v", "o", "r"):
            setattr(self, name, nn.Parameter(torch.empty(DIM, HEADS, WIDTH)))
        self.at = nn.Parameter(torch.empty(5, DIM))
        self.content, self.place = (nn.Parameter(torch.empty(HEADS, WIDTH)) for _ in range(2))
        self.scale = 1 / math.sqrt(WIDTH)
        self.head = nn.Linear(DIM, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (torch.einsum("bih,hnd->bind", h, w) for w in (self.q, self.k, self.v))
        v = v if self.shift is None else v + self.shift
        r = torch.einsum("jh,hnd->jnd", self.at, self.r)
        scores = torch.einsum("bind,bjnd->bnij", q + self.content, k)
        scores = scores + torch.einsum("bind,jnd->bnij", q + self.place, r)
        mixed = torch.einsum("bnij,bjnd->bind", (scores * self.scale).softmax(-1), v)
        out: Tensor = self.head(x + torch.einsum("bind,hnd->bih", mixed, self.o))
        return out


class RelativeAttention(nn.Module):
    """Queries and keys viewed as heads, biases and a weight of positions with heads of their own (Funnel)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(DIM)
        self.heads, self.width = HEADS, WIDTH
        self.q, self.k, self.v = (nn.Linear(DIM, HEADS * WIDTH, bias=bias) for bias in (False, True, True))
        self.content, self.place = (nn.Parameter(torch.empty(HEADS, WIDTH)) for _ in range(2))
        self.r = nn.Parameter(torch.empty(DIM, HEADS, WIDTH))
        self.at = nn.Parameter(torch.empty(5, DIM))
        self.scale = 1 / math.sqrt(WIDTH)
        self.o = nn.Linear(HEADS * WIDTH, DIM)
        self.head = nn.Linear(DIM, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, (b, n, _) = self.norm(x), x.shape
        q, k, v = (layer(h).view(b, n, self.heads, self.width) for layer in (self.q, self.k, self.v))
        r = torch.einsum("jh,hnd->jnd", self.at, self.r)
        scores = torch.einsum("bind,bjnd->bnij", q + self.content, k)
        scores = scores + torch.einsum("bind,jnd->bnij", q + self.place, r)
        seen = torch.ones(b, 1, n, n, dtype=torch.bool).expand(b, q.shape[2], n, n)
        weights = torch.where(seen, scores * self.scale, -1e9).softmax(-1)
        mixed = torch.einsum("bnij,bjnd->bind", weights, v)
        out: Tensor = self.head(x + self.o(mixed.reshape(b, n, self.heads * self.width)))
        return out


class TwoHalves(nn.Module):
    """Heads of attention and heads of a gated layer side by side: two of each (ConvBERT)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(DIM)
        self.heads, self.width = 2, WIDTH
        self.q, self.k, self.v, self.other = (nn.Linear(DIM, 2 * WIDTH) for _ in range(4))
        self.gate = nn.Linear(DIM, 2)
        self.o = nn.Linear(4 * WIDTH, DIM)
        self.head = nn.Linear(DIM, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, (b, n, _) = self.norm(x), x.shape
        q, k, v = (layer(h).view(b, n, -1, self.width).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        other = self.other(h).view(b, n, self.heads, self.width) * torch.sigmoid(self.gate(h)).unsqueeze(-1)
        out: Tensor = self.head(x + self.o(torch.cat([mixed, other], 2).flatten(2)))
        return out


class GroupedAttention(nn.Module):
    """Queries, keys and values by convolutions of which each conv group is one head (SqueezeBERT)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(DIM, DIM), nn.LayerNorm(DIM)
        self.q, self.k, self.v = (nn.Conv1d(DIM, HEADS * WIDTH, 1, groups=HEADS) for _ in range(3))
        self.o = nn.Conv1d(HEADS * WIDTH, DIM, 1)
        self.head = nn.Linear(DIM, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, (b, n, _) = self.norm(self.embed(x)).transpose(1, 2), x.shape
        q, k, v = (layer(h).unflatten(1, (HEADS, -1)).transpose(2, 3) for layer in (self.q, self.k, self.v))
        weights = (q @ k.transpose(2, 3) / math.sqrt(WIDTH)).softmax(-1)
        mixed = (weights @ v).transpose(2, 3).reshape(b, -1, n)
        out: Tensor = self.head(x + self.o(mixed).transpose(1, 2))
        return out


class NormedHeads(nn.Module):
    """Every query and key head has a LayerNorm of its own, and two query heads share a key head (StableLM)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(DIM)
        self.q, self.k, self.v = nn.Linear(DIM, 4 * WIDTH), nn.Linear(DIM, 2 * WIDTH), nn.Linear(DIM, 2 * WIDTH)
        self.q_norms, self.k_norms = (nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(n)) for n in (4, 2))
        self.o = nn.Linear(4 * WIDTH, DIM)
        self.head = nn.Linear(DIM, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k = (layer(h).unflatten(-1, (-1, WIDTH)).transpose(1, 2) for layer in (self.q, self.k))
        v = self.v(h).unflatten(-1, (2, -1)).transpose(1, 2)
        q = torch.cat([norm(one) for norm, one in zip(self.q_norms, q.split(1, 1), strict=True)], 1)
        k = torch.cat([norm(one) for norm, one in zip(self.k_norms, k.split(1, 1), strict=True)], 1)
        k, v = (one[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for one in (k, v))
        out: Tensor = self.head(x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))
        return out


class GatedRecurrence(nn.Module):
    """A recurrence that begins at zeros; its gates are blocks on a diagonal, in weights of three dims (Griffin)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(DIM)
        self.heads, self.width = HEADS, WIDTH
        self.x, self.y = nn.Linear(DIM, HEADS * WIDTH), nn.Linear(DIM, HEADS * WIDTH)
        self.gate = nn.Parameter(torch.empty(HEADS, WIDTH, WIDTH))
        self.gate_bias = nn.Parameter(torch.empty(HEADS, WIDTH))
        self.decay = nn.Parameter(torch.empty(HEADS * WIDTH))
        self.o = nn.Linear(HEADS * WIDTH, DIM)
        self.head = nn.Linear(DIM, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, (b, n, _) = self.norm(x), x.shape
        new, beside = self.x(h), F.gelu(self.y(h))
        blocks = new.reshape(b * n, self.heads, self.width).transpose(0, 1)
        gates = torch.baddbmm(self.gate_bias[:, None], blocks, self.gate).transpose(0, 1).reshape(new.shape).sigmoid()
        keep, new = torch.exp(-gates * F.softplus(self.decay)), gates * new
        state = torch.zeros(new[:, 0].shape)
        states = []
        for t in range(n):
            state = keep[:, t] * state + new[:, t]
            states.append(state)
        out: Tensor = self.head(x + self.o(torch.stack(states, 1) * beside))
        return out
