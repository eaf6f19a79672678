"""Which of the given tensors goes into which input of a file: by name, else by position."""

from __future__ import annotations

from collections.abc import Sequence

from surgery.errors import InputError
from surgery.exporting.target import Loaded, Runner


def bound(loaded: Loaded, given: Sequence[str]) -> Runner:
    """`loaded.run` for tensors in the order of `given`, their names; `""` for one that has only a position.

    Raises:
        InputError: The file takes other inputs, or more.
    """
    order = order_of(loaded, given)
    return lambda tensors: loaded.run([tensors[i] for i in order])


def order_of(loaded: Loaded, given: Sequence[str]) -> list[int]:
    """Per input of the file, the position of the tensor among those given.

    All by name, where every input of the file is named among them (a file may have dropped an input that it does not
    read). Else the named ones that the file knows, and the others in their order.

    Raises:
        InputError: The file takes other inputs, or more.
    """
    wanted = loaded.input_names or tuple(given)
    if set(wanted) <= set(given):
        return [list(given).index(name) for name in wanted]
    takes = f"the file takes {len(wanted)} inputs ({', '.join(wanted)})"
    if len(wanted) != len(given):
        raise InputError(f"{takes}, and {len(given)} were given", "give one for each, under its name")
    named = {name: i for i, name in enumerate(given) if name in wanted}
    others = iter(i for i, name in enumerate(given) if name not in named)
    return [named[name] if name in named else next(others) for name in wanted]
