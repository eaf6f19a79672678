"""One sample: an op on small operands, and what its rule must leave free, hold, and know to be constant."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from surgery.analysis.capture import Program, capture
from surgery.analysis.norms import norm_sites
from surgery.coupling import NormSite
from surgery.inputs import Inputs

PATTERN = (0.0, 0.75, -0.5)
"""In the constant test the first positions of the patterned dim are these numbers everywhere; the others vary."""


@dataclass(frozen=True)
class Plain:
    """An operand that is an input of the model: no unit ids, and it varies."""

    shape: tuple[int, ...]


Operand = tuple[int, ...] | Tensor | Plain
"""A shape (filled with random numbers, a parameter), a tensor (a parameter or buffer of those values), or `Plain`."""


@dataclass(frozen=True, eq=False)
class Sample:
    """An op and what its rule has to say.

    Attributes:
        name: What it shows.
        function: Called with the operands by position. An overload of PyTorch's own is not captured but written down.
        operands: By name, in order.
        free: Removable channels by axis: `"x1 w0:3"` is every unit of x's dim 1 on its own, and three channels on
            w's dim 0. Axes that are not named have none.
        held: The reasons of all pins (the beginning of each is enough).
        found: With PATTERN on `pattern`, the positions of the output's dim `along` that are known to be constant;
            None where the op is only checked for false claims.
        pattern: Operand and dim that carry PATTERN (`"x1"`).
        along: The output's dim that `found` speaks of.
        resized: Operands of other sizes, for which all that is claimed must hold as well.
        to_one: Whether a dim may be cut to one position (not before a `squeeze`, which takes it out then).
        settings: What follows the operands.
        sparse: Fill for operands by name, e.g. weights with rows of zeros in the constant test.
        eps: A norm's, held by the module, so that a cut can set it; handed to `function` last.
    """

    name: str
    function: Callable[..., Any]
    operands: Mapping[str, Operand]
    free: str = ""
    held: Sequence[str] = ()
    found: Sequence[int] | None = None
    pattern: str = "x1"
    along: int = 1
    resized: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    to_one: bool = True
    settings: Sequence[Any] = ()
    sparse: Mapping[str, Tensor] = field(default_factory=dict)
    eps: float | None = None

    def __str__(self) -> str:
        return self.name

    @cached_property
    def generator(self) -> torch.Generator:
        """Random numbers of this sample's own."""
        return torch.Generator().manual_seed(zlib.crc32(self.name.encode()))

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The operands' values."""
        return {name: self.filled(operand) for name, operand in self.operands.items()}

    def filled(self, operand: Operand) -> Tensor:
        """An operand's tensor."""
        if isinstance(operand, Tensor):
            return operand
        shape = operand.shape if isinstance(operand, Plain) else operand
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    @cached_property
    def program(self) -> Program:
        """The captured program; its parameters are named as the operands."""
        if isinstance(self.function, OpOverload):
            return written(self.function, self.tensors, self.settings)
        plain = tuple(self.tensors[n] for n, operand in self.operands.items() if isinstance(operand, Plain))
        program = capture(Operation(self), Inputs.of(plain or torch.zeros(1)))
        return replace(program, given=frozenset(program.tensors))

    @cached_property
    def norms(self) -> dict[str, NormSite]:
        """Norms that a cut can make up for."""
        return {} if self.eps is None else norm_sites(Operation(self), self.program)

    def run(self, *operands: Tensor) -> Any:
        """The function, with what follows its operands."""
        return self.function(*operands, *self.settings, *([] if self.eps is None else [self.eps]))

    @cached_property
    def counts(self) -> dict[tuple[str, int], int]:
        """`free` as numbers by axis."""
        counts = {}
        for word in self.free.split():
            axis, _, number = word.partition(":")
            name, dim = axis[:-1], int(axis[-1])
            counts[name, dim] = int(number) if number else self.tensors[name].shape[dim]
        return counts

    @cached_property
    def patterned(self) -> tuple[str, int]:
        """Operand and dim that carry PATTERN."""
        return self.pattern[:-1], int(self.pattern[-1])


def written(op: OpOverload, tensors: Mapping[str, Tensor], settings: Sequence[Any]) -> Program:
    """A program of one op, without `torch.export` (quick, and for ops that it takes apart); writes go to a copy."""
    graph = fx.Graph()
    nodes = []
    for name, tensor in tensors.items():
        nodes.append(graph.placeholder(name))
        nodes[-1].meta["val"] = tensor
    operands = list(nodes)
    if op._schema.is_mutable:
        operands[0] = graph.call_function(torch.ops.aten.clone.default, (nodes[0],))
        operands[0].meta["val"] = tensors[nodes[0].name]
    answer = graph.call_function(op, (*operands, *settings))
    answer.meta["val"] = op(*[t.clone() for t in tensors.values()], *settings)
    outputs = [answer]
    if isinstance(answer.meta["val"], tuple):
        outputs = [graph.call_function(operator.getitem, (answer, i)) for i in range(len(answer.meta["val"]))]
        for node, value in zip(outputs, answer.meta["val"], strict=True):
            node.meta["val"] = value
    graph.output(tuple(outputs))
    names = {name: name for name in tensors}
    return Program(tuple(graph.nodes), names, {n: (n,) for n in names}, dict(tensors), {}, frozenset())


class Operation(nn.Module):
    """A sample as a model: its operands are parameters (buffers where they are no floats), the plain ones inputs."""

    def __init__(self, sample: Sample) -> None:
        super().__init__()
        self.sample = sample
        if sample.eps is not None:
            self.eps = sample.eps
        for name, operand in sample.operands.items():
            tensor = sample.tensors[name]
            if isinstance(operand, Plain):
                continue
            if tensor.is_floating_point():
                setattr(self, name, nn.Parameter(tensor.clone(), requires_grad=False))
            else:
                self.register_buffer(name, tensor.clone())

    def forward(self, *inputs: Tensor) -> Any:
        given = iter(inputs)
        names = self.sample.operands
        operands = [getattr(self, name) if hasattr(self, name) else next(given) for name in names]
        return self.sample.run(*operands)
