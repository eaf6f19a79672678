"""The sizes that a file promises to work at, and inputs that try every one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from surgery.inputs import OTHER_SIZES, Inputs

FreeDims = Mapping[int, Any]
"""Per free dim of an input tensor its size as a `sympy` expression: dims of one symbol always have one size."""

BATCHES = (1, 3, 5)
SEED = 10


def batch_symbols(inputs: Inputs, dynamic: Sequence[FreeDims]) -> set[Any]:
    """The symbols that are the sizes of dim 0, where every tensor has a free one and all have one size."""
    firsts = {dims.get(0) for dims in dynamic}
    batch = inputs.batch is not None and all(size is not None and size.is_Symbol for size in firsts)
    return firsts if batch else set()


def other_batches(inputs: Inputs, dynamic: Sequence[FreeDims]) -> Iterator[tuple[str, Inputs]]:
    """Fresh inputs of batch 1, 3 and 5 with their names, where the batch is free."""
    if not batch_symbols(inputs, dynamic):
        return
    for size in BATCHES:
        if size != inputs.batch and (other := inputs.with_batch(size, SEED + size)) is not None:
            yield f"batch {size}", other


def other_sizes(inputs: Inputs, dynamic: Sequence[FreeDims]) -> Iterator[tuple[str, Iterator[Inputs]]]:
    """For the free sizes other than the batch, all at once and one by one: their names, and candidates to try.

    The model may refuse any of them; the likeliest to be accepted come first. Positions beyond an embedding's table
    end a CUDA process, so whole numbers on CUDA are only made shorter.
    """
    known = _known_sizes(inputs, dynamic)
    symbols_of_all = {s for dims in dynamic for size in dims.values() for s in size.free_symbols}
    rest = sorted(symbols_of_all - batch_symbols(inputs, dynamic), key=str)
    alone = [[symbol] for symbol in rest] if len(rest) > 1 else []
    for symbols in ([rest] if rest else []) + alone:
        name = ", ".join(_places(symbol, inputs, dynamic) for symbol in symbols)
        changed = [symbol for symbol in symbols if symbol in known]
        yield name, _candidates(inputs, dynamic, known, changed)


def _candidates(
    inputs: Inputs, dynamic: Sequence[FreeDims], known: Mapping[Any, int], changed: Sequence[Any]
) -> Iterator[Inputs]:
    careful = any(tensor.is_cuda and not tensor.is_floating_point() for tensor in inputs.tensors())
    for more, times in OTHER_SIZES if changed else ():
        sizes = {symbol: int(known[symbol] * times) + more for symbol in changed}
        longer = any(size > known[symbol] for symbol, size in sizes.items())
        if all(size >= 1 for size in sizes.values()) and not (careful and longer):
            yield inputs.with_shapes(_shapes(inputs, dynamic, {**known, **sizes}), SEED)


def _known_sizes(inputs: Inputs, dynamic: Sequence[FreeDims]) -> dict[Any, int]:
    """The example's value of every symbol that is the whole size of some dim."""
    return {
        size: tensor.shape[dim]
        for tensor, dims in zip(inputs.tensors(), dynamic, strict=True)
        for dim, size in dims.items()
        if size.is_Symbol
    }


def _shapes(inputs: Inputs, dynamic: Sequence[FreeDims], sizes: Mapping[Any, int]) -> list[tuple[int, ...]]:
    """The shape of every tensor with the symbols at `sizes`; dims of unknown symbols stay."""
    return [
        tuple(
            int(dims[dim].subs(sizes)) if dim in dims and dims[dim].free_symbols <= sizes.keys() else size
            for dim, size in enumerate(tensor.shape)
        )
        for tensor, dims in zip(inputs.tensors(), dynamic, strict=True)
    ]


def _places(symbol: Any, inputs: Inputs, dynamic: Sequence[FreeDims]) -> str:
    """The first place of a symbol, in words: `dim 2 of the input 8x3x32x32`."""
    for tensor, dims in zip(inputs.tensors(), dynamic, strict=True):
        for dim, size in dims.items():
            if symbol in size.free_symbols:
                return f"dim {dim} of the input {'x'.join(map(str, tensor.shape))}"
    raise AssertionError("a symbol is the size of something")
