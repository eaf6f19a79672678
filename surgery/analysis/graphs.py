"""Turn a model into straight-line code: for models whose own code cannot run narrower.

The result is a module with the model's own tensors under their own names and a forward that is the captured program.
Sizes that the model's code wrote down are numbers in that program, where `surgery/cutting/rewriting.py` changes them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.nn.modules.batchnorm import _BatchNorm

from surgery.analysis.graph_capture import INSIDE, Dims, Export, export, in_eval_as_written
from surgery.analysis.graph_modes import Op, Switch, average_of_all, by_mode, count_batch_, path_of, switches
from surgery.analysis.graph_modules import Captured, GraphModel, sign_, skeleton
from surgery.analysis.graph_ones import dims_that_may_be_one
from surgery.analysis.graph_trees import names
from surgery.analysis.standing import standing_in
from surgery.inputs import Inputs

ASSERTING = ("aten._assert_scalar", "aten.sym_constrain_range", "aten._assert_tensor_metadata")
"""Ops that only say what the capture took for granted; the guards say it."""

BIASED = ("aten.linear.default", "aten.conv")
"""Ops whose third argument is a bias."""


@dataclass(frozen=True)
class Freedom:
    """How free the inputs' sizes are: enough to make the same graph again of a model without weights.

    Attributes:
        dims: Which dims were free in the capture.
        ones: `(input, dim)` of those that may be 1; None where nobody could tell, for want of weights.
    """

    dims: Dims
    ones: tuple[tuple[int, int], ...] | None


def as_graph(model: nn.Module, inputs: Inputs, freedom: Freedom | None = None) -> GraphModel:
    """A module that computes what the model does in straight-line code, on the model's own tensors.

    Called like the model, with every size of input that the model's code takes the same way through; `train()` and
    `eval()` switch dropout and batch norm; `captured.fixed` and `captured.lost` say what it cannot.

    Args:
        model: The model. It is not changed. Its parameters may be on the meta device.
        inputs: An example call.
        freedom: What `freedom_of` said of a graph of this model; None finds out.

    Raises:
        CaptureError: The model refused the inputs, or `torch.export` could not capture it.
    """
    made = export(model, inputs, freedom.dims if freedom else None)
    whole = skeleton(model)
    writer = _Writer(model, whole, made)
    lost = [f"{kind} in the output is None: it cannot be taken apart" for kind in dict.fromkeys(made.dropped)]
    if made.functional:
        lost.append("dropout and batch norm stay as in eval(): its code writes through views, which had to be undone")
        settings: list[Switch] = []
    else:
        with in_eval_as_written(model), standing_in(model, made.inputs):
            settings, more = switches(model, made.inputs, writer.ops())
        lost += more
    graph = writer.write({(s.node, s.argument): s for s in settings})
    whole.captured = Captured(
        graph, made.signature, made.call, made.answer, made.guards, made.dims, made.fixed, tuple(lost)
    )
    sign_(whole, made.signature)
    known = freedom.ones if freedom else None
    ones = frozenset(known) if known is not None else dims_that_may_be_one(model, whole, made.inputs)
    whole.captured.guards = replace(made.guards, ones=ones)
    return whole


def freedom_of(whole: GraphModel) -> Freedom:
    """How free a graph's input sizes are."""
    return Freedom(whole.captured.dims, tuple(sorted(whole.captured.guards.ones)))


def _say_eps_(node: fx.Node) -> None:
    """An RMSNorm without an eps takes that of its dtype; a graph that is run in another keeps it."""
    if node.target is torch.ops.aten.rms_norm.default:
        found = dict(zip(("input", "normalized_shape", "weight", "eps"), node.args, strict=False)) | node.kwargs
        if found.get("eps") is None:
            eps = torch.finfo(_val(node).dtype).eps
            node.args, node.kwargs = (node.args[0], node.args[1], found.get("weight"), eps), {}


class _Writer:
    """Writes the graph of a graph module, node by node, from an exported program (mutable)."""

    def __init__(self, model: nn.Module, whole: GraphModel, made: Export) -> None:
        self.model, self.whole, self.program = model, whole, made.program
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.called = names(made.call)
        self.graph = fx.Graph()
        self.new: dict[fx.Node, Any] = {}
        self.attributes: dict[str, fx.Node] = {}
        self.held: dict[str, str] = {}
        self.inputs: list[fx.Node] = []
        self.settings: dict[tuple[str, str], Switch] = {}

    def ops(self) -> list[Op]:
        """The ops that will be written."""
        found = [n for n in self.program.graph.nodes if isinstance(n.target, torch._ops.OpOverload) and not _unsaid(n)]
        return [Op(node, path_of(node)) for node in found]

    def write(self, settings: dict[tuple[str, str], Switch]) -> fx.Graph:
        """The whole graph."""
        self.settings = settings
        self._hold_tensors()
        old = self.program.graph
        places = {spec.arg.name: spec.kind for spec in self.program.graph_signature.input_specs}
        given = [n for n in old.nodes if n.op == "placeholder" and places[n.name] == InputKind.USER_INPUT]
        for node, name in zip(given, self.called, strict=True):
            self.new[node] = self.graph.placeholder(name)
            self.inputs.append(self.new[node])
        self.devices = {_val(node).device: self.new[node] for node in reversed(given)}
        for node in old.nodes:
            if node.op == "get_attr":
                self.new[node] = self._attribute(self._held_program(str(node.target)))
            elif node.op == "call_function" and not _unsaid(node):
                _say_eps_(node)
                self._call(node)
            elif node.op == "output":
                self._output(node)
        _give_each_its_own_sizes_(self.graph)
        self.graph.lint()
        return self.graph

    def _hold_tensors(self) -> None:
        """The name of every tensor behind a placeholder; what the code made becomes a buffer that is not saved."""
        for spec in self.program.graph_signature.input_specs:
            if spec.target is None:
                continue
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
                self.held[spec.arg.name] = spec.target.removeprefix(f"{INSIDE}.")
            else:
                constant = self.program.constants[spec.target]
                self.held[spec.arg.name] = self._held_constant(constant)

    def _held_constant(self, constant: Any) -> str:
        name = _free(self.whole, "constant")
        if isinstance(constant, Tensor):
            self.whole.register_buffer(name, constant, persistent=False)
        else:
            setattr(self.whole, name, constant)
        return name

    def _held_program(self, target: str) -> str:
        """A program inside the program (a branch, a checkpointed region) becomes a submodule."""
        name = _free(self.whole, "program")
        self.whole.add_module(name, self.program.graph_module.get_submodule(target))
        return name

    def _attribute(self, name: str) -> fx.Node:
        if name not in self.attributes:
            self.attributes[name] = self.graph.create_node("get_attr", name)
        return self.attributes[name]

    def _operand(self, node: fx.Node) -> Any:
        if node not in self.new:
            self.new[node] = self._attribute(self.held[node.name])
        return self.new[node]

    def _call(self, node: fx.Node) -> None:
        args = fx.map_arg(node.args, self._operand)
        kwargs = fx.map_arg(node.kwargs, self._operand)
        if node.target is torch.ops.aten.sym_size.int:
            self.new[node] = self.graph.call_method("size", args)
            return
        if isinstance(node.target, torch._ops.OpOverload):
            args, kwargs = self._switched(node, args, kwargs)
            args, kwargs = self._biased(node, args), self._placed(kwargs)
        made = self.graph.create_node("call_function", node.target, args, kwargs, name=node.name)
        made.meta.update({key: node.meta[key] for key in ("nn_module_stack", "stack_trace") if key in node.meta})
        self.new[node] = made

    def _switched(self, node: fx.Node, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Settings that follow a training flag; a batch norm counts its batches first."""
        args, kwargs = list(args), dict(kwargs)
        positions = {a.name: i for i, a in enumerate(node.target._schema.arguments)}  # type: ignore[union-attr]
        path = path_of(node)
        module = self.modules.get(path)
        for name, position in positions.items():
            switch = self.settings.get((node.name, name))
            if switch is None:
                continue
            flag = self._attribute(f"{path}.training" if path else "training")
            value: Any = flag
            if isinstance(module, _BatchNorm) and name == "momentum":
                continue
            if (switch.in_training, switch.in_eval) != (True, False):
                value = self.graph.call_function(by_mode, (flag, switch.in_training, switch.in_eval))
            _set_(args, kwargs, position, name, value)
            if isinstance(module, _BatchNorm) and module.num_batches_tracked is not None and name == "training":
                batches = self._attribute(f"{path}.num_batches_tracked" if path else "num_batches_tracked")
                self.graph.call_function(count_batch_, (flag, batches))
                if module.momentum is None:
                    momentum = self.graph.call_function(average_of_all, (flag, batches))
                    _set_(args, kwargs, positions["momentum"], "momentum", momentum)
        return tuple(args), kwargs

    def _biased(self, node: fx.Node, args: Any) -> Any:
        """A layer without a bias reads one all the same: the cut may have to make it."""
        weight = args[1] if len(args) > 1 and str(node.target).startswith(BIASED) else None
        if not isinstance(weight, fx.Node) or weight.op != "get_attr" or (len(args) > 2 and args[2] is not None):
            return args
        path, _, attribute = str(weight.target).rpartition(".")
        module = self.modules.get(path)
        if attribute != "weight" or module is None or path != path_of(node):
            return args
        if "bias" not in module._parameters or module._parameters["bias"] is not None:
            return args
        return (*args[:2], self._attribute(f"{path}.bias" if path else "bias"), *args[3:])

    def _placed(self, kwargs: Any) -> Any:
        """A device that was written down follows the input that lies there."""
        device = kwargs.get("device")
        if isinstance(device, torch.device) and device in self.devices:
            return {**kwargs, "device": self.graph.call_function(getattr, (self.devices[device], "device"))}
        return kwargs

    def _output(self, node: fx.Node) -> None:
        kept: list[Any] = []
        for spec, value in zip(self.program.graph_signature.output_specs, node.args[0], strict=True):  # type: ignore[arg-type]
            result = self._operand(value) if isinstance(value, fx.Node) else value
            if spec.kind == OutputKind.USER_OUTPUT:
                kept.append(result)
            elif spec.kind == OutputKind.BUFFER_MUTATION:
                self._write_back(self._attribute(str(spec.target).removeprefix(f"{INSIDE}.")), result)
            elif spec.kind == OutputKind.USER_INPUT_MUTATION:
                self._write_back(self._input(str(spec.target)), result)
        self.graph.output(tuple(kept))

    def _write_back(self, target: fx.Node, value: fx.Node) -> None:
        self.graph.call_function(torch.ops.aten.copy_.default, (target, value))

    def _input(self, name: str) -> fx.Node:
        """The placeholder that an input of the exported program became."""
        found: fx.Node = next(new for old, new in self.new.items() if old.name == name)
        return found


def _free(module: nn.Module, name: str) -> str:
    """`_graph_constant_0`, or the next number that the module has no attribute for."""
    number = 0
    while hasattr(module, f"_graph_{name}_{number}"):
        number += 1
    return f"_graph_{name}_{number}"


def _val(node: fx.Node) -> Tensor:
    value = node.meta["val"]
    assert isinstance(value, Tensor), "inputs are tensors"
    return value


def _unsaid(node: fx.Node) -> bool:
    return str(node.target).startswith(ASSERTING)


def _set_(args: list[Any], kwargs: dict[str, Any], position: int, name: str, value: Any) -> None:
    if position < len(args):
        args[position] = value
    else:
        kwargs[name] = value


def is_size(node: Any) -> bool:
    """Whether a node computes a number of sizes: it is no op on tensors."""
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_method":
        return node.target == "size"
    return (
        node.op == "call_function"
        and not isinstance(node.target, torch._ops.OpOverload | torch._ops.HigherOrderOperator)
        and node.target not in (operator.getitem, getattr, by_mode, count_batch_, average_of_all)
    )


def _give_each_its_own_sizes_(graph: fx.Graph) -> None:
    """Every op computes its sizes itself, so that a number in them belongs to one op; what is unused goes."""
    computed = [node for node in graph.nodes if is_size(node) and node.op == "call_function"]
    for node in [n for n in graph.nodes if not is_size(n)]:
        with graph.inserting_before(node):
            own: Callable[[fx.Node], Any] = lambda size: _copied(graph, size)  # noqa: E731
            node.args, node.kwargs = fx.map_arg(node.args, own), fx.map_arg(node.kwargs, own)
    for node in reversed(computed):
        if not node.users:
            graph.erase_node(node)
    for node in reversed(graph.nodes):
        if not node.users and (is_size(node) or node.op == "get_attr"):
            graph.erase_node(node)


def _copied(graph: fx.Graph, node: fx.Node) -> fx.Node:
    if not is_size(node) or node.op != "call_function":
        return node
    args = fx.map_arg(node.args, lambda operand: _copied(graph, operand))
    kwargs = fx.map_arg(node.kwargs, lambda operand: _copied(graph, operand))
    return graph.create_node("call_function", node.target, args, kwargs)
