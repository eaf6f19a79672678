"""The model with tensors in and tensors out, which is the only shape that an exported file has."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from surgery.errors import InputError
from surgery.exporting.state import KeptState
from surgery.inputs import Inputs

Path = tuple[str | int, ...]


class FlatModel(nn.Module):
    """`model` called with the example's tensors in order, and its outputs as one tensor or a tuple of tensors.

    What is not a tensor in the example (flags, None, numbers) is fixed as given.

    Attributes:
        input_paths: Per input tensor, the argument's name and where the tensor sits inside it.
        input_names: One identifier per input tensor, made from its path: `x`, `states_0`.
        output_names: One name per output tensor: `output`, `output_0`, or keys and fields: `logits`.
        left_out: Outputs that are no tensors and hold none that can be found, as `"past (Cache)"`.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.model = model
        leaves, spec = pytree.tree_flatten((inputs.args, dict(inputs.kwargs)))
        positions = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.input_paths = _input_paths(model, inputs)
        self.input_names = input_names(model, inputs)
        self.output_names: list[str] = []
        self.left_out: list[str] = []

        def forward(*tensors: Tensor) -> Any:
            filled = list(constants)
            for position, tensor in zip(positions, tensors, strict=True):
                filled[position] = tensor
            args, kwargs = pytree.tree_unflatten(filled, spec)
            outputs = output_tensors(model(*args, **kwargs))
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

        # the names of a file's inputs are read off this signature
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(name, kind) for name in self.input_names])
        forward.__signature__ = signature  # type: ignore[attr-defined]
        self.forward = forward
        self.train(model.training)

    @property
    def kind(self) -> str:
        """What it is, in words: the model's class."""
        return type(self.model).__name__

    def learn_outputs_(self, output: Any) -> None:
        """Name the output tensors from what the model itself returned.

        Raises:
            InputError: There is no tensor in the output.
        """
        found = list(_leaves(output))
        paths = [path for path, leaf in found if isinstance(leaf, Tensor)]
        if not paths:
            kind = type(output).__name__
            raise InputError(
                f"the model returns no tensor (but a {kind})", "return a tensor, or tensors in a tuple or dict"
            )
        names = [
            ".".join(map(str, path)) if path and isinstance(path[0], str) else _output_name(path) for path in paths
        ]
        names = [f"{name}_out" if name in self.input_names else name for name in names]  # ONNX wants them distinct
        self.output_names = _unique([*self.input_names, *names])[len(self.input_names) :]
        self.left_out = [
            f"{'.'.join(map(str, path)) or 'output'} ({type(leaf).__name__})"
            for path, leaf in found
            if not isinstance(leaf, Tensor)
        ]

    def outputs(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The output tensors for copies of `tensors`; the model's buffers are as before afterwards."""
        with KeptState(self.model):
            output = self(*[tensor.clone() for tensor in tensors])
        return [t.detach().clone() for t in ([output] if isinstance(output, Tensor) else output)]


def input_names(model: nn.Module | None, inputs: Inputs) -> list[str]:
    """One name per input tensor: `x`, `states_0`; without a model `""` for those that have only a position."""
    if model is not None:
        return _unique([_identifier(path) for path in _input_paths(model, inputs)])
    positional = len(Inputs(inputs.args, {}).tensors())
    keywords = [
        _identifier((name, *(_key(key) for key in keys)))
        for name, value in inputs.kwargs.items()
        for keys, leaf in pytree.tree_flatten_with_path(value)[0]
        if isinstance(leaf, Tensor)
    ]
    return [""] * positional + _unique(keywords)


def output_tensors(output: Any) -> list[Tensor]:
    """Every tensor of what a model returned, in the order in which a file returns them."""
    return [leaf for _, leaf in _leaves(output) if isinstance(leaf, Tensor)]


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every tensor inside an output with its path, and every object of unknown inside; plain values are dropped."""
    children: list[tuple[str | int, Any]]
    if isinstance(value, Tensor):
        yield path, value
        return
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return
    if isinstance(value, Mapping):
        children = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        children = list(zip(value._fields, value, strict=True))
    elif isinstance(value, list | tuple):
        children = list(enumerate(value))
    elif is_dataclass(value):
        children = [(field.name, getattr(value, field.name)) for field in fields(value)]
    elif (inside := pytree.tree_leaves(value)) and inside[0] is not value:
        children = list(enumerate(inside))
    else:
        yield path, value
        return
    for key, item in children:
        yield from _leaves(item, (*path, key))


def _input_paths(model: nn.Module, inputs: Inputs) -> list[Path]:
    """Per input tensor, the name of the argument it came in and its keys inside that argument."""
    names: list[Path] = []
    for parameter in inspect.signature(model.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [(parameter.name, i) for i in range(len(inputs.args) - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append((parameter.name,))
    names += [(f"input_{i}",) for i in range(len(names), len(inputs.args))]  # too many: the model itself will say so
    roots = [*names[: len(inputs.args)], *((key,) for key in inputs.kwargs)]
    paths: list[Path] = []
    for root, value in zip(roots, [*inputs.args, *inputs.kwargs.values()], strict=True):
        for keys, leaf in pytree.tree_flatten_with_path(value)[0]:
            if isinstance(leaf, Tensor):
                paths.append((*root, *(_key(key) for key in keys)))
    return paths


def _key(key: Any) -> str | int:
    """The plain key or index behind a pytree key."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            found = getattr(key, attribute)
            return found if isinstance(found, int) else str(found)
    return str(key)


def _identifier(path: Path) -> str:
    """A Python identifier from a path: `("states", 0)` to `states_0`."""
    name = re.sub(r"\W", "_", "_".join(map(str, path)))
    name = f"{name}_" if keyword.iskeyword(name) or name == "self" else name
    return name if name.isidentifier() else f"input_{name}"


def _output_name(path: Path) -> str:
    return "_".join(map(str, ("output", *path)))


def _unique(names: Sequence[str]) -> list[str]:
    """The same names, with a number behind those that came before."""
    result: list[str] = []
    for name in names:
        candidate, n = name, 1
        while candidate in result:
            n += 1
            candidate = f"{name}_{n}"
        result.append(candidate)
    return result
