"""Attention blocks of published nets that users of other tools stumble over, each as small as it can be."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class YoloAttention(nn.Module):
    """YOLOv10: one convolution gives q, k, v of two widths by view and split; a depthwise one on v adds positions."""

    def __init__(self, dim: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, dim // heads
        self.key_dim = self.head_dim // 2
        self.scale = self.key_dim**-0.5
        self.stem = nn.Conv2d(3, dim, 1)
        self.qkv = nn.Conv2d(dim, dim + 2 * self.key_dim * heads, 1)
        self.pe = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.proj = nn.Conv2d(dim, dim, 1)
        self.head = nn.Conv2d(dim, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, _, h, w = x.shape
        qkv = self.qkv(x).view(b, self.num_heads, self.key_dim * 2 + self.head_dim, h * w)
        q, k, v = qkv.split([self.key_dim, self.key_dim, self.head_dim], dim=2)
        weights = (q.transpose(-2, -1) @ k * self.scale).softmax(-1)
        y = (v @ weights.transpose(-2, -1)).reshape(b, -1, h, w) + self.pe(v.reshape(b, -1, h, w))
        return self.head(x + self.proj(y))


class VitBlock(nn.Module):
    """A class token, qkv in one layer, an MLP. `how` is "index", "unbind" or "chunk"."""

    def __init__(self, how: str, dim: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.how, self.heads, self.width = how, heads, dim // heads
        self.patch = nn.Conv2d(3, dim, 2, stride=2)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 20), nn.Linear(20, dim)
        self.head = nn.Linear(dim, 5)

    def attend(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        if self.how == "chunk":
            q, k, v = (part.reshape(b, n, self.heads, self.width).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        else:
            qkv = self.qkv(x).reshape(b, n, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0) if self.how == "unbind" else (qkv[0], qkv[1], qkv[2])
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(b, n, -1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        x = x + self.attend(self.norm1(x))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(x[:, 0])


class Literal(nn.Module):
    """BERT with q, k and v apart, and the sizes of heads as literals."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(6, 12)
        self.out = nn.Linear(12, 6)
        self.up, self.down = nn.Linear(6, 16), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (layer(x).view(b, n, 3, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = (q @ k.transpose(-2, -1) / 2.0).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(b, n, 12))
        return x + self.down(F.gelu(self.up(x)))


class Restormer(nn.Module):
    """1x1, depthwise, chunk, normalise, a temperature, attention over channels; then a gated depthwise MLP."""

    def __init__(self, dim: int = 12, heads: int = 3, hidden: int = 10) -> None:
        super().__init__()
        self.heads = heads
        self.stem = nn.Conv2d(3, dim, 1)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.qkv_depthwise = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim)
        self.proj = nn.Conv2d(dim, dim, 1)
        self.into = nn.Conv2d(dim, 2 * hidden, 1)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.out = nn.Conv2d(hidden, dim, 1)
        self.head = nn.Conv2d(dim, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, _, h, w = x.shape
        parts = self.qkv_depthwise(self.qkv(x)).chunk(3, 1)
        q, k, v = (part.reshape(b, self.heads, -1, h * w) for part in parts)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        y = (q @ k.transpose(-2, -1) * self.temperature).softmax(-1) @ v
        x = x + self.proj(y.reshape(b, -1, h, w))
        one, two = self.depthwise(self.into(x)).chunk(2, 1)
        return self.head(x + self.out(F.gelu(one) * two))


class Merging(nn.Module):
    """Swin: four strided slices of patches side by side, a LayerNorm, a Linear; behind a layer and before a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 6, 1)
        self.norm = nn.LayerNorm(24)
        self.reduction = nn.Linear(24, 12, bias=False)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.reduction(self.norm(x)).relu())


class GateUp(nn.Module):
    """Phi-3: gate and up in one layer, then chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up = nn.Linear(6, 20)
        self.down = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)
