"""Capture a model as one program of ATen ops (`torch.export`, high-level ops kept whole)."""

from __future__ import annotations

import dataclasses
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from surgery.analysis.inlining import inline_regions_
from surgery.errors import CaptureError
from surgery.inputs import Inputs
from surgery.layout import Shape
from surgery.registry import arguments


@dataclass(frozen=True)
class Program:
    """A captured model.

    Attributes:
        nodes: The program's nodes in order.
        parameters: Canonical tensor name of every placeholder that is a parameter or buffer; tied tensors share one.
        aliases: All names of each canonical tensor.
        tensors: The model's own tensors by canonical name.
        lifted: Tensors that the code made (literals, closures), by placeholder.
        mutated: Canonical names of the tensors that the program writes into.
    """

    nodes: tuple[fx.Node, ...]
    parameters: Mapping[str, str]
    aliases: Mapping[str, tuple[str, ...]]
    tensors: Mapping[str, Tensor]
    lifted: Mapping[str, Tensor]
    mutated: frozenset[str]

    @cached_property
    def by_name(self) -> dict[str, fx.Node]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def calls(self) -> tuple[fx.Node, ...]:
        """The nodes that call an op."""
        return tuple(node for node in self.nodes if node.op == "call_function")

    @cached_property
    def unused(self) -> tuple[str, ...]:
        """Tensors that the captured forward never reads."""
        read = {self.parameters[n.name] for n in self.nodes if n.name in self.parameters and n.users}
        return tuple(name for name, tensor in self.tensors.items() if name not in read and tensor.dim() > 0)

    def module_of(self, name: str) -> str:
        """Path of the module whose forward called the op (`""` is the model itself)."""
        stack = self.by_name[name].meta.get("nn_module_stack") if name in self.by_name else None
        return _plain(next(reversed(stack.values()))[0]) if stack else ""

    def modules_of(self, name: str) -> tuple[str, ...]:
        """Paths of all the modules around the op, the outermost first."""
        stack = self.by_name[name].meta.get("nn_module_stack") if name in self.by_name else None
        return tuple(_plain(path) for path, _ in stack.values()) if stack else ("",)

    def line_of(self, name: str) -> str:
        """`file:line` of the model's code behind the op, or an empty string."""
        trace = (self.by_name[name].meta.get("stack_trace") or "") if name in self.by_name else ""
        frames = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
        if not frames:
            return ""
        file, _, rest = frames[-1].removeprefix('File "').partition('", line ')
        return f"{file.rsplit('/', 1)[-1]}:{rest.split(',')[0]}"

    def _is_library(self, name: str) -> bool:
        """Whether the op was called by one of torch's own modules."""
        stack = self.by_name[name].meta.get("nn_module_stack") if name in self.by_name else None
        kind = next(reversed(stack.values()))[1] if stack else ""
        return str(kind if isinstance(kind, str) else getattr(kind, "__module__", "")).startswith("torch.nn.")

    def where(self, name: str) -> str:
        """The op's place, for people: its module, and the line of code where that is the model's own."""
        module, line = self.module_of(name), self.line_of(name)
        if module and self._is_library(name):
            return module
        return ", ".join(part for part in (module, line) if part) or name


def _plain(path: str) -> str:
    return path.removeprefix("L['self'].").removeprefix("L['self']")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; every module gets its own training flag back afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def capture(model: nn.Module, inputs: Inputs) -> Program:
    """Capture `model(*args, **kwargs)` in eval mode.

    Raises:
        CaptureError: The model refused the inputs, or `torch.export` could not capture it.
    """
    with evaluating(model), _dataclasses_opened(model), warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # upstream's advice about export is not for our user
        try:
            exported = torch.export.export(model, inputs.args, dict(inputs.kwargs), strict=False)
        except Exception as error:
            raise _explained(model, inputs, error) from error
        inline_regions_(exported.graph_module)
        if _aliasing_writes(exported.graph):
            exported = exported.run_decompositions({})
    return _program(model, exported)


@contextmanager
def _dataclasses_opened(model: nn.Module) -> Iterator[None]:
    """Inside, dataclasses in the model's output come as dicts: `torch.export` refuses those that it does not know."""
    hook = model.register_forward_hook(lambda module, args, output: _opened(output))
    try:
        yield
    finally:
        hook.remove()


def _opened(output: Any) -> Any:
    kind = type(output)
    if kind in (tuple, list):
        return kind(_opened(part) for part in output)
    if kind is dict:
        return {key: _opened(part) for key, part in output.items()}
    if dataclasses.is_dataclass(output) and kind not in pytree.SUPPORTED_NODES:
        return {field.name: _opened(getattr(output, field.name)) for field in dataclasses.fields(output)}
    return output


@contextmanager
def _quiet() -> Iterator[None]:
    """Upstream logs a traceback before it raises: what the reader needs of it is in our error."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch._subclasses.fake_tensor")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _explained(model: nn.Module, inputs: Inputs, error: Exception) -> CaptureError:
    """Whether the model cannot run on these inputs at all, or only not be captured."""
    shapes = ", ".join(str(tuple(t.shape)) for t in inputs.tensors())
    kind = type(model).__name__
    try:
        with torch.no_grad():
            inputs.call(model)
    except Exception as own:
        return CaptureError(
            f"{kind} does not accept the example inputs ({shapes}): {_first_line(own)}",
            "pass inputs as the model receives them; on the command line --input NAME=SHAPE[:DTYPE]",
        )
    return CaptureError(
        f"torch.export cannot capture {kind}: {_first_line(error)}",
        "remove the data-dependent Python control flow from its forward, or shrink the submodule that can be captured",
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _program(model: nn.Module, exported: Any) -> Program:
    parameters: dict[str, str] = {}
    lifted: dict[str, Tensor] = {}
    kinds = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    canonical: dict[Any, str] = {}
    aliases: dict[str, list[str]] = {}
    name_of: dict[str, str] = {}
    for name, tensor in own.items():
        first = canonical.setdefault(_identity(tensor), name)
        aliases.setdefault(first, []).append(name)
        name_of[name] = first
    for placeholder, spec in kinds.items():
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target in name_of:
            parameters[placeholder] = name_of[spec.target]
        elif spec.kind is InputKind.CONSTANT_TENSOR or spec.kind is InputKind.BUFFER:
            constant = exported.constants.get(spec.target)
            if isinstance(constant, Tensor):
                known = canonical.get(_identity(constant))
                if known is None:
                    lifted[placeholder] = constant
                else:
                    parameters[placeholder] = known
    nodes = tuple(exported.graph.nodes)
    written = {parameters[n.name] for n in _written(nodes) if n.name in parameters}
    written |= {name_of[t] for t in exported.graph_signature.buffers_to_mutate.values() if t in name_of}
    tensors = {name: own[name] for name in aliases}
    return Program(nodes, parameters, {k: tuple(v) for k, v in aliases.items()}, tensors, lifted, frozenset(written))


def _identity(tensor: Tensor) -> Any:
    storage = tensor.untyped_storage()
    return storage._cdata, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride())


def shapes_of(node: fx.Node) -> tuple[Shape, ...]:
    """The shapes of a node's tensors (one, or several for ops with several outputs)."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return (tuple(int(s) for s in value.shape),)
    if isinstance(value, tuple | list):
        return tuple(tuple(int(s) for s in v.shape) for v in value if isinstance(v, Tensor))
    return ()


def written_argument(node: fx.Node) -> fx.Node | None:
    """The node whose tensor an in-place op writes into, or None."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return None
    bound = arguments(node.target, node.args, node.kwargs)
    for argument in schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = bound["input" if argument.name == "self" else argument.name]
            return given if isinstance(given, fx.Node) else None
    return None


def _written(nodes: tuple[fx.Node, ...]) -> Iterator[fx.Node]:
    """The roots (placeholders, makers) of everything that is written in place."""
    for node in nodes:
        target = written_argument(node)
        if target is not None:
            yield _root(target)


def _viewed(node: fx.Node) -> fx.Node | None:
    """The node whose memory this node's output shares, or None."""
    if node.op != "call_function":
        return None
    if node.target is operator.getitem:
        return node.args[0] if isinstance(node.args[0], fx.Node) and _viewed(node.args[0]) else None
    schema = getattr(node.target, "_schema", None)
    if schema is None or not any(r.alias_info is not None for r in schema.returns):
        if schema is not None and schema.name in _MAYBE_VIEWS:
            first = node.args[0] if node.args else None
            return first if isinstance(first, fx.Node) else None
        return None
    for argument, given in zip(schema.arguments, node.args, strict=False):
        if argument.alias_info is not None and isinstance(given, fx.Node):
            return given
    return None


_MAYBE_VIEWS = {"aten::reshape", "aten::flatten", "aten::contiguous", "aten::to", "aten::expand_as", "aten::chunk"}


def _root(node: fx.Node) -> fx.Node:
    while (base := _viewed(node)) is not None:
        node = base
    return node


def _aliasing_writes(graph: fx.Graph) -> bool:
    """Whether an in-place op changes a tensor that is read later under another name than the op's own result."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        target = written_argument(node)
        if target is None:
            continue
        family = _family(_root(target))
        own = _descendants_through(node)
        for member in family:
            if member in own:
                continue
            if any(order[user] > order[node] for user in member.users):
                return True
    return False


def _family(root: fx.Node) -> set[fx.Node]:
    """The node and every view of its memory."""
    family, queue = {root}, [root]
    while queue:
        for user in queue.pop().users:
            if user not in family and _viewed(user) in family:
                family.add(user)
                queue.append(user)
    return family


def _descendants_through(node: fx.Node) -> set[fx.Node]:
    """The op's result and the views of it: names under which the new values are read rightly."""
    return _family(node)
