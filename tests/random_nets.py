"""Random nets for Hypothesis: a list of genes is read as a program, and every list is a valid one.

A gene that makes no sense where it stands (groups that do not divide, a pool larger than its input) is passed over, so
that a failing example shrinks by leaving genes out and by making their numbers smaller; small numbers mean plain layers.
Every step is run as it is added, and its weights are scaled so that its output varies by about 1: an error would show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import prune

from tests import random_steps as steps

MAX_ELEMENTS = 3000
"""Per example and value: nets stay small."""

NUMBERS = 8

Step = tuple[int, tuple[int, ...], int]


@dataclass(frozen=True)
class Gene:
    """One step: what it is, which values it takes (0 is the latest), its numbers, and which of its weights are zero."""

    kind: str
    source: int = 0
    zeros: int = 0
    seed: int = 0
    numbers: tuple[int, ...] = (0,) * NUMBERS


class Skip(Exception):
    """The gene makes no sense here."""


class RandomNet(nn.Module):
    """Calls its steps in order; every value may be used by any later step.

    Args:
        members: The steps' modules.
        calls: `(index of the module, indices of the values it takes, how many it makes)`; the inputs come first.
        returns: Indices of the values that are returned.
        form: `tensor`, `tuple` or `dict`.
    """

    def __init__(
        self, members: Sequence[nn.Module], calls: Sequence[Step], returns: tuple[int, ...], form: str
    ) -> None:
        super().__init__()
        self.steps = nn.ModuleList(members)
        self.calls, self.returns, self.form = tuple(calls), [f"v{index}" for index in returns], form

    def forward(self, *inputs: Tensor) -> Any:
        values = list(inputs)
        for member, wires, _ in self.calls:
            made = self.steps[member](*(values[wire] for wire in wires))
            values.extend(made if isinstance(made, tuple) else (made,))
        found = {name: values[int(name[1:])] for name in self.returns}
        if self.form == "dict":
            return found
        return tuple(found.values()) if self.form == "tuple" else next(iter(found.values()))

    def program(self, n_inputs: int) -> str:
        """The net as lines of code, for failing examples."""
        lines, count = [f"inputs v0..v{n_inputs - 1}"], n_inputs
        for member, wires, n_outputs in self.calls:
            made = ", ".join(f"v{count + i}" for i in range(n_outputs))
            text = repr(self.steps[member]).replace("\n", " ")
            lines.append(f"{made} = step{member}({', '.join(f'v{w}' for w in wires)})  # {text}")
            count += n_outputs
        return "\n".join([*lines, f"return {self.returns} as {self.form}"])


@dataclass
class Builder:
    """A net in the making (mutable).

    Attributes:
        values: Every value so far, on an example batch of 3.
        members, calls: See `RandomNet`.
        zeros: Whether weights are zeroed at all.
        inplace: Whether steps may write into their operands.
    """

    values: list[Tensor]
    zeros: bool = True
    inplace: bool = True
    members: list[nn.Module] = field(default_factory=list)
    calls: list[Step] = field(default_factory=list)

    def take(self, gene: Gene, *ranks: int) -> int:
        """The gene's source among the values of these ranks, the latest first."""
        fitting = [i for i in range(len(self.values) - 1, -1, -1) if self.values[i].dim() in ranks and self.values[i].is_floating_point()]
        if not fitting:
            raise Skip
        return fitting[min(gene.source, len(fitting) - 1)]

    def partner(self, wire: int, number: int, fits: Callable[[Tensor, Tensor], bool]) -> int:
        """Another value that fits the one at `wire`, the latest first; itself where there is none."""
        mine = self.values[wire]
        fitting = [i for i in range(len(self.values) - 1, -1, -1) if i != wire and self.values[i].is_floating_point() and fits(mine, self.values[i])]
        return fitting[number % len(fitting)] if fitting else wire

    def call(self, gene: Gene, module: nn.Module, *wires: int, fresh: bool = True) -> None:
        """Add a step: draw its weights, zero some, run it, scale it."""
        index = len(self.members)
        if fresh:
            self.members.append(module.eval())
            enliven_(module, gene, zeros=self.zeros)
        else:
            index = self.members.index(module)
        operands = [self.values[wire] for wire in wires]
        try:
            with torch.no_grad():
                before = [operand.clone() for operand in operands]
                made = module(*operands)
                results = made if isinstance(made, tuple) else (made,)
                if fresh and len(results) == 1 and results[0].is_floating_point():
                    if _variation(results[0]) < DEAD and gene.zeros and gene.seed % 6:  # a net that is dead as a whole is rare
                        enliven_(module, replace(gene, zeros=0), zeros=False)
                        results = (module(*(operand.clone() for operand in before)),)
                    results = (_scaled(module, results[0], before),)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            if fresh:
                self.members.pop()
            raise Skip from error
        if any(r.dim() < 2 or 0 in r.shape or r[0].numel() > MAX_ELEMENTS or not r.isfinite().all() for r in results):
            if fresh:
                self.members.pop()
            raise Skip
        self.values.extend(results)
        self.calls.append((index, wires, len(results)))


DEAD = 1e-6


def _variation(output: Tensor) -> float:
    """How much an output varies from example to example."""
    return float((output - output.mean(0, keepdim=True)).abs().mean())


def _scaled(module: nn.Module, output: Tensor, operands: list[Tensor]) -> Tensor:
    """Scale the weights so that the output varies by about 1, and run again."""
    weights = [p for name, p in module.named_parameters() if p.dim() >= 2 and name in ("weight", "weight_orig")]
    varies = _variation(output)
    if not weights or not math.isfinite(varies) or varies < DEAD or 0.3 < varies < 2:
        return output
    for weight in weights:
        weight.data.div_(varies)
    return module(*operands)  # type: ignore[no-any-return]


def enliven_(module: nn.Module, gene: Gene, *, zeros: bool) -> None:
    """Random weights, statistics and gains by the gene's seed, some of them zero."""
    generator = torch.Generator().manual_seed(gene.seed)

    def normal(tensor: Tensor, std: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)

    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            kind = name.rpartition(".")[2]
            if not tensor.is_floating_point() or kind == "weight_mask":
                continue
            if kind == "running_var":
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.dim() >= 2 and not isinstance(module, steps.Scaled):
                normal(tensor, 1.4 / math.sqrt(max(tensor[0].numel(), 1)))
            elif kind.startswith("weight") or kind == "weight_g":
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
                tensor.mul_(torch.where(torch.rand(tensor.shape, generator=generator) < 0.2, -1.0, 1.0))
            else:
                normal(tensor, 0.4)
        if zeros and gene.zeros:
            for part in module.modules():
                _zero_(part, gene, generator)


ZEROS = ("none", "rows", "columns", "rows and biases", "rows and columns", "everywhere the same rows", "pruned", "all but one", "all")


def _zero_(part: nn.Module, gene: Gene, generator: torch.Generator) -> None:
    """Zero rows, columns, gains or biases of one module."""
    how = ZEROS[gene.zeros % len(ZEROS)]
    weight, bias = getattr(part, "weight", None), getattr(part, "bias", None)
    if not isinstance(weight, Tensor) or weight.dim() == 0:
        return
    turned = isinstance(part, nn.ConvTranspose1d | nn.ConvTranspose2d | steps.Product)
    out_dim = 1 if turned else 0
    n_out = weight.shape[out_dim]
    picked = torch.rand(n_out, generator=generator) < 0.5
    if how == "everywhere the same rows":
        picked = torch.arange(n_out) % 3 == 1
    elif how in ("all but one", "all"):
        picked = torch.ones(n_out, dtype=torch.bool)
        picked[int(torch.randint(n_out, (), generator=generator))] = how == "all"
    if how == "pruned":
        if isinstance(part, nn.Conv2d | nn.Linear) and n_out > 1 and "weight" in part._parameters:
            prune.ln_structured(part, "weight", amount=0.5, n=2, dim=0)
        return
    if how != "columns":
        weight.data.index_fill_(out_dim, picked.nonzero()[:, 0], 0)
        if how == "rows and biases" and isinstance(bias, Tensor) and bias.shape[0] == n_out:
            bias.data.masked_fill_(picked, 0)
    if how in ("columns", "rows and columns") and weight.dim() >= 2:
        dim = 1 - out_dim
        columns = torch.rand(weight.shape[dim], generator=generator) < 0.4
        weight.data.index_fill_(dim, columns.nonzero()[:, 0], 0)


# What each kind of gene adds. `g.numbers` are read modulo the number of choices; 0 is the plainest.


def _pick(choices: Sequence[Any], number: int) -> Any:
    return choices[number % len(choices)]


def _divisor(number: int, *sizes: int) -> int:
    common = math.gcd(*sizes)
    return _pick([d for d in range(1, common + 1) if common % d == 0], number)  # type: ignore[no-any-return]


def _conv(b: Builder, g: Gene) -> None:
    wire = b.take(g, 4, 3)
    x, n = b.values[wire], g.numbers
    inputs, two = x.shape[1], x.dim() == 4
    kernel = _pick((3, 1, 2, (1, 3) if two else 3, 5), n[0])
    outputs = _pick((inputs, 8, 6, 12, 4, 9, 2 * inputs, 1), n[1])
    padding = _pick((1 if kernel == 3 else 0, 0, "same", 1, 2, (0, 1) if two else 1), n[2])
    mode = _pick(("zeros", "zeros", "reflect", "replicate", "circular"), n[3])
    conv_groups = _divisor(n[4], inputs, outputs)
    stride, dilation = _pick((1, 1, 1, 2), n[5]), _pick((1, 1, 1, 2), n[6])
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
    bias, mode = n[2] % 3 != 2, _pick(("zeros", "reflect"), n[3])
    module = nn.Conv2d(inputs, inputs * _pick((1, 1, 2), n[1]), 3, padding=_pick((1, 0), n[0]), groups=inputs, bias=bias, padding_mode=mode)
    b.call(g, module, wire)


def _transposed(b: Builder, g: Gene) -> None:
    wire = b.take(g, 4, 3)
    x, n = b.values[wire], g.numbers
    inputs = x.shape[1]
    outputs = _pick((inputs, 6, 4, 8, 1), n[0])
    stride = _pick((2, 1, 2), n[3])
    kind: Any = nn.ConvTranspose2d if x.dim() == 4 else nn.ConvTranspose1d
    out_padding = n[4] % 2 if stride > 1 else 0
    kernel, padding = _pick((3, 2, 1, 4), n[1]), _pick((1, 0), n[2])
    b.call(g, kind(inputs, outputs, kernel, stride, padding, out_padding, _divisor(n[5], inputs, outputs), n[6] % 3 != 2), wire)


def _linear(b: Builder, g: Gene) -> None:
    wire = b.take(g, 2, 3)
    inputs, n = b.values[wire].shape[-1], g.numbers
    outputs = _pick((8, inputs, 6, 12, 4, 1), n[0])
    b.call(g, steps.Product(inputs, outputs) if n[1] % 5 == 4 else nn.Linear(inputs, outputs, bias=n[2] % 3 != 2), wire)


def _norm(b: Builder, g: Gene) -> None:
    wire = b.take(g, 4, 3, 2)
    x, n = b.values[wire], g.numbers
    c = x.shape[1]
    two = x.dim() == 4
    choices: list[nn.Module] = [nn.BatchNorm2d(c) if two else nn.BatchNorm1d(c)] * 5
    if x.dim() > 2:
        choices += [(nn.InstanceNorm2d if two else nn.InstanceNorm1d)(c, affine=n[1] % 2 == 0, track_running_stats=n[2] % 2 == 1)]
    choices += [nn.GroupNorm(_divisor(n[1], c), c)] if x.dim() > 2 else []
    choices += [nn.LayerNorm(x.shape[-1]), nn.LocalResponseNorm(2) if two else nn.LayerNorm(x.shape[-1])]
    b.call(g, _pick(choices, n[0]), wire)


def _activation(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3, 2), g.numbers
    c = b.values[wire].shape[1]
    inplace = n[1] % 4 == 3 and b.inplace
    made = (
        lambda: nn.ReLU(inplace), nn.GELU, lambda: nn.SiLU(inplace), lambda: nn.Hardswish(inplace), nn.Sigmoid, nn.Tanh,
        lambda: nn.LeakyReLU(0.1, inplace), lambda: nn.PReLU(c), nn.PReLU, lambda: nn.ReLU6(inplace), nn.Softplus,
        lambda: nn.ELU(inplace=inplace), nn.Dropout,
    )  # fmt: skip
    b.call(g, _pick(made, n[0])(), wire)


def _pool(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3), g.numbers
    two = b.values[wire].dim() == 4
    kernel, stride, padding = _pick((2, 3), n[1]), _pick((2, 1), n[2]), _pick((0, 1), n[3])
    ceil = n[4] % 3 == 2
    pools: list[Callable[[], nn.Module]] = [
        lambda: (nn.MaxPool2d if two else nn.MaxPool1d)(kernel, stride, padding, ceil_mode=ceil),
        lambda: (nn.AvgPool2d if two else nn.AvgPool1d)(kernel, stride, padding, ceil, n[5] % 2 == 0),  # type: ignore[arg-type]
        lambda: (nn.AdaptiveAvgPool2d if two else nn.AdaptiveAvgPool1d)(_pick((1, 2), n[1])),
        lambda: (nn.AdaptiveMaxPool2d if two else nn.AdaptiveMaxPool1d)(_pick((1, 2), n[1])),
        lambda: nn.AvgPool2d(kernel, stride, padding, ceil, divisor_override=3) if two else nn.AvgPool1d(2),
        lambda: (nn.LPPool2d if two else nn.LPPool1d)(2, kernel, stride),
    ]
    b.call(g, _pick(pools, n[0])(), wire)


def _pad(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4), g.numbers
    amounts = _pick(((1, 1, 1, 1), (0, 1, 2, 1), (0, -1, 0, 1)), n[1])
    channels = _pick((1, 2), n[2])
    pads: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.pad(x, amounts),
        lambda x: F.pad(x, amounts, value=0.7),
        lambda x: F.pad(x, [abs(a) for a in amounts], mode="reflect"),
        lambda x: F.pad(x, [abs(a) for a in amounts], mode="replicate"),
        lambda x: F.pad(x, [1, 1, 1, 1], mode="circular"),
        lambda x: F.pad(x, (0, 0, 0, 0, channels, channels - 1)),
        lambda x: F.pad(x, (0, 0, 0, 0, 0, channels), value=0.5),
    ]
    b.call(g, steps.Apply(f"pad {n[0] % len(pads)} {amounts} {channels}", _pick(pads, n[0])), wire)


def _resample(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4), g.numbers
    modes: list[dict[str, Any]] = [
        {"mode": "nearest"}, {"mode": "bilinear"}, {"mode": "bicubic", "align_corners": True}, {"mode": "nearest-exact"},
    ]  # fmt: skip
    chosen = _pick(modes, n[0])
    b.call(g, steps.Apply(f"interpolate {chosen}", lambda x: F.interpolate(x, scale_factor=_pick((2, 0.5), n[1]), **chosen)), wire)


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
    name, function = _pick(table, n[0])
    if name == "add_" and not b.inplace:
        raise Skip
    b.call(g, steps.Apply(name, function), wire, other)


def _residual(b: Builder, g: Gene) -> None:
    """A convolution of the same shape, and its input added."""
    wire = b.take(g, 4)
    c = b.values[wire].shape[1]
    n = g.numbers
    b.call(g, nn.Conv2d(c, c, _pick((3, 1), n[0]), padding=_pick((1, 0), n[0]), groups=_divisor(n[1], c), bias=n[2] % 3 != 2), wire)
    b.call(g, steps.Apply("add", torch.add), len(b.values) - 1, wire)


def _cat(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3, 2), g.numbers
    dim = _pick((1, 1, 1, 2), n[2])

    def fits(mine: Tensor, other: Tensor) -> bool:
        same_rank = mine.dim() == other.dim() > dim
        return same_rank and all(a == c or d == dim for d, (a, c) in enumerate(zip(mine.shape, other.shape, strict=True)))

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
    b.call(g, _pick(kinds, n[0])(), wire)


def _glu(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3, 2), g.numbers
    kinds: list[Callable[[Tensor], Tensor]] = [lambda x: F.glu(x, 1), lambda x: F.gelu(x.chunk(2, 1)[0]) * x.chunk(2, 1)[1]]
    b.call(g, steps.Apply(f"glu {n[0] % 2}", _pick(kinds, n[0])), wire)


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
    b.call(g, _pick(kinds, n[0])(), wire)


def _block(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4), g.numbers
    c = b.values[wire].shape[1]
    kinds: list[Callable[[], nn.Module]] = [
        lambda: steps.SqueezeExcite(c, _pick((4, 2, 1), n[1]), linear=n[2] % 2 == 0),
        lambda: steps.PartialConv(c, max(c // 4, 1)),
        lambda: steps.Bottlenecks(c, 1 + n[1] % 2, sizes=n[2] % 2 == 1),
        lambda: steps.ChannelsLast(c, _pick((c, 6), n[1]), norm=n[2] % 2 == 1),
        steps.SpatialAttention,
        lambda: steps.FunctionalConv(c, _pick((c, 6), n[1]), learnt=n[2] % 2 == 0, bias=n[3] % 2 == 0),
    ]
    if c < 2:
        raise Skip
    b.call(g, _pick(kinds, n[0])(), wire)


def _reshape(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3, 2), g.numbers
    x = b.values[wire]
    if x.dim() == 4:
        functions: list[tuple[str, Callable[[Tensor], Tensor]]] = [
            ("global pool", lambda x: x.mean((2, 3))), ("flatten", lambda x: x.flatten(1)),
            ("tokens", lambda x: x.flatten(2).transpose(1, 2)), ("sequence", lambda x: x.flatten(2)),
            ("transpose", lambda x: x.transpose(2, 3)), ("rows", lambda x: x.mean(3)), ("sum pool", lambda x: x.sum((2, 3)) * 0.1),
            ("amax", lambda x: x.amax((2, 3), keepdim=True)), ("std", lambda x: x.std((2, 3), correction=0, keepdim=True)),
        ]  # fmt: skip
        b.call(g, steps.Apply(*_pick(functions, n[0])), wire)
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
            b.call(g, steps.Apply(*_pick(functions, n[0] % 7)), wire)
    else:
        size = _pick((1, 2, 3), n[1])
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
        b.call(g, steps.Scaled(_pick(sizes, n[0]), learnt=n[1] % 2 == 0, add=n[2] % 2 == 0), wire)


def _over_channels(b: Builder, g: Gene) -> None:
    wire, n = b.take(g, 4, 3), g.numbers
    functions: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        ("sum", lambda x: x.sum(1, keepdim=True)), ("mean", lambda x: x.mean(1, keepdim=True)),
        ("amax", lambda x: x.amax(1, keepdim=True)), ("softmax", lambda x: x.softmax(1)), ("cumsum", lambda x: x.cumsum(1)),
        ("normalize", lambda x: F.normalize(x, dim=1)), ("sort", lambda x: x.sort(1)[0]), ("var", lambda x: x.var(1, correction=0, keepdim=True)),
        ("unfold", lambda x: F.unfold(x, 2) if x.dim() == 4 else x.unfold(2, 2, 1).mean(3)),
        ("write", lambda x: _written(x)), ("renorm", lambda x: torch.renorm(x, 2, 1, 1.0)),
    ]  # fmt: skip
    b.call(g, steps.Apply(*_pick(functions, n[0])), wire)


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
    member = _pick(tried[::-1], g.numbers[0])
    rank = next(b.values[wires[0]].dim() for index, wires, _ in b.calls if index == member)
    b.call(g, b.members[member], b.take(g, rank), fresh=False)


def _tied(b: Builder, g: Gene) -> None:
    """A new convolution with the weight (and perhaps the bias) of an earlier one."""
    earlier = [m for m in b.members if type(m) in (nn.Conv2d, nn.Linear) and "weight" in m._parameters]
    if not earlier:
        raise Skip
    first: Any = _pick(earlier[::-1], g.numbers[0])
    wire = b.take(g, 4 if isinstance(first, nn.Conv2d) else 2)
    if isinstance(first, nn.Conv2d):
        second: Any = nn.Conv2d(first.in_channels, first.out_channels, first.kernel_size, padding=_pick((1, 0), g.numbers[2]), groups=first.groups)
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
    "resample": _resample, "again": _again, "tied": _tied, "over_channels": _over_channels,
}  # fmt: skip

NOTHING = "nothing"
"""What a gene that plays no part shrinks to."""

OFTEN = ("conv", "norm", "activation", "conv", "residual", "conv", "norm", "activation")


INPUTS = (((4, 8, 8),), ((3, 8, 8), (6, 8, 8)), ((4, 8, 8), (1, 8, 8)), ((6, 8, 8), (5,)), ((4, 12),), ((1, 8, 8),))
"""Shapes of the inputs, without the batch."""


@dataclass(frozen=True)
class Recipe:
    """What a net is built from."""

    genes: tuple[Gene, ...]
    inputs: int
    outputs: int
    head: int

    def net(self, *, zeros: bool = True) -> tuple[RandomNet, tuple[Tensor, ...]]:
        """The net, in eval mode, and example inputs of batch 2."""
        net, drawn = self._built(zeros, inplace=True)
        inputs = tuple(x[:2].clone() for x in drawn)
        try:
            net(*inputs)
        except RuntimeError:  # autograd forbids some writes into views, and so does torch.export
            net, _ = self._built(zeros, inplace=False)
        return net, tuple(x[:2].clone() for x in drawn)

    def _built(self, zeros: bool, *, inplace: bool) -> tuple[RandomNet, list[Tensor]]:
        generator = torch.Generator().manual_seed(11)
        drawn = [torch.randn(3, *shape, generator=generator) for shape in _pick(INPUTS, self.inputs)]
        builder = Builder([x.clone() for x in drawn], zeros, inplace)
        for gene in self.genes:
            try:
                if gene.kind != NOTHING:
                    KINDS[gene.kind](builder, gene)
            except Skip:
                continue
        returns = _returns(builder, self)
        form = _pick(("tensor", "tuple", "dict"), self.outputs) if len(returns) == 1 else _pick(("tuple", "dict"), self.outputs)
        return RandomNet(builder.members, builder.calls, returns, form).eval(), drawn


def _returns(b: Builder, recipe: Recipe) -> tuple[int, ...]:
    """A head on the latest value (pool and linear, or a convolution, or the value itself), and perhaps an earlier value."""
    latest = len(b.values) - 1
    gene = Gene("linear", seed=recipe.head)
    if recipe.head % 4 != 3 or not b.members:
        try:
            _head(b, gene, latest, dense=recipe.head % 4 != 2)
        except Skip:
            pass
    found = [len(b.values) - 1]
    if recipe.outputs % 6 > 2 and latest > 0:
        found.append(latest - recipe.outputs % latest)
    return tuple(dict.fromkeys(found))


def _head(b: Builder, gene: Gene, latest: int, *, dense: bool) -> None:
    rank = b.values[latest].dim()
    if rank == 4 and not dense:
        b.call(gene, nn.Conv2d(b.values[latest].shape[1], 3, 1), latest)
        return
    if rank == 4:
        b.call(gene, nn.AdaptiveAvgPool2d(1), latest)
    if rank > 2:
        b.call(gene, steps.Apply("flatten", lambda x: x.flatten(1) if x.dim() == 4 else x.mean(2)), len(b.values) - 1)
    b.call(gene, nn.Linear(b.values[-1].shape[1], 5), len(b.values) - 1)


def genes() -> st.SearchStrategy[Gene]:
    """One gene; plain layers are as likely as all the other kinds together."""
    number = st.integers(0, 11)
    return st.builds(
        Gene,
        kind=st.sampled_from((NOTHING, *OFTEN * 2, *KINDS)),
        source=st.sampled_from((0, 0, 0, 0, 0, 1, 2, 3)),
        zeros=st.integers(0, len(ZEROS) - 1),
        seed=st.integers(0, 99),
        numbers=st.tuples(*[number] * NUMBERS),
    )


def recipes(max_genes: int = 14) -> st.SearchStrategy[Recipe]:
    """Recipes of up to so many genes."""
    return st.builds(
        Recipe,
        genes=st.lists(genes(), min_size=5, max_size=max_genes).map(tuple),
        inputs=st.sampled_from((0, 0, 0, 1, 2, 3, 4, 5)),
        outputs=st.integers(0, 5),
        head=st.sampled_from((0, 0, 1, 2, 3)),
    )


def normalised(model: nn.Module) -> bool:
    """Whether a net has batch norms with gains of exactly zero."""
    return any(isinstance(m, _NormBase) and m.weight is not None and bool((m.weight == 0).any()) for m in model.modules())
