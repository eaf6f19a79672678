"""A random net in the making: genes add steps, every step is run as it is added, and the net calls them in order.

Weights are scaled so that each output varies by about 1: an error would show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
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
        fitting = [
            i
            for i in range(len(self.values) - 1, -1, -1)
            if self.values[i].dim() in ranks and self.values[i].is_floating_point()
        ]
        if not fitting:
            raise Skip
        return fitting[min(gene.source, len(fitting) - 1)]

    def partner(self, wire: int, number: int, fits: Callable[[Tensor, Tensor], bool]) -> int:
        """Another value that fits the one at `wire`, the latest first; itself where there is none."""
        mine = self.values[wire]
        fitting = [
            i
            for i in range(len(self.values) - 1, -1, -1)
            if i != wire and self.values[i].is_floating_point() and fits(mine, self.values[i])
        ]
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
                    if (
                        _variation(results[0]) < DEAD and gene.zeros and gene.seed % 6
                    ):  # a net that is dead as a whole is rare
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


@runtime_checkable
class Silent(Protocol):
    """A step that knows what it means for parts of it to be zero (whole heads, units of a recurrence)."""

    def silence_(self, how: int, generator: torch.Generator) -> None:
        """Zero some of it."""


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
            if isinstance(module, Silent) and gene.seed % 3:
                module.silence_(gene.zeros, generator)
                return
            for part in module.modules():
                _zero_(part, gene, generator)


ZEROS = (
    "none",
    "rows",
    "columns",
    "rows and biases",
    "rows and columns",
    "everywhere the same rows",
    "pruned",
    "all but one",
    "all",
    "scattered",
)


def _zero_(part: nn.Module, gene: Gene, generator: torch.Generator) -> None:
    """Zero rows, columns, gains or biases of one module."""
    how = ZEROS[gene.zeros % len(ZEROS)]
    weight, bias = getattr(part, "weight", None), getattr(part, "bias", None)
    if not isinstance(weight, Tensor) or weight.dim() == 0:
        return
    turned = isinstance(part, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d | steps.Product)
    out_dim = 1 if turned else 0
    n_out = weight.shape[out_dim]
    picked = torch.rand(n_out, generator=generator) < 0.5
    if how == "everywhere the same rows":
        picked = torch.arange(n_out) % 3 == 1
    elif how in ("all but one", "all"):
        picked = torch.ones(n_out, dtype=torch.bool)
        picked[int(torch.randint(n_out, (), generator=generator))] = how == "all"
    if how == "scattered":  # single elements: a kernel that is zero in places is read all the same
        weight.data.mul_(torch.rand(weight.shape, generator=generator) < 0.4)
        return
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
