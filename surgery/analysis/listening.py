"""Run a model and listen to its calls of torch: which line of whose code asked for which shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from surgery.analysis.capture import prepared
from surgery.analysis.places import Call, Places, called
from surgery.analysis.standing import standing_in
from surgery.inputs import Inputs
from surgery.layout import Shape


@dataclass(frozen=True)
class Heard:
    """One call of torch by a model's code.

    Attributes:
        module: Path of the module whose forward called.
        name: What was called: "view", "split".
        shapes: Of what came back.
        calls: The code from the line that called out to the method of the module.
    """

    module: str
    name: str
    shapes: tuple[Shape, ...]
    calls: tuple[Call, ...]


def listen(model: nn.Module, inputs: Inputs) -> list[Heard]:
    """Every call of torch in one forward in eval mode, in order; none where the model does not run."""
    listener = _Listener(model)
    with prepared(model), torch.no_grad(), standing_in(model, inputs):
        try:
            with listener:
                called(model, inputs.args, dict(inputs.kwargs))
        except Exception:  # whatever a model raises
            return []
        finally:
            listener.places.modules.clear()
    return listener.heard


class _Listener(TorchFunctionMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.places = Places(model)
        self.heard: list[Heard] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call it, and note it down."""
        answer = func(*args, **(kwargs or {}))
        several = answer if isinstance(answer, tuple | list) else (answer,)
        shapes = tuple(tuple(part.shape) for part in several if isinstance(part, Tensor))
        if shapes:
            place = self.places.here()
            stack = place["nn_module_stack"]
            path = next(reversed(stack.values()))[0] if stack else ""
            self.heard.append(Heard(path, getattr(func, "__name__", ""), shapes, place["calls"]))
        return answer
