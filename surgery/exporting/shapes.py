"""The user's `dynamic_shapes`, per argument as `torch.export` takes them, as one spec per input tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor

from surgery.errors import InputError
from surgery.exporting.sizes import FreeDims


def flat_shapes(dynamic_shapes: Any, input_paths: Sequence[tuple[str | int, ...]]) -> list[dict[int, Any] | None]:
    """One `{dim: name, Dim or hint}` or None per input tensor.

    Args:
        dynamic_shapes: By argument name, or a tuple in the order of the arguments; nested as the inputs are.
        input_paths: Per input tensor, the argument's name and its keys inside it.

    Raises:
        InputError: A name that is no input, or a structure that does not follow the inputs.
    """
    roots = list(dict.fromkeys(path[0] for path in input_paths))
    if isinstance(dynamic_shapes, list | tuple):
        if len(dynamic_shapes) > len(roots):
            fact = (
                f"dynamic_shapes has {len(dynamic_shapes)} entries, but the model takes {len(roots)} tensor arguments"
            )
            raise InputError(fact, f"give one entry for each of {', '.join(map(str, roots))}")
        dynamic_shapes = dict(zip(roots, dynamic_shapes, strict=False))
    if not isinstance(dynamic_shapes, Mapping):
        raise InputError(f"dynamic_shapes is a {type(dynamic_shapes).__name__}", 'pass e.g. {"x": {0: "batch"}}')
    if unknown := [key for key in dynamic_shapes if key not in roots]:
        fact = f"dynamic_shapes names {unknown[0]!r}, which is no tensor input"
        raise InputError(fact, f"the tensor inputs are {', '.join(map(str, roots))}")
    return [_spec(dynamic_shapes, path) for path in input_paths]


def _spec(spec: Any, path: tuple[str | int, ...]) -> dict[int, Any] | None:
    """The dynamic dims of the tensor at `path`, or None."""
    for key in path:
        if spec is None:
            return None
        if isinstance(spec, Mapping):
            spec = spec.get(key)
        elif isinstance(spec, list | tuple) and isinstance(key, int) and key < len(spec):
            spec = spec[key]
        else:
            raise _misfit(path)
    if isinstance(spec, list | tuple):
        spec = dict(enumerate(spec))
    if spec is None:
        return None
    if not isinstance(spec, Mapping) or not all(isinstance(dim, int) for dim in spec):
        raise _misfit(path)
    return {dim: size for dim, size in spec.items() if size is not None} or None


def _misfit(path: tuple[str | int, ...]) -> InputError:
    name = ".".join(map(str, path))
    return InputError(
        f"dynamic_shapes does not fit the input {name}", f'give its dims as {{0: "batch"}}, nested as {name} is'
    )


def require_dims(shapes: Sequence[dict[int, Any] | None], tensors: Sequence[Tensor], names: Sequence[str]) -> None:
    """Refuse specs of dims that the example does not have.

    Raises:
        InputError: There is no such dim.
    """
    for spec, tensor, name in zip(shapes, tensors, names, strict=True):
        for dim in spec or ():
            if not 0 <= dim < tensor.dim():
                fact = f"dynamic_shapes names dim {dim} of the input {name}, which has {tensor.dim()} dims"
                raise InputError(fact, f"count from 0 to {tensor.dim() - 1}" if tensor.dim() else "leave it out")


def as_dims(shapes: Sequence[dict[int, Any] | None]) -> tuple[dict[int, Any] | None, ...]:
    """The same specs as `torch.export` takes them: a plain name is a dim of any size."""
    any_size = torch.export.Dim.DYNAMIC
    return tuple(
        None if spec is None else {dim: any_size if isinstance(size, str) else size for dim, size in spec.items()}
        for spec in shapes
    )


def named_dims(shapes: Sequence[dict[int, Any] | None]) -> tuple[FreeDims, ...]:
    """The specs that are names, or `Dim`s with one, as symbols: dims of one name have one size."""
    return tuple(
        {
            dim: symbol(size if isinstance(size, str) else size.__name__)
            for dim, size in (spec or {}).items()
            if isinstance(size, str) or type(size) is torch.export.Dim
        }
        for spec in shapes
    )


def symbol(name: str) -> sympy.Symbol:
    """A size that is only known by its name."""
    return sympy.Symbol(name, integer=True, positive=True)
