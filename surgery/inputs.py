"""Example inputs: what the user gave, and fresh ones like it for a proof."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from surgery.errors import InputError

Example = Tensor | tuple[Any, ...]


OTHER_SIZES = ((32, 1.0), (0, 1.5), (0, 2.0), (0, 0.5), (-1, 1.0))
"""What to make of a size in order to try another one: so many more, so many times; the likeliest to fit first."""


@dataclass(frozen=True)
class Inputs:
    """One call of a model: `model(*args, **kwargs)`. Tensors may sit inside lists, tuples and dicts."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @staticmethod
    def of(example_inputs: Example, example_kwargs: Mapping[str, Any] | None = None) -> Inputs:
        """A tensor or a tuple (and keyword inputs) as `Inputs`.

        Raises:
            InputError: `example_inputs` is neither a tensor nor a tuple or list, or holds no tensor at all.
        """
        given: Any = (example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs
        if not isinstance(given, tuple | list):
            fact = f"example_inputs is a {type(given).__name__}"
            raise InputError(fact, "pass a tensor, or a tuple of the model's positional inputs")
        inputs = Inputs(tuple(given), dict(example_kwargs or {}))
        if not inputs.tensors():
            raise InputError("the example inputs hold no tensor", "pass at least one tensor as the model receives it")
        return inputs

    def tensors(self) -> list[Tensor]:
        """Every tensor of the call, in pytree order."""
        return [leaf for leaf in pytree.tree_leaves((self.args, dict(self.kwargs))) if isinstance(leaf, Tensor)]

    def map(self, function: Any) -> Inputs:
        """The same call with `function(tensor)` in the place of every tensor."""
        args, kwargs = pytree.tree_map_only(Tensor, function, (self.args, dict(self.kwargs)))
        return Inputs(args, kwargs)

    def call(self, model: nn.Module) -> Any:
        """The model's output on copies of these inputs: a model that writes into its input does not spoil them."""
        fed = self.map(torch.clone)
        return model(*fed.args, **fed.kwargs)

    def to(self, *where: Any) -> Inputs:
        """Floating-point tensors moved or cast as by `Tensor.to`; the others only moved, never cast."""
        devices = [w for w in where if not isinstance(w, torch.dtype)]
        return self.map(lambda t: t.to(*where) if t.is_floating_point() else (t.to(*devices) if devices else t))

    @property
    def batch(self) -> int | None:
        """The size that dim 0 of every tensor shares; None where they differ or have no dims."""
        sizes = {t.shape[0] if t.dim() else None for t in self.tensors()}
        return sizes.pop() if len(sizes) == 1 else None

    def fresh(self, seed: int) -> Inputs:
        """Random inputs of the same shapes.

        Floating-point tensors follow the example's mean and standard deviation; integers are drawn from the
        example's own range; booleans and 0/1 integers (masks) are kept as they are.
        """
        generator = torch.Generator().manual_seed(seed)

        def draw(example: Tensor) -> Tensor:
            return _like(example, tuple(example.shape), generator)

        return self.map(draw)

    def with_batch(self, size: int, seed: int) -> Inputs | None:
        """Fresh inputs with `size` in dim 0 of every tensor, or None where the inputs share no batch dim."""
        if self.batch is None:
            return None
        generator = torch.Generator().manual_seed(seed)
        return self.map(lambda t: _like(t, (size, *t.shape[1:]), generator))

    def with_shapes(self, shapes: Sequence[Sequence[int]], seed: int) -> Inputs:
        """Fresh inputs of these shapes, one per tensor, in order and of the same number of dims."""
        generator = torch.Generator().manual_seed(seed)
        following = iter(shapes)
        return self.map(lambda t: _like(t, tuple(next(following)), generator))

    def stretched(self, more: int) -> Iterator[Inputs]:
        """The same call with every dim of one size larger by so many, size by size; values are repeated."""
        for size in sorted({size for tensor in self.tensors() for size in tensor.shape if size > 1}):
            yield self.map(lambda t, size=size: _tiled(t, tuple(s + more if s == size else s for s in t.shape)))

    def resized(self, seed: int) -> Iterator[Inputs]:
        """Fresh inputs of other sizes, the likeliest to be accepted first.

        Dims from 2 on of floating-point tensors (space, time) and dim 1 of 2-d integer or boolean tensors
        (tokens) change; the same old size always becomes the same new one. A model may refuse all of them.
        """
        old = sorted(
            {s for t in self.tensors() if t.is_floating_point() for s in t.shape[2:]}
            | {t.shape[1] for t in self.tensors() if not t.is_floating_point() and t.dim() == 2}
        )
        for more, times in OTHER_SIZES:
            sizes = {s: int(s * times) + more for s in old if s > 1}
            if not sizes or min(sizes.values()) < 1:
                continue
            generator = torch.Generator().manual_seed(seed)

            def draw(t: Tensor, sizes: dict[int, int] = sizes, generator: torch.Generator = generator) -> Tensor:
                first = 2 if t.is_floating_point() else (1 if t.dim() == 2 else t.dim())
                shape = tuple(sizes.get(s, s) if d >= first else s for d, s in enumerate(t.shape))
                return _like(t, shape, generator)

            yield self.map(draw)


def _like(example: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A fresh tensor of `shape` with the example's dtype, device and range."""
    if example.is_floating_point() or example.is_complex():
        real = example.detach().to("cpu", torch.float64) if not example.is_complex() else example.detach().abs().cpu()
        mean = real.mean() if real.numel() else torch.tensor(0.0)
        std = real.std() if real.numel() > 1 and float(real.std()) > 0 else torch.tensor(1.0)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * std + mean
        return drawn.to(example.device, example.dtype)
    low, high = (int(example.min()), int(example.max())) if example.numel() else (0, 0)
    if example.dtype == torch.bool or (low >= 0 and high <= 1):
        return _tiled(example, shape)
    return torch.randint(low, high + 1, shape, generator=generator, dtype=torch.int64).to(example.device, example.dtype)


def _tiled(example: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The example repeated and cropped to `shape`, dim by dim."""
    for dim, size in enumerate(shape):
        if example.shape[dim] == 0:
            return example.new_ones(shape)
        positions = torch.arange(size, device=example.device) % example.shape[dim]
        example = example.index_select(dim, positions)
    return example.clone()
