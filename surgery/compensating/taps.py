"""Run a model on real data and listen at some of its ops, by the weight that each reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode, PythonKeyTracer

from surgery.errors import InputError, first_line
from surgery.inputs import Inputs
from surgery.registry import arguments
from surgery.tensors import named_tensors

WEIGHT_OF = {
    "linear": "weight",
    "conv1d": "weight",
    "conv2d": "weight",
    "conv3d": "weight",
    "conv_transpose1d": "weight",
    "conv_transpose2d": "weight",
    "conv_transpose3d": "weight",
    "addmm": "mat2",
    "mm": "mat2",
    "matmul": "other",
    "batch_norm": "running_mean",
}
"""By op, the argument that says which layer it is."""

ADDING = ("add", "add_")

Hit = Callable[[str, "Op"], None]
"""What is called with the tensor's name and the op whenever an op reads one that is listened for."""


class Op:
    """One op as it ran.

    Attributes:
        target: The op.
        settings: Its arguments by name.
        output: What it answered.
        beside: What its answer was added to, where that was listened for; else None.
    """

    beside: Tensor | None = None

    def __init__(self, target: Any, settings: dict[str, Any], output: Tensor) -> None:
        self.target, self.settings, self.output = target, settings, output

    @property
    def name(self) -> str:
        """Its short name: `conv2d`."""
        return str(self.target._schema.name).split("::")[1]

    @property
    def input(self) -> Tensor:
        """What it reads beside the weight."""
        found: Tensor = self.settings["mat1" if self.name == "addmm" else "input"]
        return found


class _Enough(BaseException):
    """All that was listened for has been heard; nothing behind it need run."""


class _Tap(ProxyTorchDispatchMode):
    """Torch hands this mode every op before it takes it apart, so that convolutions and linear layers come whole."""

    def __init__(self, names: Mapping[tuple[int, int], str], left: int, hit: Hit, joining: Collection[str]) -> None:
        super().__init__(PythonKeyTracer(), "fake", pre_dispatch=True)
        self.names, self.left, self.hit, self.joining = names, left, hit, joining
        self.waiting: dict[int, tuple[str, Op]] = {}
        self.own: Exception | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        with torch._C._DisablePythonDispatcher():
            if name in ADDING and self.waiting:
                self._joined(args)
            output = func(*args, **(kwargs or {}))
            if name in WEIGHT_OF:
                self._heard(WEIGHT_OF[name], Op(func, arguments(func, args, kwargs or {}), output))
        if not self.left:
            raise _Enough
        return output

    def _heard(self, word: str, op: Op) -> None:
        weight = op.settings[word]
        name = self.names.get(_place(weight)) if isinstance(weight, Tensor) else None
        if name is None:
            return
        if name in self.joining:
            self.waiting[_place(op.output)[0]] = name, op
        else:
            self._report(name, op)

    def _joined(self, args: Any) -> None:
        """Before an addition: whether it adds something to what was waited for."""
        sides = [side for side in args[:2] if isinstance(side, Tensor)]
        places = [_place(side)[0] for side in sides]
        for mine, other in ((0, 1), (1, 0)):
            if len(sides) == 2 and places[mine] in self.waiting:
                name, op = self.waiting[places[mine]]
                if not sides[0].shape == sides[1].shape == op.output.shape:
                    continue
                del self.waiting[places[mine]]
                op.beside = sides[other]
                self._report(name, op)
                return

    def _report(self, name: str, op: Op) -> None:
        try:
            self.hit(name, op)
        except Exception as error:
            self.own = error
            raise
        self.left -= 1


def _place(tensor: Tensor) -> tuple[int, int]:
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset())


def listen(
    model: nn.Module, call: Inputs, calls: Mapping[str, int], hit: Hit, joining: Collection[str] = frozenset()
) -> None:
    """Run a model in eval mode until every tensor has been read so often, and report each reading.

    Args:
        model: The model.
        call: Its inputs.
        calls: By the name of a weight (of a BatchNorm its `running_mean`), by how many ops it is read.
        hit: Called with the name and the op.
        joining: Names whose op is reported when its answer is added to something, with that (`Op.beside`).

    Raises:
        InputError: The model refused the inputs.
    """
    tensors = named_tensors(model)
    tap = _Tap({_place(tensors[name]): name for name in calls}, sum(calls.values()), hit, joining)
    with torch.no_grad(), refusals(call, tap), enable_python_dispatcher(), tap:
        call.call(model)


@contextmanager
def refusals(call: Inputs, tap: _Tap | None = None) -> Iterator[None]:
    """What the model raises, as an error about the data; what the listener raises, as it is."""
    try:
        yield
    except _Enough:
        pass
    except InputError:
        raise
    except Exception as error:
        if tap is not None and error is tap.own:
            raise
        shapes = ", ".join(str(list(tensor.shape)) for tensor in call.tensors())
        fact = f"the model does not accept an item of the data ({shapes}): {first_line(error)}"
        raise InputError(
            fact, "give batches as the model takes them; of a tuple the first tensors are its inputs"
        ) from error
