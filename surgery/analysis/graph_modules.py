"""A model as straight-line code: a module with the model's own tensors under their names, and a graph to run."""

from __future__ import annotations

import copy
import difflib
import inspect
import linecache
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from surgery.analysis.capture import Program
from surgery.analysis.graph_calls import AS_PYTHON
from surgery.analysis.graph_trees import Tree, by_name, names, put_together, same, taken_apart
from surgery.errors import CaptureError, InputError
from surgery.tensors import named_tensors

_NUMBERS = count()


@dataclass(frozen=True)
class Origin:
    """Where an op of the graph was called in the model's own code: `module` is a path, `line` is `file:line`."""

    node: str
    module: str
    line: str


@dataclass
class Guards:
    """What must hold of the input sizes for the captured code to be the model's (mutable: it remembers sizes).

    Attributes:
        conditions: Python expressions on `s[input][dim]`.
        ones: `(input, dim)` of the dims that may be 1.
        example: The sizes at which the model was captured.
    """

    conditions: tuple[str, ...]
    ones: frozenset[tuple[int, int]]
    example: tuple[tuple[int, ...], ...]
    fine: set[tuple[tuple[int, ...], ...]] = field(default_factory=set)

    def broken(self, sizes: tuple[tuple[int, ...], ...]) -> str | None:
        """The first condition that these sizes break, or None."""
        if sizes in self.fine:
            return None
        for i, (shape, known) in enumerate(zip(sizes, self.example, strict=True)):
            if len(shape) != len(known):
                return f"len(s[{i}]) == {len(known)}"
            for d, (size, old) in enumerate(zip(shape, known, strict=True)):
                if size < 2 and size != old and (i, d) not in self.ones:
                    return f"s[{i}][{d}] > 1"
        for condition in self.conditions:
            if not eval(condition, {"s": sizes, "torch": torch}):  # written by torch.export, of numbers only
                return condition
        self.fine.add(sizes)
        return None


@dataclass
class Captured:
    """What a graph module runs, and what is known about it.

    Attributes:
        graph: One placeholder per input tensor; tensors of the module by `get_attr`; a flat tuple as output.
        signature: The forward of the model.
        call: The structure of the arguments.
        answer: The structure of the output.
        guards: What the inputs' sizes must fulfil.
        dims: Which dims of the inputs were free in the capture.
        fixed: Which dims of the inputs the graph takes in one size only, in words; empty where none.
        lost: What the model does and the graph does not, in words: outputs and training behaviour.
    """

    graph: fx.Graph
    signature: inspect.Signature
    call: Tree
    answer: Tree
    guards: Guards
    dims: Literal["all", "first", "none"]
    fixed: str
    lost: tuple[str, ...]
    compiled: Callable[..., Any] | None = None

    @property
    def code(self) -> str:
        """The graph as Python."""
        return str(self.graph.python_code("self").src)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where each op comes from, in the order of the graph."""
        return tuple(Origin(node.name, *_place(node)) for node in ops(self.graph))

    def function(self) -> Callable[..., Any]:
        """The graph as a function of the module and its input tensors."""
        if self.compiled is None:
            code = _python(self.graph)
            file = f"<graph {next(_NUMBERS)}>"
            linecache.cache[file] = (len(code.src), None, code.src.splitlines(keepends=True), file)
            made = dict(code.globals)
            exec(compile(code.src, file, "exec"), made)
            self.compiled = made["forward"]
        assert self.compiled is not None, "compiled above"
        return self.compiled


def _python(graph: fx.Graph) -> Any:
    """The graph as code in which ops that take sizes are called as Python code calls them."""
    swapped = [(node, node.target) for node in graph.nodes if node.target in AS_PYTHON]
    for node, target in swapped:
        if "implicit" not in node.kwargs:
            node.target = AS_PYTHON[target]
    try:
        return graph.python_code("self")
    finally:
        for node, target in swapped:
            node.target = target


class GraphModel(nn.Module):
    """A captured model: called like it, with the same tensors under the same names, forward without its code.

    `captured` holds the graph. A copy has a graph of its own.
    """

    captured: Captured

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model answers.

        Raises:
            InputError: A call, or sizes, for which the graph was not captured.
        """
        captured = self.captured
        leaves: list[Any] = []
        tree = taken_apart(by_name(captured.signature, args, kwargs), leaves, [])
        if not same(tree, captured.call):
            known = ", ".join(names(captured.call))
            raise InputError(
                f"the captured graph was called with {', '.join(names(tree))}, it was captured with {known}",
                "call it with the same arguments, or capture the model with these",
            )
        if not torch._C._get_tracing_state() and not torch.compiler.is_compiling():
            _check_sizes(captured, leaves)
        return put_together(captured.answer, captured.function()(self, *leaves))

    def extra_repr(self) -> str:
        """How many ops, and what is fixed."""
        fixed = f", {self.captured.fixed}" if self.captured.fixed else ""
        return f"{len(ops(self.captured.graph))} captured ops{fixed}"


def _check_sizes(captured: Captured, leaves: Sequence[Tensor]) -> None:
    sizes = tuple(tuple(leaf.shape) for leaf in leaves)
    if not all(type(size) is int for shape in sizes for size in shape):
        return
    broken = captured.guards.broken(sizes)
    if broken is not None:
        called = names(captured.call)
        for index, name in enumerate(called):
            broken = broken.replace(f"s[{index}]", f"{name}.shape")
        raise InputError(
            f"the captured graph holds where {broken}; it was given "
            + ", ".join(f"{name} {list(shape)}" for name, shape in zip(called, sizes, strict=True)),
            "use other sizes, or make the graph again with an example of these",
        )


def ops(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that call an op: sizes, settings and `getitem` are none."""
    kinds = (torch._ops.OpOverload, torch._ops.HigherOrderOperator)
    return [node for node in graph.nodes if node.op == "call_function" and isinstance(node.target, kinds)]


def _place(node: fx.Node) -> tuple[str, str]:
    stack = node.meta.get("nn_module_stack")
    program = Program((node,), {}, {}, {}, {}, frozenset())
    return (program.module_of(node.name) if stack else ""), program.line_of(node.name)


def sign_(model: GraphModel, signature: inspect.Signature) -> None:
    """Let a graph module's forward show the arguments of the captured model, by name: exporters ask for them."""

    def forward(self: GraphModel, *args: Any, **kwargs: Any) -> Any:
        return GraphModel.forward(self, *args, **kwargs)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = signature.parameters.values()
    forward.__signature__ = inspect.Signature([own, *parameters])  # type: ignore[attr-defined]
    model.__class__ = type(GraphModel.__name__, (GraphModel,), {"forward": forward, "__doc__": GraphModel.__doc__})


class Part(nn.Module):
    """A module of the captured model: its tensors, its children and its `training` flag."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """A part has no code of its own.

        Raises:
            CaptureError: Always.
        """
        raise CaptureError("a part of a captured graph cannot be called alone", "call the whole graph")


def skeleton(model: nn.Module) -> GraphModel:
    """A module with the model's tensors (the same objects), hierarchy and training flags, and nothing to run yet.

    Torch's own layers stay what they are, less their hooks; all other modules become parts.
    """
    made: dict[int, nn.Module] = {id(model): GraphModel()}
    for module in model.modules():
        if id(module) not in made:
            made[id(module)] = _layer(module) if _is_layer(module) else Part()
    for module in model.modules():
        twin = made[id(module)]
        for name, parameter in module._parameters.items():
            twin.register_parameter(name, parameter)
        for name, buffer in module._buffers.items():
            twin.register_buffer(name, buffer, persistent=name not in module._non_persistent_buffers_set)
        for name, child in module._modules.items():
            twin.register_module(name, None if child is None else made[id(child)])
        twin.training = module.training
    whole = made[id(model)]
    assert isinstance(whole, GraphModel), "made above"
    return whole


def _is_layer(module: nn.Module) -> bool:
    torchs = type(module).__module__.startswith("torch.nn.modules.")
    return torchs and not module._modules and not isinstance(module, nn.RNNBase)


def _layer(module: nn.Module) -> nn.Module:
    """A torch layer with the settings of another and without its tensors and hooks."""
    blank = vars(nn.Module())
    twin = type(module).__new__(type(module))
    for name, value in vars(module).items():
        twin.__dict__[name] = copy.copy(blank[name]) if name in blank else copy.copy(value)
    twin._non_persistent_buffers_set = set()
    return twin


def tell_origins_(program: Program, model: GraphModel) -> None:
    """Give the ops of a graph module's capture the places that they have in the model's own code."""
    for node, old in corresponding(program, model):
        for key in ("nn_module_stack", "stack_trace"):
            if key in old.meta:
                node.meta[key] = old.meta[key]
    for node in program.calls:
        source = node.args[0] if node.target is operator.getitem else None
        if isinstance(source, fx.Node):
            node.meta.update(
                {key: source.meta[key] for key in ("nn_module_stack", "stack_trace") if key in source.meta}
            )
    program._places.clear()


def rebound(whole: nn.Module, model: nn.Module) -> nn.Module:
    """A graph on the tensors of another model of the same names."""
    others = named_tensors(model)
    return copy.deepcopy(
        whole, {id(tensor): others[name] for name, tensor in named_tensors(whole).items() if name in others}
    )


def with_origins(program: Program, model: nn.Module) -> Program:
    """A program just captured of a model; that of a graph knows the places in the code of the model it was."""
    if isinstance(model, GraphModel):
        tell_origins_(program, model)
    return program


def corresponding(program: Program, model: GraphModel) -> list[tuple[fx.Node, fx.Node]]:
    """Pairs of an op in a graph module's capture and that op in its graph; ops without a twin are left out."""
    new = [node for node in program.calls if isinstance(node.target, torch._ops.OpOverload)]
    old = ops(model.captured.graph)
    here, there = ([str(node.target) for node in nodes] for nodes in (new, old))
    if here == there:
        return list(zip(new, old, strict=True))
    matcher = difflib.SequenceMatcher(None, here, there, autojunk=False)
    pairs: list[tuple[fx.Node, fx.Node]] = []
    for block in matcher.get_matching_blocks():
        pairs += zip(new[block.a : block.a + block.size], old[block.b : block.b + block.size], strict=True)
    return pairs
