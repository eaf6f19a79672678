"""What each kind of gene adds to a random net. Its numbers are read modulo the number of choices; 0 is the plainest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests import random_steps as steps
from tests.random_builder import Builder, Gene, Skip
from tests.random_kinds_tokens import TOKEN_KINDS
from tests.random_ops import add_op


def pick(choices: Sequence[Any], number: int) -> Any:
    return choices[number % len(choices)]


def _divisor(number: int, *sizes: int) -> int:
    common = math.gcd(*sizes)
    return pick([d for d in range(1, common + 1) if common % d == 0], number)  # type: ignore[no-any-return]


def _conv(b: Builder, g: Gene) -> None:
    wire = b.take(g, 4, 3)
    x, n = b.values[wire], g.numbers
    inputs, two = x.shape[1], x.dim() == 4
    kernel = pick((3, 1, 2, (1, 3) if two else 3, 5), n[0])
    outputs = pick((inputs, 8, 6, 12, 4, 9, 2 * inputs, 1), n[1])
    padding = pick((1 if kernel == 3 else 0, 0, "same", 1, 2, (0, 1) if two else 1), n[2])
    mode = pick(("zeros", "zeros", "reflect", "replicate", "circular"), n[3])
    conv_groups = _divisor(n[4], inputs, outputs)
    stride, dilation = pick((1, 1, 1, 2), n[5]), pick((1, 1, 1, 2), n[6])
    bias = n[7] % 3 != 2
    kind: Any = nn.Conv2d if two else nn.Conv1d
    if two and n[7] % 12 == 11 and mode == "zeros" and not isinstance(padding, str):
        kind = steps.Standardised
    if padding == "same" and kernel == 2:
        raise Skip  # torch warns that it copies
    try:
        module = kind(inputs, outputs, kernel, stride, padding, dilation, conv_groups, bias, padding_mode=mode)
    except ValueError as error:
        raise Skip from error
    b.call(g, torch.nn.utils.parametrizations.weight_norm(module) if n[7] % 12 == 10 else module, wire)


def _depthwise(b: Builder, g: Gene) -> None:
    wire = b.take(g, 4)
    inputs, n = b.values[wire].shape[1], g.numbers
    bias, mode = n[2] % 3 != 2, pick(("zeros", "reflect"), n[3])
    module = nn.Conv2d(
        inputs,
        inputs * pick((1, 1, 2), n[1]),
        3,
        padding=pick((1, 0), n[0]),
        groups=inputs,
        bias=bias,
        padding_mode=mode,
    )
    b.call(g, module, wire)


def _transposed(b: Builder, g: Gene) -> None:
    wire = b.take(g, 4, 3)
    x, n = b.values[wire], g.numbers
    inputs = x.shape[1]
    outputs = pick((inputs, 6, 4, 8, 1), n[0])
    stride = pick((2, 1, 2), n[3])
    kind: Any = nn.ConvTranspose2d if x.dim() == 4 else nn.ConvTranspose1d
    out_padding = n[4] % 2 if stride > 1 else 0
    kernel, padding = pick((3, 2, 1, 4), n[1]), pick((1, 0), n[2])
    b.call(
        g,
        kind(inputs, outputs, kernel, stride, padding, out_padding, _divisor(n[5], inputs, outputs), n[6] % 3 != 2),
        wire,
    )


def _linear(b: Builder, g: Gene) -> None:
    wire = b.take(g, 2, 3)
    inputs, n = b.values[wire].shape[-1], g.numbers
    outputs = pick((8, inputs, 6, 12, 4, 1), n[0])
    b.call(g, steps.Product(inputs, outputs) if n[1] % 5 == 4 else nn.Linear(inputs, outputs, bias=n[2] % 3 != 2), wire)


def _norm(b: Builder, g: Gene) -> None:
    wire = b.take(g, 4, 3, 2)
    x, n = b.values[wire], g.numbers
    c = x.shape[1]
    two = x.dim() == 4
    choices: list[nn.Module] = [nn.BatchNorm2d(c) if two else nn.BatchNorm1d(c)] * 5
    if x.dim() > 2:
        choices += [
            (nn.InstanceNorm2d if two else nn.InstanceNorm1d)(
                c, affine=n[1] % 2 == 0, track_running_stats=n[2] % 2 == 1
            )
        ]
    choices += [nn.GroupNorm(_divisor(n[1], c), c)] if x.dim() > 2 else []
    choices += [nn.LayerNorm(x.shape[-1]), nn.LocalResponseNorm(2) if two else nn.LayerNorm(x.shape[-1])]
    b.call(g, pick(choices, n[0]), wire)


def _activation(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3, 2), g.numbers
    c = b.values[wire].shape[1]
    inplace = n[1] % 4 == 3 and b.inplace
    made = (
        lambda: nn.ReLU(inplace), nn.GELU, lambda: nn.SiLU(inplace), lambda: nn.Hardswish(inplace), nn.Sigmoid, nn.Tanh,
        lambda: nn.LeakyReLU(0.1, inplace), lambda: nn.PReLU(c), nn.PReLU, lambda: nn.ReLU6(inplace), nn.Softplus,
        lambda: nn.ELU(inplace=inplace), nn.Dropout,
    )  # fmt: skip
    b.call(g, pick(made, n[0])(), wire)


def _pool(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3), g.numbers
    two = b.values[wire].dim() == 4
    kernel, stride, padding = pick((2, 3), n[1]), pick((2, 1), n[2]), pick((0, 1), n[3])
    ceil = n[4] % 3 == 2
    pools: list[Callable[[], nn.Module]] = [
        lambda: (nn.MaxPool2d if two else nn.MaxPool1d)(kernel, stride, padding, ceil_mode=ceil),
        lambda: (nn.AvgPool2d if two else nn.AvgPool1d)(kernel, stride, padding, ceil, n[5] % 2 == 0),  # type: ignore[arg-type]
        lambda: (nn.AdaptiveAvgPool2d if two else nn.AdaptiveAvgPool1d)(pick((1, 2), n[1])),
        lambda: (nn.AdaptiveMaxPool2d if two else nn.AdaptiveMaxPool1d)(pick((1, 2), n[1])),
        lambda: nn.AvgPool2d(kernel, stride, padding, ceil, divisor_override=3) if two else nn.AvgPool1d(2),
        lambda: (nn.LPPool2d if two else nn.LPPool1d)(2, kernel, stride),
    ]
    b.call(g, pick(pools, n[0])(), wire)


def _pad(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4), g.numbers
    amounts = pick(((1, 1, 1, 1), (0, 1, 2, 1), (0, -1, 0, 1)), n[1])
    channels = pick((1, 2), n[2])
    pads: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.pad(x, amounts),
        lambda x: F.pad(x, amounts, value=0.7),
        lambda x: F.pad(x, [abs(a) for a in amounts], mode="reflect"),
        lambda x: F.pad(x, [abs(a) for a in amounts], mode="replicate"),
        lambda x: F.pad(x, [1, 1, 1, 1], mode="circular"),
        lambda x: F.pad(x, (0, 0, 0, 0, channels, channels - 1)),
        lambda x: F.pad(x, (0, 0, 0, 0, 0, channels), value=0.5),
    ]
    b.call(g, steps.Apply(f"pad {n[0] % len(pads)} {amounts} {channels}", pick(pads, n[0])), wire)


def _resample(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4), g.numbers
    modes: list[dict[str, Any]] = [
        {"mode": "nearest"}, {"mode": "bilinear"}, {"mode": "bicubic", "align_corners": True},
        {"mode": "nearest-exact"},
    ]  # fmt: skip
    chosen = pick(modes, n[0])
    b.call(
        g,
        steps.Apply(f"interpolate {chosen}", lambda x: F.interpolate(x, scale_factor=pick((2, 0.5), n[1]), **chosen)),
        wire,
    )


def _same_shape(mine: Tensor, other: Tensor) -> bool:
    return mine.shape == other.shape


def _broadcasts(mine: Tensor, other: Tensor) -> bool:
    if mine.dim() != other.dim() or mine.dim() < 3:
        return mine.shape == other.shape
    fits = all(a == c or c == 1 for a, c in zip(mine.shape[1:], other.shape[1:], strict=True))
    return mine.shape[0] == other.shape[0] and fits


def _binary(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3, 2), g.numbers
    other = b.partner(wire, n[1], _broadcasts if n[2] % 3 == 2 else _same_shape)
    table: list[tuple[str, Callable[[Tensor, Tensor], Tensor]]] = [
        ("add", torch.add), ("mul", torch.mul), ("gate", lambda x, y: x * torch.sigmoid(y)), ("maximum", torch.maximum),
        ("sub", torch.sub), ("add_", lambda x, y: x.add_(y)), ("where", lambda x, y: torch.where(x > 0, x, y)),
        ("mix", lambda x, y: torch.stack((x, y), 1).sum(1)), ("lerp", lambda x, y: torch.lerp(x, y, 0.3)),
    ]  # fmt: skip
    name, function = pick(table, n[0])
    if name == "add_" and not b.inplace:
        raise Skip
    b.call(g, steps.Apply(name, function), wire, other)


def _residual(b: Builder, g: Gene) -> None:
    """A convolution of the same shape, and its input added."""
    wire = b.take(g, 4)
    c = b.values[wire].shape[1]
    n = g.numbers
    b.call(
        g,
        nn.Conv2d(c, c, pick((3, 1), n[0]), padding=pick((1, 0), n[0]), groups=_divisor(n[1], c), bias=n[2] % 3 != 2),
        wire,
    )
    b.call(g, steps.Apply("add", torch.add), len(b.values) - 1, wire)


def _cat(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3, 2), g.numbers
    dim = pick((1, 1, 1, 2), n[2])

    def fits(mine: Tensor, other: Tensor) -> bool:
        same_rank = mine.dim() == other.dim() > dim
        return same_rank and all(
            a == c or d == dim for d, (a, c) in enumerate(zip(mine.shape, other.shape, strict=True))
        )

    wires = [wire, *(b.partner(wire, n[i], fits) for i in range(1 + n[0] % 2))]
    b.call(g, steps.Apply(f"cat {dim}", lambda *xs: torch.cat(xs, dim)), *wires)


def _split(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3, 2), g.numbers
    c = b.values[wire].shape[1]
    if c < 2:
        raise Skip
    first = 1 + n[1] % (c - 1)
    start = n[2] % first
    kinds: list[Callable[[], nn.Module]] = [
        lambda: steps.Apply("chunk", lambda x: x.chunk(2, 1)),
        lambda: steps.SplitSizes(c, first),
        lambda: steps.Slice(start, first),
        steps.Halves,
        lambda: steps.Apply("every second", lambda x: x[:, ::2]),
        lambda: steps.Apply("select", lambda x: x[:, first : first + 1]),
        lambda: steps.Apply("unbind and stack", lambda x: torch.stack(x.unbind(1)[::-1], 1)),
    ]
    b.call(g, pick(kinds, n[0])(), wire)


def _glu(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3, 2), g.numbers
    kinds: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.glu(x, 1),
        lambda x: F.gelu(x.chunk(2, 1)[0]) * x.chunk(2, 1)[1],
    ]
    b.call(g, steps.Apply(f"glu {n[0] % 2}", pick(kinds, n[0])), wire)


def _shuffle(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4), g.numbers
    x = b.values[wire]
    c = x.shape[1]
    conv_groups = _divisor(1 + n[1], c)
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.ChannelShuffle(conv_groups),
        lambda: steps.Shuffle(c, conv_groups, literal=False),
        lambda: steps.Shuffle(c, conv_groups, literal=True),
        lambda: nn.PixelShuffle(2),
        lambda: nn.PixelUnshuffle(2),
        steps.Focus,
        lambda: steps.Apply("flip", lambda x: x.flip(1)),
        lambda: steps.Apply("roll", lambda x: x.roll(1, 1)),
        lambda: steps.Apply("repeat", lambda x: x.repeat(1, 2, 1, 1)),
        lambda: steps.Apply("repeat_interleave", lambda x: x.repeat_interleave(2, 1)),
    ]
    b.call(g, pick(kinds, n[0])(), wire)


def _block(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4), g.numbers
    c = b.values[wire].shape[1]
    kinds: list[Callable[[], nn.Module]] = [
        lambda: steps.SqueezeExcite(c, pick((4, 2, 1), n[1]), linear=n[2] % 2 == 0),
        lambda: steps.PartialConv(c, max(c // 4, 1)),
        lambda: steps.Bottlenecks(c, 1 + n[1] % 2, sizes=n[2] % 2 == 1),
        lambda: steps.ChannelsLast(c, pick((c, 6), n[1]), norm=n[2] % 2 == 1),
        steps.SpatialAttention,
        lambda: steps.FunctionalConv(c, pick((c, 6), n[1]), learnt=n[2] % 2 == 0, bias=n[3] % 2 == 0),
    ]
    if c < 2:
        raise Skip
    b.call(g, pick(kinds, n[0])(), wire)


def _reshape(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3, 2), g.numbers
    x = b.values[wire]
    if x.dim() == 4:
        functions: list[tuple[str, Callable[[Tensor], Tensor]]] = [
            ("global pool", lambda x: x.mean((2, 3))), ("flatten", lambda x: x.flatten(1)),
            ("tokens", lambda x: x.flatten(2).transpose(1, 2)), ("sequence", lambda x: x.flatten(2)),
            ("transpose", lambda x: x.transpose(2, 3)), ("rows", lambda x: x.mean(3)),
            ("sum pool", lambda x: x.sum((2, 3)) * 0.1),
            ("amax", lambda x: x.amax((2, 3), keepdim=True)),
            ("std", lambda x: x.std((2, 3), correction=0, keepdim=True)),
        ]  # fmt: skip
        b.call(g, steps.Apply(*pick(functions, n[0])), wire)
    elif x.dim() == 3:
        length = math.isqrt(x.shape[2])
        functions = [
            ("swap", lambda x: x.transpose(1, 2)), ("mean", lambda x: x.mean(2)), ("mean 1", lambda x: x.mean(1)),
            ("square", lambda x: x.unflatten(2, (length, length))), ("flatten", lambda x: x.flatten(1)),
        ]  # fmt: skip
        if n[0] % 7 == 6:
            b.call(g, steps.Heads(x.shape[2], _divisor(n[1], x.shape[2])), wire)
        elif n[0] % 7 == 5:
            b.call(g, steps.Attend(x.shape[2]), wire)
        else:
            b.call(g, steps.Apply(*pick(functions, n[0] % 7)), wire)
    else:
        size = pick((1, 2, 3), n[1])
        if x.shape[1] % (size * size):
            raise Skip
        b.call(g, steps.Unflatten(x.shape[1] // size**2, size, size, literal=n[2] % 2 == 1), wire)


def _constant(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3, 2), g.numbers
    x = b.values[wire]
    tail = (1,) * (x.dim() - 2)
    sizes = ((x.shape[1], *tail), (1,), (1, x.shape[1], *tail), tuple(x.shape[1:]))
    if n[0] % 6 == 5:
        b.call(g, steps.Apply("affine", lambda x: 0.5 * x + 0.25), wire)
    elif n[0] % 6 == 4:
        b.call(g, steps.Apply("cast", lambda x: (x > 0).to(x.dtype) + x.clamp(min=-0.3)), wire)
    else:
        b.call(g, steps.Scaled(pick(sizes, n[0]), learnt=n[1] % 2 == 0, add=n[2] % 2 == 0), wire)


def _over_channels(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3), g.numbers
    functions: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        ("sum", lambda x: x.sum(1, keepdim=True)), ("mean", lambda x: x.mean(1, keepdim=True)),
        ("amax", lambda x: x.amax(1, keepdim=True)), ("softmax", lambda x: x.softmax(1)),
        ("cumsum", lambda x: x.cumsum(1)),
        ("normalize", lambda x: F.normalize(x, dim=1)), ("sort", lambda x: x.sort(1)[0]),
        ("var", lambda x: x.var(1, correction=0, keepdim=True)),
        ("unfold", lambda x: F.unfold(x, 2) if x.dim() == 4 else x.unfold(2, 2, 1).mean(3)),
        ("write", _written), ("renorm", lambda x: torch.renorm(x, 2, 1, 1.0)),
    ]  # fmt: skip
    b.call(g, steps.Apply(*pick(functions, n[0])), wire)


def _written(x: Tensor) -> Tensor:
    """A write through a view, read under the other name."""
    y = x.clone()
    y[:, : max(x.shape[1] // 2, 1)].add_(0.5)
    return y


def _again(b: Builder, g: Gene) -> None:
    """A module that is called already is called once more, on another value."""
    tried = [i for i, m in enumerate(b.members) if any(True for _ in m.parameters())]
    if not tried:
        raise Skip
    member = pick(tried[::-1], g.numbers[0])
    rank = next(b.values[wires[0]].dim() for index, wires, _ in b.calls if index == member)
    b.call(g, b.members[member], b.take(g, rank), fresh=False)


def _tied(b: Builder, g: Gene) -> None:
    """A new convolution with the weight (and perhaps the bias) of an earlier one."""
    earlier = [m for m in b.members if type(m) in (nn.Conv2d, nn.Linear) and "weight" in m._parameters]
    if not earlier:
        raise Skip
    first: Any = pick(earlier[::-1], g.numbers[0])
    wire = b.take(g, 4 if isinstance(first, nn.Conv2d) else 2)
    if isinstance(first, nn.Conv2d):
        second: Any = nn.Conv2d(
            first.in_channels,
            first.out_channels,
            first.kernel_size,
            padding=pick((1, 0), g.numbers[2]),
            groups=first.groups,
        )
    else:
        second = nn.Linear(first.in_features, first.out_features)
    own = first.weight.data.clone()
    second.weight = first.weight
    if g.numbers[1] % 3 == 2 and first.bias is not None:
        second.bias = first.bias
    kept = None if first.bias is None else first.bias.data.clone()
    try:
        b.call(g, second, wire)
    finally:
        first.weight.data.copy_(own)
        if kept is not None:
            first.bias.data.copy_(kept)


KINDS: dict[str, Callable[[Builder, Gene], None]] = {
    "conv": _conv, "norm": _norm, "activation": _activation, "residual": _residual, "depthwise": _depthwise,
    "binary": _binary, "cat": _cat, "pool": _pool, "block": _block, "split": _split, "glu": _glu, "shuffle": _shuffle,
    "transposed": _transposed, "linear": _linear, "reshape": _reshape, "constant": _constant, "pad": _pad,
    "resample": _resample, "again": _again, "tied": _tied, "over_channels": _over_channels, "op": add_op, **TOKEN_KINDS,
}  # fmt: skip
