"""Attention with something to it: position biases, talking heads, rotation, norms inside heads, other products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.attention_nets import HEADS, IN, OUT, TOKENS, WIDTH, Attention, by_hand
from tests.nets import lively

KEY_WIDTH = 5


def with_parts(mix: Any, **parts: Any) -> Attention:
    """Separate q, k and v, and what `mix` needs beside them."""
    net = lively(Attention("separate", mix, parts=parts))
    assert isinstance(net, Attention)
    return net


def _relative(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Swin, T5: a table with a column for every head."""
    n = q.shape[-2]
    at = torch.arange(n)
    bias = m.table[at[:, None] - at[None, :] + TOKENS - 1].permute(2, 0, 1)
    return (q @ k.transpose(-2, -1) * 0.5 + bias).softmax(-1) @ v


def _relative_sdpa(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    n = q.shape[-2]
    at = torch.arange(n)
    bias = m.table[at[:, None] - at[None, :] + TOKENS - 1].permute(2, 0, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0))


def relative(*, sdpa: bool) -> Attention:
    """A bias of the distance, for sequences of up to TOKENS tokens."""
    return with_parts(_relative_sdpa if sdpa else _relative, table=nn.Parameter(torch.zeros(2 * TOKENS - 1, HEADS)))


def _talking(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (q @ k.transpose(-2, -1)) * 0.5
    weights = m.before(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
    return m.after(weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) @ v


def talking() -> Attention:
    """CaiT: heads are mixed before and after the softmax."""
    return with_parts(_talking, before=nn.Linear(HEADS, HEADS), after=nn.Linear(HEADS, HEADS))


def _turned(x: Tensor) -> Tensor:
    """Rotary positions, halves against each other."""
    n = x.shape[-2]
    angle = torch.arange(n)[:, None] * (0.5 ** torch.arange(2))[None, :]
    angle = torch.cat([angle, angle], -1)
    first, second = x.chunk(2, -1)
    return x * angle.cos() + torch.cat([-second, first], -1) * angle.sin()


def rotary() -> Attention:
    """Llama: positions `p` and `p + width / 2` of q and k turn into each other, by angles of their own."""
    return with_parts(lambda m, q, k, v: by_hand(m, _turned(q), _turned(k), v))


def normed(norm: type[nn.Module], **options: Any) -> Attention:
    """Norms of q and k inside heads, one gain for all of them."""
    return with_parts(
        lambda m, q, k, v: by_hand(m, m.q_norm(q), m.k_norm(k), v),
        q_norm=norm(WIDTH, **options),
        k_norm=norm(WIDTH, **options),
    )


def _linear(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k = q.relu(), k.relu()
    total = q @ k.sum(-2).unsqueeze(-1)
    return q @ (k.transpose(-2, -1) @ v) / (total + 1.0)


def linear() -> Attention:
    """No softmax: `q (k^T v)`, divided by `q sum(k)`."""
    return with_parts(_linear)


def _across_channels(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (t.transpose(-2, -1) for t in (q, k, v))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    return ((q @ k.transpose(-2, -1) * m.temperature).softmax(-1) @ v).transpose(-2, -1)


def across_channels() -> Attention:
    """XCiT, Restormer: channels attend to channels; a softmax over them."""
    return with_parts(_across_channels, temperature=nn.Parameter(torch.ones(HEADS, 1, 1)))


def _cosine(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
    return (weights * m.logit_scale.clamp(max=4.6).exp()).softmax(-1) @ v


def cosine() -> Attention:
    """Swin V2: q and k of length 1, a scale for each head."""
    return with_parts(_cosine, logit_scale=nn.Parameter(torch.ones(HEADS, 1, 1)))


class Grouped(nn.Module):
    """Grouped queries: `per` query heads for each of `shared` key heads. `how` says how keys meet queries."""

    def __init__(self, how: str, per: int = 2, shared: int = 2, *, causal: bool = False) -> None:
        super().__init__()
        self.how, self.width, self.causal = how, KEY_WIDTH, causal
        self.num_heads, self.num_kv_heads, self.num_groups = per * shared, shared, per
        self.q = nn.Linear(IN, per * shared * KEY_WIDTH)
        self.k = nn.Linear(IN, shared * KEY_WIDTH)
        self.v = nn.Linear(IN, shared * KEY_WIDTH)
        self.o = nn.Linear(per * shared * KEY_WIDTH, OUT)

    def repeated(self, x: Tensor) -> Tensor:
        if self.how == "repeat_interleave":
            return x.repeat_interleave(self.num_groups, dim=1)
        b, h, n, d = x.shape
        return x[:, :, None].expand(b, h, self.num_groups, n, d).reshape(b, h * self.num_groups, n, d)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        b, n, _ = x.shape
        q = self.q(x).view(b, n, -1, self.width).transpose(1, 2)
        k = self.k(x).view(b, n, -1, self.width).transpose(1, 2)
        v = self.v(x).view(b, n, -1, self.width).transpose(1, 2)
        if self.how == "enable_gqa":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=0.5, enable_gqa=True)
        elif self.how == "broadcast":
            y = F.scaled_dot_product_attention(q.unflatten(1, (-1, self.num_groups)), k[:, :, None], v[:, :, None])
            y = y.flatten(1, 2)
        else:
            k, v = self.repeated(k), self.repeated(v)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=0.5)
        return self.o(y.transpose(1, 2).flatten(2))
