"""A call's arguments and answer taken apart into tensors and put together again, dataclasses included."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from surgery.inputs import Inputs

PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size)
SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


@dataclass(frozen=True)
class Leaf:
    """The tensor (or size) of that number."""

    index: int


@dataclass(frozen=True)
class Fixed:
    """A value that is the same at every call."""

    value: Any


@dataclass(frozen=True)
class Branch:
    """A container: what it is, what tells it from others of its kind (keys), and how it is made of its parts."""

    kind: type
    context: Any
    make: Callable[[list[Any]], Any]
    parts: tuple[Tree, ...]


Tree = Leaf | Fixed | Branch


def taken_apart(value: Any, leaves: list[Any], dropped: list[str]) -> Tree:
    """The structure of a value; its tensors are appended to `leaves`.

    Args:
        value: Tensors in lists, tuples, dicts, dataclasses and whatever the pytree registry knows.
        leaves: Receives the tensors and symbolic numbers.
        dropped: Receives the names of types that cannot be opened; None stands in their place.
    """
    if isinstance(value, (Tensor, *SYMBOLIC)):
        leaves.append(value)
        return Leaf(len(leaves) - 1)
    if isinstance(value, PLAIN):
        return Fixed(value)
    kind = pytree._get_node_type(value)
    known = pytree.SUPPORTED_NODES.get(kind)
    if known is not None:
        children, context = known.flatten_fn(value)
        make: Callable[[list[Any]], Any] = partial(_unflattened, known.unflatten_fn, context)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = tuple(f.name for f in dataclasses.fields(value) if f.init)
        children, context = [getattr(value, name) for name in names], names
        make = partial(_constructed, type(value), names)
    else:
        dropped.append(type(value).__name__)
        return Fixed(None)
    return Branch(type(value), context, make, tuple(taken_apart(child, leaves, dropped) for child in children))


def _unflattened(unflatten: Callable[[list[Any], Any], Any], context: Any, children: list[Any]) -> Any:
    return unflatten(children, context)


def _constructed(kind: type, names: Sequence[str], children: list[Any]) -> Any:
    return kind(**dict(zip(names, children, strict=True)))


def put_together(tree: Tree, leaves: Sequence[Any]) -> Any:
    """The value of a structure, around these tensors."""
    if isinstance(tree, Leaf):
        return leaves[tree.index]
    if isinstance(tree, Fixed):
        return tree.value
    return tree.make([put_together(part, leaves) for part in tree.parts])


def same(one: Tree, other: Tree) -> bool:
    """Whether two structures hold the same kinds of values in the same places, and the same fixed ones."""
    if isinstance(one, Branch) and isinstance(other, Branch):
        alike = one.kind is other.kind and one.context == other.context and len(one.parts) == len(other.parts)
        return alike and all(map(same, one.parts, other.parts))
    return type(one) is type(other) and one == other


def names(tree: Tree, path: str = "") -> list[str]:
    """A name for every tensor: the argument's, with its keys behind it, as in `images_0`."""
    if isinstance(tree, Leaf):
        return [path]
    if isinstance(tree, Fixed):
        return []
    keys = tree.context if isinstance(tree.context, list | tuple) and len(tree.context) == len(tree.parts) else None
    found: list[str] = []
    for index, part in enumerate(tree.parts):
        key = str(keys[index]) if keys is not None else str(index)
        found += names(part, f"{path}_{key}" if path else key)
    return found


def by_name(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by name, those left out that are at their default.

    Raises:
        TypeError: The arguments do not fit the signature.
    """
    bound = signature.bind(*args, **kwargs).arguments
    parameters = signature.parameters
    return {name: value for name, value in bound.items() if not _is_default(parameters[name].default, value)}


def _is_default(default: Any, value: Any) -> bool:
    return value is default or (isinstance(value, PLAIN) and type(value) is type(default) and value == default)


def calling(signature: inspect.Signature, model: Callable[..., Any], named: Mapping[str, Any]) -> Any:
    """Call with the arguments of `by_name`."""
    bound = inspect.BoundArguments(signature, dict(named))
    return model(*bound.args, **bound.kwargs)


def call_tree(model: nn.Module, inputs: Inputs) -> tuple[inspect.Signature, Tree, list[Tensor]]:
    """The signature of a model's forward, and the structure and tensors of one call.

    Raises:
        TypeError: The inputs do not fit the signature.
    """
    signature = inspect.signature(model.forward)
    leaves: list[Any] = []
    tree = taken_apart(by_name(signature, inputs.args, inputs.kwargs), leaves, [])
    return signature, tree, leaves
