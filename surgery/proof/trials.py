"""Which inputs a proof tries: the example, other batch sizes, another resolution or length."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from surgery.errors import first_line
from surgery.inputs import Inputs

Result = TypeVar("Result")


@dataclass(frozen=True)
class Attempt:
    """One thing to try: the first of `candidates` that the masked model accepts is used."""

    name: str
    candidates: Iterable[Inputs]


def batches(inputs: Inputs, seed: int = 0) -> list[Attempt]:
    """Batch 1 and batch 3, filled with fresh values; empty where the inputs share no batch dim.

    An example of batch 1 is a batch of 1 already. In the batch of 3 the second entry of each attention mask is
    padded on the left, where the model accepts that.
    """
    attempts: list[Attempt] = []
    for size in (1, 3):
        fresh = inputs.with_batch(size, seed + size)
        if fresh is None or size == inputs.batch == 1:
            continue
        padded = _left_padded(fresh) if size > 1 else None
        attempts.append(Attempt(f"batch {size}", [fresh] if padded is None else [padded, fresh]))
    return attempts


def same_shape(inputs: Inputs, seed: int = 10) -> list[Attempt]:
    """Two fresh calls of the example's own shapes: for models that take no batch of three fresh entries."""
    return [Attempt("fresh values", [inputs.fresh(seed + i)]) for i in range(2)]


def another_size(inputs: Inputs, seed: int = 20) -> Attempt:
    """Another resolution or length; of batch 1 where the inputs share a batch dim, to keep it short.

    Integers on CUDA are only made shorter: a position beyond an embedding's table ends a CUDA process.
    """
    careful = any(t.is_cuda and not t.is_floating_point() for t in inputs.tensors())
    length = _length(inputs)
    candidates = (c for c in inputs.resized(seed) if not careful or _length(c) <= length)
    return Attempt("another size", (c.with_batch(1, seed) or c for c in candidates))


def shapes(inputs: Inputs) -> str:
    """`[3, 3, 224, 224]`, or several of them with a comma."""
    return ", ".join(str(list(tensor.shape)) for tensor in inputs.tensors())


def _length(inputs: Inputs) -> int:
    return sum(tensor.numel() for tensor in inputs.tensors())


def _left_padded(inputs: Inputs) -> Inputs | None:
    """The call with the left half of the second row of each all-ones [batch, tokens] mask set to 0, if there is one."""

    def is_mask(tensor: Tensor) -> bool:
        whole = not tensor.is_floating_point() and not tensor.is_complex()
        return whole and tensor.dim() == 2 and tensor.shape[1] > 1 and bool((tensor == 1).all())

    def pad(tensor: Tensor) -> Tensor:
        if is_mask(tensor):
            tensor = tensor.clone()
            tensor[1, : tensor.shape[1] // 2] = 0
        return tensor

    return inputs.map(pad) if any(is_mask(t) for t in inputs.tensors()) else None


def accepted(attempt: Attempt, run: Callable[[Inputs], Result]) -> tuple[Inputs, Result] | str:
    """The first candidate that `run` takes, with what it returned; why not where it takes none."""
    refusal = ""
    for candidate in attempt.candidates:
        try:
            return candidate, run(candidate)
        except Exception as error:  # a model may refuse a shape with any error
            refusal = refusal or f"the masked model refuses it ({first_line(error)})"
    return refusal or "the example has no dim for it"
