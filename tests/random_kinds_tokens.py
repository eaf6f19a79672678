"""What genes for tokens `[b, n, c]` add to a random net; their numbers are read as in `random_kinds`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tests import random_steps as steps
from tests import random_tokens as tokens
from tests.random_builder import Builder, Gene, Skip


def pick(choices: Sequence[Any], number: int) -> Any:
    return choices[number % len(choices)]


def _style(n: tuple[int, ...]) -> tokens.Style:
    heads = pick((2, 4, 3, 6, 4), n[0])
    sharing = pick((1, 1, 2, 1, heads), n[3])
    layout = pick(tokens.LAYOUTS, n[1])
    fused = layout in ("unbind", "heads first", "interleaved")
    if fused or heads % sharing:
        sharing = 1
    width = pick((4, 2, 6, 3), n[7])
    return tokens.Style(
        heads=heads,
        width=width,
        sharing=sharing,
        layout=layout,
        kernel=pick(tokens.KERNELS, n[2]),
        method=pick(tokens.SHARING, n[3] // 3),
        sizes=pick(tokens.SIZES, n[4]),
        scale=pick(tokens.SCALES, n[6]),
        mask=pick(tokens.MASKS, n[6] // 4),
        norm=pick(("none", "none", "none", *tokens.NORMS), n[5]),
        rotary=n[5] % 4 == 3 and width % 2 == 0,
        bias=n[7] % 3 != 2,
        flat=pick(("-1", "inner", "product"), n[4] // 3),
    )


def _beside(b: Builder, g: Gene, make: Callable[[int, int], nn.Module]) -> None:
    """A block as transformers have them: perhaps a norm, the layer, perhaps the input added."""
    wire, n = b.take(g, 3), g.numbers
    count, channels = b.values[wire].shape[1:]
    kind = pick((*tokens.NORMS, "rms", "written"), n[1] + n[2] + n[4])
    inner = wire
    if kind != "none":
        b.call(Gene("norm", seed=g.seed, zeros=1 if g.seed % 5 == 0 else 0), tokens.norm_of(kind, channels), wire)
        inner = len(b.values) - 1
    b.call(g, make(channels, count), inner)
    if (n[0] + n[5]) % 4 != 3 and b.values[-1].shape == b.values[wire].shape:
        b.call(g, steps.Apply("add", torch.add), len(b.values) - 1, wire)


def _attention(b: Builder, g: Gene) -> None:
    _beside(b, g, lambda c, n: tokens.Attention(c, n, _style(g.numbers)))


def _channel_attention(b: Builder, g: Gene) -> None:
    n = g.numbers
    _beside(b, g, lambda c, _: tokens.ChannelAttention(c, 2 if c % 2 == 0 else 1, plain=n[0] % 2 == 1))


def _gated(b: Builder, g: Gene) -> None:
    n = g.numbers
    _beside(b, g, lambda c, _: tokens.Gated(c, pick((8, 6, 12, 3), n[0]), fused=n[1] % 2 == 1, bias=n[2] % 3 != 2))


def _experts(b: Builder, g: Gene) -> None:
    n = g.numbers
    _beside(b, g, lambda c, _: tokens.Experts(c, pick((6, 4, 8), n[0]), pick((3, 2), n[1]), written=n[2] % 2 == 1))


def _recurrent(b: Builder, g: Gene) -> None:
    n = g.numbers

    def make(channels: int, _: int) -> nn.Module:
        kind: Any = pick((nn.LSTM, nn.GRU, nn.RNN), n[0])
        settings = {"nonlinearity": "relu"} if kind is nn.RNN and n[0] % 2 else {}
        layer = kind(
            channels,
            pick((6, 4, channels, 3), n[1]),
            num_layers=1 + n[2] % 2,
            bidirectional=n[3] % 3 == 2,
            bias=n[4] % 3 != 2,
            batch_first=True,
            **settings,
        )
        return tokens.Recurrence(layer, state=pick(("none", "none", "zeros", "learnt"), n[5]), last=n[6] % 3 == 2)

    _beside(b, g, make)


def _token_norm(b: Builder, g: Gene) -> None:
    wire = b.take(g, 3)
    kind = pick(tokens.NORMS[1:], g.numbers[0])
    b.call(g, tokens.norm_of(kind, b.values[wire].shape[-1]), wire)


def _token_linear(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 3), g.numbers
    channels = b.values[wire].shape[-1]
    b.call(g, nn.Linear(channels, pick((channels, 8, 12, 6), n[0]), bias=n[1] % 3 != 2), wire)


def _token_add(b: Builder, g: Gene) -> None:
    wire = b.take(g, 3)
    other = b.partner(wire, g.numbers[0], lambda mine, its: mine.shape == its.shape)
    if other == wire:
        raise Skip
    b.call(g, steps.Apply("add", torch.add), wire, other)


TOKEN_KINDS: dict[str, Callable[[Builder, Gene], None]] = {
    "attention": _attention, "gated": _gated, "token_linear": _token_linear, "token_norm": _token_norm,
    "recurrent": _recurrent, "channel_attention": _channel_attention, "experts": _experts, "token_add": _token_add,
}  # fmt: skip

TOKEN_OFTEN = ("attention", "gated", "attention", "recurrent", "token_linear")
