"""`torch.export` with every dim of the inputs free where the model allows it, and when that holds."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from surgery.analysis.capture import _explained, prepared
from surgery.analysis.graph_modules import Guards
from surgery.analysis.graph_trees import Tree, call_tree, calling, names, put_together, taken_apart
from surgery.analysis.inlining import inline_regions_
from surgery.analysis.places import OURS
from surgery.analysis.standing import standing_in
from surgery.analysis.writes import aliasing_writes
from surgery.inputs import Inputs

INSIDE = "model"
"""Where the adapter holds the model: the first part of every path in the exported program."""


PATIENCE = 20.0
"""Seconds for a capture with all dims free: reasoning about symbolic sizes can take for ever (shifted windows)."""

Dims = Literal["all", "first", "none"]

FREE: dict[Dims, Callable[[Tensor], dict[int, Any]]] = {
    "all": lambda tensor: dict.fromkeys(range(tensor.dim()), Dim.AUTO),
    "first": lambda tensor: {0: Dim.AUTO} if tensor.dim() else {},
    "none": lambda tensor: {},
}
"""Which dims of the inputs are free, the most first."""


class _TooSlowError(Exception):
    """The capture takes longer than anyone waits."""


@contextmanager
def _hurried(seconds: float) -> Iterator[None]:
    """Inside, calling a module raises when the time is up."""
    end = time.monotonic() + seconds

    def look(module: nn.Module, _: Any) -> None:
        if time.monotonic() > end:
            raise _TooSlowError(f"more than {seconds:g} s")

    hook = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()


@dataclass(frozen=True)
class Export:
    """An exported program with the structure of the call around it.

    Attributes:
        program: Its inputs are the call's tensors, its outputs the answer's, both flat.
        inputs: The example that it was made with.
        dims: Which dims were left free.
        signature: The forward of the model.
        call, answer: What holds the tensors.
        guards: What the sizes of inputs must fulfil.
        fixed: Which dims are not dynamic, in words.
        dropped: Types of outputs that could not be opened.
        functional: Whether writes through views were taken out, which also takes out what training does.
    """

    program: ExportedProgram
    inputs: Inputs
    dims: Dims
    signature: inspect.Signature
    call: Tree
    answer: Tree
    guards: Guards
    fixed: str
    dropped: tuple[str, ...]
    functional: bool


class Flat(nn.Module):
    """A model whose inputs and outputs are tensors only."""

    def __init__(self, model: nn.Module, signature: inspect.Signature, call: Tree) -> None:
        super().__init__()
        self.add_module(INSIDE, model)
        self.signature, self.call = signature, call
        self.told = _Told()

    def forward(self, *leaves: Tensor) -> tuple[Any, ...]:
        """The answer's tensors; its structure is left in `told`."""
        answer = calling(self.signature, self.get_submodule(INSIDE), put_together(self.call, leaves))
        found: list[Any] = []
        self.told.dropped = []
        self.told.answer = taken_apart(answer, found, self.told.dropped)
        return tuple(found)


@dataclass
class _Told:
    """The structure of the last answer (mutable: forward writes it)."""

    answer: Tree | None = None
    dropped: list[str] = field(default_factory=list)


@contextmanager
def as_written() -> Iterator[None]:
    """Torch's encoder layers run op by op: no fused fast path, which depends on frozen weights and hides its ops."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def in_eval_as_written(model: nn.Module) -> Iterator[None]:
    """Eval mode, and the code as it is written."""
    with prepared(model), torch.enable_grad(), as_written():
        yield


def export(model: nn.Module, inputs: Inputs, dims: Dims | None = None) -> Export:
    """Capture a model in eval mode, with as many free dims as it allows (or with `dims`).

    Parameters may be on the meta device: they count as lying where the inputs are.

    Raises:
        CaptureError: The model refused the inputs, or `torch.export` could not capture it.
    """
    failure: Exception | None = None
    with in_eval_as_written(model), standing_in(model, inputs):
        for example in _wider(inputs):
            for free in FREE if dims is None else (dims,):
                try:
                    with _hurried(PATIENCE if free == "all" and dims is None else float("inf")):
                        return _exported(model, example, free)
                except Exception as error:
                    failure = failure or error
    assert failure is not None, "there is one example at least"
    raise _explained(model, inputs, failure) from failure


def _wider(inputs: Inputs) -> Iterator[Inputs]:
    """The inputs with a batch of 2 where it was 1, which `torch.export` would take literally; then as they are."""
    if inputs.batch == 1:
        wide = inputs.with_batch(2, 0)
        if wide is not None:
            yield wide
    yield inputs


def _exported(model: nn.Module, inputs: Inputs, dims: Dims) -> Export:
    signature, call, leaves = call_tree(model, inputs)
    flat = Flat(model, signature, call).eval()
    shapes = (tuple(FREE[dims](leaf) for leaf in leaves),)
    program = torch.export.export(flat, tuple(leaves), dynamic_shapes=shapes, strict=False)
    answer = flat.told.answer
    assert answer is not None, "forward ran"
    inline_regions_(program.graph_module)
    conditions = _conditions(program)
    functional = aliasing_writes(program.graph)
    if functional:
        program = program.run_decompositions({})
    values = _input_values(program)
    fixed = _fixed(values, names(call))
    example = tuple(tuple(int(s) for s in leaf.shape) for leaf in leaves)
    numbers = [(i, d, _number(s)) for i, value in enumerate(values) for d, s in enumerate(value.shape)]
    settled = tuple(f"s[{i}][{d}] == {number}" for i, d, number in numbers if number is not None)
    guards = Guards(tuple(dict.fromkeys((*settled, *conditions))), frozenset(), example)
    for node in program.graph.nodes:
        plain_places_(node)
    dropped = tuple(flat.told.dropped)
    return Export(program, inputs, dims, signature, call, answer, guards, fixed, dropped, functional)


def plain_places_(node: fx.Node) -> None:
    """The places of a node without the adapter around the model, and without our own files."""
    stack = node.meta.get("nn_module_stack")
    if stack:
        plain = {}
        for key, (path, kind) in stack.items():
            own = path.removeprefix("L['self'].").removeprefix("L['self']")
            if own == INSIDE or own.startswith(f"{INSIDE}."):
                plain[key] = (own.removeprefix(INSIDE).removeprefix("."), kind)
        node.meta["nn_module_stack"] = plain
    lines = [line for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip().startswith("File ")]
    node.meta["stack_trace"] = "\n".join(line for line in lines if OURS not in line)


def _input_values(program: ExportedProgram) -> list[Tensor]:
    wanted = program.graph_signature.user_inputs
    found = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    return [found[name] for name in wanted if isinstance(name, str) and isinstance(found.get(name), Tensor)]


def _fixed(values: Sequence[Tensor], called: Sequence[str]) -> str:
    """Which dims are numbers in the program: "x: dim 1 is 3"."""
    said = []
    for value, name in zip(values, called, strict=False):
        dims = [f"dim {d} is {s}" for d, s in enumerate(value.shape) if _number(s) is not None]
        said += [f"{name}: {', '.join(dims)}"] if dims else []
    return "; ".join(said)


def _number(size: int | torch.SymInt) -> int | None:
    return size if isinstance(size, int) else size.node.maybe_as_int()


SIZE = re.compile(r"L\['leaves'\]\[(\d+)\]\.size\(\)\[(\d+)\]")
LOOSE = re.compile(r"(!= [01]|> [01]|>= [12])$")
"""Conditions that a number is not 0 or 1: about memory layout and broadcasting, which kernels see to again."""


def _conditions(program: ExportedProgram) -> tuple[str, ...]:
    """What `torch.export` took for granted of the inputs' sizes, as expressions on `s[input][dim]`."""
    found: list[str] = []
    for code in getattr(program, "_guards_code", None) or ():
        condition = SIZE.sub(r"s[\1][\2]", code)
        if "L[" in condition or LOOSE.search(condition):
            continue
        found.append(condition)
    return tuple(dict.fromkeys(found))
