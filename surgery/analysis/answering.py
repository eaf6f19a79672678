"""Values that a model's code asks for while it is recorded: known where they rest on neither inputs nor parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from surgery.analysis.keeping import UnsureError
from surgery.analysis.writes import root_of, written_argument

ASKING = frozenset(getattr(Tensor, name) for name in ("item", "__bool__", "__int__", "__float__", "__index__"))
"""What Python calls to have a tensor's value."""

MOST_ELEMENTS = 1 << 20
"""Of one tensor that is computed for the sake of an answer."""


def answer_of(func: Any, args: Any, graph: fx.Graph, lifted: Mapping[str, Tensor]) -> Any:
    """What an op that hands a value to Python answers: `if mask.any():`, with a mask that the code has made itself.

    Everything in the graph that is made of constants of the code is computed, in order, so that what was written into
    a tensor is seen.

    Args:
        func: The op.
        args: Its arguments, nodes of the graph in the place of tensors.
        graph: What was recorded so far.
        lifted: The constants of the code, by placeholder.

    Raises:
        UnsureError: The value rests on an input, a parameter or a random number: it may be another the next time.
    """
    known: dict[fx.Node, Any] = {}
    with _disable_current_modes(), torch.no_grad():
        for node in graph.nodes:
            if node.op == "placeholder" and node.name in lifted:
                known[node] = lifted[node.name].detach().clone()
            elif node.op == "call_function":
                _compute(node, known)
        if not all(part in known for part in args if isinstance(part, fx.Node)):
            raise UnsureError(f"{func} of a value that rests on the input")
        return func(*fx.map_arg(args, known.__getitem__))


class Answered(TorchFunctionMode):
    """Inside, code that asks for values is given these, one after the other: those that a recording has found."""

    def __init__(self, answers: Iterable[Any]) -> None:
        super().__init__()
        self.answers = iter(answers)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The next answer, or what the function gives."""
        return next(self.answers) if func in ASKING else func(*args, **(kwargs or {}))


def _compute(node: fx.Node, known: dict[fx.Node, Any]) -> None:
    """The value of one op, where it is known; what is not known spoils the memory it is written into."""
    if callable(node.target) and all(part in known for part in node.all_input_nodes) and _steady(node):
        known[node] = node.target(*fx.map_arg(node.args, known.__getitem__), **fx.map_arg(node.kwargs, known.get))
    elif (written := written_argument(node)) is not None:
        for spoilt in [other for other in known if root_of(other) is root_of(written)]:
            del known[spoilt]


def _steady(node: fx.Node) -> bool:
    """Whether an op gives the same every time, and not too much of it."""
    made = [part for part in pytree.tree_leaves(node.meta["val"]) if isinstance(part, Tensor)]
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return not random and all(tensor.numel() <= MOST_ELEMENTS for tensor in made)
