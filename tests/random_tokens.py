"""Steps of random nets on tokens `[b, n, c]`: attention as people write it, norms, gated layers, recurrence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WrittenNorm(nn.Module):
    """A root mean square norm as language models write it; Gemma's multiplies by `1 + weight`."""

    def __init__(self, width: int, eps: float, *, offset: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.variance_epsilon, self.offset = eps, offset

    def forward(self, x: Tensor) -> Tensor:
        kind = x.dtype
        wide = x.to(torch.float64)
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (1.0 + self.weight) * normed.to(kind) if self.offset else self.weight * normed.to(kind)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, offset={self.offset}"


NORMS = ("none", "rms", "written", "gemma", "layer", "rms without eps")


def norm_of(kind: str, width: int) -> nn.Module:
    """A norm over the last dim."""
    if kind == "none":
        return nn.Identity()
    if kind == "layer":
        return nn.LayerNorm(width)
    if kind in ("written", "gemma"):
        return WrittenNorm(width, 1e-2, offset=kind == "gemma")
    return nn.RMSNorm(width, eps=None if kind == "rms without eps" else 1e-2)


LAYOUTS = ("separate", "chunk", "split", "unbind", "heads first", "interleaved")
"""How queries, keys and values come out of their layers; all but the first are one fused layer."""

KERNELS = ("sdpa", "softmax", "einsum", "folded", "linear", "baddbmm")
SHARING = ("expand", "repeat_interleave", "enable_gqa", "repeat_interleave")
SIZES = ("both", "heads", "width")
"""Which numbers a view spells out; the other is -1."""

SCALES = ("none", "attribute", "width", "literal")
MASKS = ("none", "causal", "buffer", "none")


@dataclass(frozen=True)
class Style:
    """How an attention is written."""

    heads: int = 2
    width: int = 4
    sharing: int = 1
    layout: str = "separate"
    kernel: str = "sdpa"
    method: str = "expand"
    sizes: str = "both"
    scale: str = "none"
    mask: str = "none"
    norm: str = "none"
    rotary: bool = False
    bias: bool = True
    flat: str = "-1"


class Attention(nn.Module):
    """`[b, n, c] -> [b, n, c]`: several heads, some of which may share keys and values."""

    def __init__(self, channels: int, tokens: int, style: Style) -> None:
        super().__init__()
        self.style = style
        self.num_heads, self.head_dim = style.heads, style.width
        self.num_kv_heads = style.heads // style.sharing
        self.inner, self.kv_inner = style.heads * style.width, self.num_kv_heads * style.width
        self.scale = style.width**-0.5
        if style.layout == "separate":
            self.q = nn.Linear(channels, self.inner, bias=style.bias)
            self.k = nn.Linear(channels, self.kv_inner, bias=style.bias)
            self.v = nn.Linear(channels, self.kv_inner, bias=style.bias)
        else:
            self.qkv = nn.Linear(channels, self.inner + 2 * self.kv_inner, bias=style.bias)
        self.o = nn.Linear(self.inner, channels, bias=style.bias)
        self.q_norm, self.k_norm = norm_of(style.norm, style.width), norm_of(style.norm, style.width)
        if style.rotary:
            angles = torch.arange(tokens)[:, None] * torch.arange(1, style.width // 2 + 1)[None] * 0.4
            self.register_buffer("cos", torch.cat((angles, angles), -1).cos(), persistent=False)
            self.register_buffer("sin", torch.cat((angles, angles), -1).sin(), persistent=False)
        if style.kernel == "baddbmm":
            self.register_buffer("zero", torch.zeros(1, tokens, tokens), persistent=False)
        if style.mask == "buffer":
            self.register_buffer("hidden", torch.ones(tokens, tokens).triu(1).bool(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.style.rotary:
            q, k = self._turned(q), self._turned(k)
        if self.num_kv_heads != self.num_heads and not self._op_shares():
            k, v = self._shared(k), self._shared(v)
        mixed = self._mixed(q, k, v).transpose(1, 2)
        b, n, _ = x.shape
        flat = {"-1": -1, "inner": self.inner, "product": self.num_heads * self.head_dim}
        return self.o(mixed.reshape(b, n, flat[self.style.flat]))

    def _op_shares(self) -> bool:
        return self.style.method == "enable_gqa" and self.style.kernel == "sdpa"

    def _split(self, x: Tensor, heads: int) -> Tensor:
        """`[b, n, h · d] -> [b, h, n, d]`."""
        b, n, _ = x.shape
        sizes = {"both": (heads, self.head_dim), "heads": (heads, -1), "width": (-1, self.head_dim)}
        return x.view(b, n, *sizes[self.style.sizes]).transpose(1, 2)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, n, _ = x.shape
        layout = self.style.layout
        if layout == "separate":
            parts = self.q(x), self.k(x), self.v(x)
        elif layout in ("chunk", "split"):
            fused = self.qkv(x)
            same = layout == "chunk" and self.inner == self.kv_inner
            parts = fused.chunk(3, -1) if same else fused.split((self.inner, self.kv_inner, self.kv_inner), -1)
        elif layout == "unbind":
            return self.qkv(x).view(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        elif layout == "heads first":
            return self.qkv(x).view(b, n, self.num_heads, 3, self.head_dim).permute(3, 0, 2, 1, 4).unbind(0)
        else:
            return self.qkv(x).view(b, n, self.num_heads, -1).transpose(1, 2).chunk(3, -1)
        q, k, v = parts
        return self._split(q, self.num_heads), self._split(k, self.num_kv_heads), self._split(v, self.num_kv_heads)

    def _turned(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        return x * self.cos + torch.cat((-x[..., half:], x[..., :half]), -1) * self.sin

    def _shared(self, x: Tensor) -> Tensor:
        times = self.num_heads // self.num_kv_heads
        if self.style.method == "expand":
            b, h, n, d = x.shape
            return x[:, :, None].expand(b, h, times, n, d).reshape(b, h * times, n, d)
        return x.repeat_interleave(times, 1)

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        style = self.style
        factor = {"none": 1.0, "attribute": self.scale, "width": 1 / math.sqrt(q.shape[-1]), "literal": 0.4}
        if style.kernel == "sdpa":
            scale = None if style.scale == "none" else factor[style.scale]
            mask = ~self.hidden if style.mask == "buffer" else None
            causal = style.mask == "causal"
            shares = self._op_shares() and self.num_kv_heads != self.num_heads
            return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=shares)
        if style.kernel == "linear":  # keys and values first
            return q.softmax(-1) @ (k.softmax(-2).transpose(-2, -1) @ v)
        if style.kernel in ("folded", "baddbmm"):
            (b, h, n, _), d = q.shape, v.shape[-1]
            q, k, v = (each.reshape(b * h, n, -1) for each in (q, k, v))
            if style.kernel == "baddbmm":
                scores = torch.baddbmm(self.zero.to(q.dtype), q, k.transpose(1, 2)) * factor[style.scale]
            else:
                scores = torch.bmm(q * factor[style.scale], k.transpose(1, 2))
            return torch.bmm(scores.softmax(-1), v).view(b, h, n, d)
        if style.kernel == "einsum":
            scores = torch.einsum("bhnd,bhmd->bhnm", q, k) * factor[style.scale]
        else:
            scores = q @ k.transpose(-2, -1) * factor[style.scale]
        if style.mask == "buffer":
            scores = scores.masked_fill(self.hidden, -1e4)
        weights = scores.softmax(-1)
        return torch.einsum("bhnm,bhmd->bhnd", weights, v) if style.kernel == "einsum" else weights @ v

    def silence_(self, how: int, generator: torch.Generator) -> None:
        """Zero whole heads, positions of queries or keys in every head, or values (with their biases, or without)."""
        h, kv, d = self.num_heads, self.num_kv_heads, self.head_dim
        times = h // kv
        some = torch.rand(kv, generator=generator) < 0.4
        widths = torch.rand(d, generator=generator) < 0.4
        if how % 2:  # positions of their own in every head, equally many
            widths = torch.stack([widths[torch.randperm(d, generator=generator)] for _ in range(kv)])
        else:
            widths = widths.expand(kv, d)
        shared = widths.repeat_interleave(times, 0).flatten()
        if how % 3 == 0 and not some.all():
            self.o.weight.data[:, some.repeat_interleave(times * d)] = 0
        if how % 4 == 1 and times > 1:  # one query head of every key head
            first = (torch.arange(h * d) // d) % times == int(torch.randint(times, (), generator=generator))
            self.o.weight.data[:, first] = 0
        q, k, v = self._rows()
        if how % 5 in (1, 2):
            which = (q, shared) if how % 5 == 1 else (k, widths.flatten())
            self._zero_rows_(which[0][which[1]], bias=True)
        if how % 5 in (2, 3):
            self._zero_rows_(v[widths.flatten()], bias=how % 2 == 0)

    def _rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Which rows of the layers make queries, keys and values, `[h · d]` each."""
        h, kv, d = self.num_heads, self.num_kv_heads, self.head_dim
        if self.style.layout == "separate":
            return torch.arange(h * d), h * d + torch.arange(kv * d), (h + kv) * d + torch.arange(kv * d)
        rows = torch.arange((h + 2 * kv) * d)
        if self.style.layout in ("heads first", "interleaved"):
            q, k, v = rows.view(h, 3, d).unbind(1)
            return q.flatten(), k.flatten(), v.flatten()
        q, k, v = rows.split((h * d, kv * d, kv * d))
        return q, k, v

    def _zero_rows_(self, rows: Tensor, *, bias: bool) -> None:
        layers = (self.q, self.k, self.v) if self.style.layout == "separate" else (self.qkv,)
        start = 0
        for layer in layers:
            inside = rows[(rows >= start) & (rows < start + layer.out_features)] - start
            layer.weight.data[inside] = 0
            if bias and layer.bias is not None:
                layer.bias.data[inside] = 0
            start += layer.out_features

    def extra_repr(self) -> str:
        return str(self.style)


class ChannelAttention(nn.Module):
    """XCiT: channels meet channels over the tokens; `plain` without heads, as DANet's on feature maps."""

    def __init__(self, channels: int, heads: int, *, plain: bool) -> None:
        super().__init__()
        self.num_heads, self.plain = heads, plain
        self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
        self.o = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        if self.plain:
            weights = (self.q(x).transpose(1, 2) @ self.k(x) * 0.3).softmax(-1)
            return self.o((weights @ self.v(x).transpose(1, 2)).transpose(1, 2))
        q, k, v = (
            each(x).reshape(b, n, self.num_heads, c // self.num_heads).permute(0, 2, 3, 1)
            for each in (self.q, self.k, self.v)
        )
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.o(mixed.permute(0, 3, 1, 2).reshape(b, n, c))


class Gated(nn.Module):
    """`down(act(gate(x)) * up(x))`, the first two fused or not."""

    def __init__(self, channels: int, inner: int, *, fused: bool, bias: bool) -> None:
        super().__init__()
        self.fused = fused
        if fused:
            self.up = nn.Linear(channels, 2 * inner, bias=bias)
        else:
            self.gate, self.up = nn.Linear(channels, inner, bias=bias), nn.Linear(channels, inner, bias=bias)
        self.down = nn.Linear(inner, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.up(x).chunk(2, -1) if self.fused else (self.gate(x), self.up(x))
        return self.down(F.silu(gate) * up)

    def extra_repr(self) -> str:
        return f"fused={self.fused}"


class Experts(nn.Module):
    """A mixture of all experts, their weights stacked `[E, C, I]` and `[E, I, C]`, by einsum or by bmm."""

    def __init__(self, channels: int, inner: int, experts: int, *, written: bool) -> None:
        super().__init__()
        self.written = written
        self.router = nn.Linear(channels, experts)
        self.up = nn.Parameter(torch.empty(experts, channels, inner))
        self.down = nn.Parameter(torch.empty(experts, inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        share = self.router(x).softmax(-1)  # (b, n, e)
        if self.written:
            hidden = F.relu(torch.einsum("bnc,eci->bnei", x, self.up))
            return torch.einsum("bnec,bne->bnc", torch.einsum("bnei,eic->bnec", hidden, self.down), share)
        b, n, c = x.shape
        flat = x.reshape(1, b * n, c).expand(self.up.shape[0], -1, -1)
        made = torch.bmm(F.relu(torch.bmm(flat, self.up)), self.down)  # (e, b·n, c)
        return (made * share.reshape(b * n, -1).t()[:, :, None]).sum(0).view(b, n, -1)

    def silence_(self, how: int, generator: torch.Generator) -> None:
        """Zero the same hidden units of every expert, or others in each."""
        gone = torch.rand(self.up.shape[2], generator=generator) < 0.4
        for expert in range(self.up.shape[0]):
            own = gone if how % 2 else gone[torch.randperm(gone.numel(), generator=generator)]
            (self.up.data[expert].t() if how % 3 else self.down.data[expert])[own] = 0

    def extra_repr(self) -> str:
        return f"{list(self.up.shape)}, written={self.written}"


class Recurrence(nn.Module):
    """LSTM, GRU or RNN on the tokens; its outputs, or with the last state added."""

    def __init__(self, layer: nn.RNNBase, *, state: str, last: bool) -> None:
        super().__init__()
        self.layer, self.state, self.last = layer, state, last
        if state == "learnt":
            directions = (2 if layer.bidirectional else 1) * layer.num_layers
            self.start = nn.Parameter(torch.zeros(directions, 1, layer.hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        state = None
        if self.state != "none":
            directions = (2 if self.layer.bidirectional else 1) * self.layer.num_layers
            if self.state == "learnt":
                first = self.start.expand(-1, x.shape[0], -1).contiguous()
            else:
                first = torch.zeros(directions, x.shape[0], self.layer.hidden_size, dtype=x.dtype)
            state = (first, first) if isinstance(self.layer, nn.LSTM) else first
        out, after = self.layer(x, state)
        hidden = after[0] if isinstance(after, tuple) else after
        return out + hidden.mean(0)[:, None].repeat(1, 1, out.shape[2] // hidden.shape[2]) if self.last else out

    def silence_(self, how: int, generator: torch.Generator) -> None:
        """Zero whole hidden units: rows of every gate, biases; or what reads them inside."""
        h = self.layer.hidden_size
        for name, tensor in self.layer.named_parameters():
            gone = torch.rand(h, generator=torch.Generator().manual_seed(how)) < 0.4
            if name.startswith("weight_hh") and how % 3 == 0:
                tensor.data[:, gone] = 0
            elif how % 3 and (name.startswith("weight") or how % 4):
                tensor.data[gone.repeat(tensor.shape[0] // h)] = 0

    def extra_repr(self) -> str:
        return f"state={self.state}, last={self.last}"
