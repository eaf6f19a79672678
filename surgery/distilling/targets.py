"""Which numbers of a model's output are distilled, on which dim their classes lie, and which positions count."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from surgery.errors import InputError

Kind = Literal["classes", "values"]
"""What an output holds: scores of classes, or numbers that are themselves the answer."""

KINDS = ("classes", "values")
SHIFTED = ("ForCausalLM", "ForConditionalGeneration")
"""Losses of transformers in which the label of a position is the next position's."""
CLOSE_TO_ONE = 1e-3


@dataclass(frozen=True)
class Asked:
    """What the user said about outputs; None where that is to be found out.

    Attributes:
        kind: What they hold.
        output: Which of several is distilled, by name or place.
        class_dim: Where the classes lie.
        ignore_index: The label of positions that do not count.
    """

    kind: Kind | None
    output: str | int | None
    class_dim: int | None
    ignore_index: int


def distilled(output: Any, asked: Asked) -> dict[str, Tensor]:
    """The tensors of an output that are distilled, by name; `""` for one that has none.

    A tensor is itself. Of what has names, those that end in `logits`, or else the only floating-point tensor; of a
    tuple or list the first floating-point tensor that is more than a single number (which would be a loss).

    Raises:
        InputError: There is none, or it is not clear which.
    """
    if isinstance(output, Tensor):
        if not output.is_floating_point():
            raise InputError(f"the model's output is of {output.dtype}", "distil a model that hands out scores")
        return {"": output}
    names = _named(output)
    kind = type(output).__name__
    if asked.output is not None:
        held: Any = names if isinstance(asked.output, str) else output
        try:
            found = held[asked.output]
        except (KeyError, IndexError, TypeError) as error:
            has = ", ".join(names) or f"{len(output)} parts" if hasattr(output, "__len__") else "no parts"
            fact = f"the model's output ({kind}) has no {asked.output!r} (it has {has})"
            raise InputError(fact, "name one that it has: Distillation(..., output=...)") from error
        if not isinstance(found, Tensor):
            fact = f"{asked.output!r} of the model's output is a {type(found).__name__}"
            raise InputError(fact, "name a tensor: Distillation(..., output=...)")
        return {str(asked.output): found}
    floats = {name: value for name, value in names.items() if _holds_numbers(value)}
    if names:
        scores = {name: value for name, value in floats.items() if name == "logits"}
        scores = scores or {name: value for name, value in floats.items() if name.endswith("logits")}
        if scores or len(floats) == 1:
            return scores or floats
        what = f"holds {', '.join(floats)}" if floats else "holds no floating-point tensor"
        raise InputError(f"the model's output ({kind}) {what}", "say which to distil: Distillation(..., output=NAME)")
    first = first_tensor(output)
    if first is None:
        raise InputError(
            f"the model's output is a {kind} without a floating-point tensor", "distil a model that hands out numbers"
        )
    return {"": first}


def first_tensor(value: Any) -> Tensor | None:
    """The first floating-point tensor in a value that is more than a single number."""
    leaves = pytree.tree_leaves(_named(value) or value)
    return next((leaf for leaf in leaves if _holds_numbers(leaf)), None)


def kind_of(name: str, logits: Tensor, targets: Any, asked: Asked) -> Kind:
    """What an output holds, where nobody said: numbers where there is one a sample, else scores of classes.

    Raises:
        InputError: It may be either.
    """
    if asked.kind is not None:
        return asked.kind
    way_out = "say which: Distillation(..., kind='classes' or 'values')"
    if logits.dim() < 2:
        return "values"
    dim = asked.class_dim if asked.class_dim is not None else 1 if logits.dim() > 3 else -1
    if logits.shape[dim] == 1:
        return "values"
    if name and not name.endswith("logits"):
        raise InputError(f"the output {name!r} may hold scores of classes or numbers", way_out)
    if isinstance(targets, Tensor) and targets.is_floating_point() and targets.shape == logits.shape:
        sums = targets.sum(dim)
        if not (bool((targets >= 0).all()) and bool(((sums - 1).abs() < CLOSE_TO_ONE).all())):
            shape = list(logits.shape)
            raise InputError(f"the outputs {shape} are held against floating-point targets {shape}", way_out)
    return "classes"


def class_dim_of(name: str, logits: Tensor, labels: Tensor | None, asked: Asked) -> int:
    """The dim of the classes: the one that the labels have not; without labels the last one of up to three dims.

    Raises:
        InputError: It is not clear, or there is no such dim.
    """
    shape, way_out = list(logits.shape), "say which dim: Distillation(..., class_dim=...), 1 for images"
    if asked.class_dim is not None:
        if not -logits.dim() <= asked.class_dim < logits.dim():
            raise InputError(f"class_dim is {asked.class_dim}, the outputs are {shape}", "name a dim that they have")
        return asked.class_dim % logits.dim()
    if labels is not None:
        found = [dim for dim in range(1, logits.dim()) if [*shape[:dim], *shape[dim + 1 :]] == list(labels.shape)]
        if len(found) > 1 and name and logits.dim() == 3:  # by name: of transformers, whose tokens come before classes
            return 2
        if len(found) > 1:
            raise InputError(f"the classes of outputs {shape} may lie on dim {found[0]} or {found[-1]}", way_out)
        if found:
            return found[0]
    if logits.dim() > 3:
        raise InputError(f"it is not clear on which dim of the outputs {shape} the classes lie", way_out)
    return logits.dim() - 1


def labels_of(targets: Any, kwargs: Mapping[str, Any]) -> Tensor | None:
    """The integer labels of a batch, from its targets or from what the model was called with."""
    given = targets.get("labels") if isinstance(targets, Mapping) else targets
    given = kwargs.get("labels") if given is None else given
    return given if isinstance(given, Tensor) and not given.is_floating_point() and given.dim() else None


def counted(
    shape: torch.Size, student: nn.Module | None, labels: Tensor | None, kwargs: Mapping[str, Any], asked: Asked
) -> Tensor | None:
    """Which positions count, bool of the given shape: those with a label, that the attention mask does not leave out.

    Args:
        shape: Of the output without its classes.
        student: The model, which says whether the label of a position is the next one's.
        labels: Integers; those that equal `ignore_index` do not count.
        kwargs: What the model was called with.
        asked: The `ignore_index`.

    Returns:
        None where all count.
    """
    keep = None
    if labels is not None and labels.shape == shape:
        keep = labels != asked.ignore_index
        if student is not None and shifts(student):
            keep = torch.cat((keep[..., 1:], torch.zeros_like(keep[..., :1])), -1)
    name = "decoder_attention_mask" if _encodes_and_decodes(student) else "attention_mask"
    attended = kwargs.get(name)
    if isinstance(attended, Tensor) and attended.shape == shape:
        keep = attended.bool() if keep is None else keep & attended.bool().to(keep.device)
    return keep


def shifts(model: nn.Module) -> bool:
    """Whether a model of transformers compares the scores at a position with the label of the next one."""
    named = getattr(model, "loss_type", None) in SHIFTED or type(model).__name__.endswith("LMHeadModel")
    return named and not _encodes_and_decodes(model)


def _encodes_and_decodes(model: nn.Module | None) -> bool:
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def _named(output: Any) -> dict[str, Any]:
    """The parts of an output that have names: a mapping, a dataclass, a named tuple; else nothing."""
    if isinstance(output, Mapping):
        return {str(name): value for name, value in output.items()}
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return output._asdict() if isinstance(output, tuple) and hasattr(output, "_asdict") else {}


def _holds_numbers(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0
