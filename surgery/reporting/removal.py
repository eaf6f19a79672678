"""What was removed, layer by layer: shapes before and after, channels kept along every dim, parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from surgery.deciding.parts import AxisCut
from surgery.reporting.scales import Scale, linear
from surgery.results import Result

HEIGHT, SHARE, LEFT, NARROWEST, WIDEST, WIDTH = 150, 40, 52, 5, 64, 1040
"""Of the picture of all layers, in pixels: of its two parts, the margin, one layer's column, and the whole."""


@dataclass(frozen=True)
class Dim:
    """What stays of one dim of a tensor."""

    dim: int
    kept: int
    total: int


@dataclass(frozen=True)
class Shape:
    """One tensor before and after; `dims` are those that channels live on."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    dims: tuple[Dim, ...]


@dataclass(frozen=True)
class Layer:
    """A module with tensors of its own.

    Attributes:
        name: Its path; what stands at the top of the model has the model's own class for a name.
        kind: Its class; "" where the model that was handed back has no such module.
        shapes: Its matrices; where it has none, its largest tensor.
        before, after: Elements of its parameters.
        cut: Whether anything of it went.
    """

    name: str
    kind: str
    shapes: tuple[Shape, ...]
    before: int
    after: int
    cut: bool

    @property
    def removed(self) -> int:
        """How many parameter elements went; below 0 where a fold made a bias and nothing else happened."""
        return self.before - self.after


@dataclass(frozen=True)
class Column:
    """One layer in the picture of all, `[pixels]`: its place, the tops of all its parameters and of those kept.

    `share` is the height of the share kept, of `SHARE`.
    """

    layer: Layer
    x: float
    width: float
    top: float
    kept_top: float
    share: float


@dataclass(frozen=True)
class Removal:
    """Every layer, in the order in which the model reads them."""

    layers: tuple[Layer, ...]

    @property
    def before(self) -> int:
        """Elements of all parameters."""
        return sum(layer.before for layer in self.layers)

    @property
    def after(self) -> int:
        """Those that stay."""
        return sum(layer.after for layer in self.layers)

    @property
    def cut(self) -> int:
        """How many layers lost something."""
        return sum(layer.cut for layer in self.layers)

    @cached_property
    def height(self) -> Scale:
        """The scale of the picture."""
        return linear(0, max((max(layer.before, layer.after) for layer in self.layers), default=1) or 1, HEIGHT, 8)

    @property
    def step(self) -> float:
        """From one column to the next, `[pixels]`."""
        return min(max((WIDTH - LEFT) / max(len(self.drawn), 1), NARROWEST), WIDEST)

    @cached_property
    def drawn(self) -> tuple[Layer, ...]:
        """Layers with a matrix: beside them, norms would be empty columns."""
        return tuple(layer for layer in self.layers if any(len(shape.before) > 1 for shape in layer.shapes))

    @property
    def columns(self) -> tuple[Column, ...]:
        """The picture's columns."""
        step = self.step
        gap = 1 if step < 8 else 3
        return tuple(
            Column(
                layer,
                round(LEFT + number * step, 2),
                round(step - gap, 2),
                self.height(layer.before),
                self.height(min(layer.after, layer.before)),
                round(SHARE * min(layer.after / layer.before, 1), 2) if layer.before else SHARE,
            )
            for number, layer in enumerate(self.drawn)
        )

    @property
    def width(self) -> float:
        """The picture's width, `[pixels]`."""
        return round(LEFT + self.step * len(self.drawn) + 8, 2)


def removal_of(result: Result) -> Removal:
    """Every layer with parameters, and every one that lost something."""
    plan = result.plan
    now = dict(result.model.named_parameters())
    every = dict(result.model.named_buffers()) | now
    kinds = {name: type(module).__name__ for name, module in result.model.named_modules()}
    cuts: dict[str, list[AxisCut]] = {}
    for axis in plan.axes:
        cuts.setdefault(axis.name, []).append(axis)
    lived_on = {axis for group in plan.groups for axis in group.axes}
    members: dict[str, list[str]] = {}
    for name in dict.fromkeys((*plan.shapes, *now)):
        members.setdefault(name.rpartition(".")[0], []).append(name)

    def shape(name: str) -> Shape:
        before = tuple(plan.shapes.get(name, ()))
        after = tuple(every[name].shape) if name in every else before
        axes = sorted((a for a in cuts.get(name, ()) if f"{name}:{a.dim}" in lived_on), key=lambda axis: axis.dim)
        dims = tuple(Dim(axis.dim, len(axis.keep), axis.size) for axis in axes)
        return Shape(name.rpartition(".")[2], before or after, after, dims)

    layers = []
    for path, names in members.items():
        cut = any(axis.removed for name in names for axis in cuts.get(name, ()))
        own = [name for name in names if name in now]
        if not own and not cut:
            continue
        known = [name for name in own or names if name in plan.shapes]
        shapes = [shape(name) for name in known if len(plan.shapes[name]) > 1]
        if not shapes and known:
            shapes = [shape(max(known, key=lambda name: math.prod(plan.shapes[name])))]
        before = sum(math.prod(plan.shapes[name]) for name in own if name in plan.shapes)
        after = sum(now[name].numel() for name in own)
        kind = kinds.get(path, "")
        layers.append(Layer(path or kind or "the model", kind if path else "", tuple(shapes), before, after, cut))
    for bypass in plan.bypasses:
        before = sum(math.prod(shape) for name, shape in bypass.shapes.items() if name.startswith(f"{bypass.module}."))
        layers.append(Layer(bypass.module, "went as a whole", (), before, 0, cut=True))
    return Removal(tuple(layers))
