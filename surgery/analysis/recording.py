"""Record a model's forward op by op, on fake tensors: what `torch.export` would capture, at a quarter of its price.

The recorder sits where export's own tracer sits (above autograd, so that `conv2d` and `batch_norm` stay whole), lets
fake tensors flow and writes one node per op. It is for straight-line code, which nearly all models are. Whatever else
it meets (a value that is asked for and rests on the input, a region with other autocast settings, a higher-order op, an
attribute that forward assigns) it leaves to `torch.export` by raising `UnsureError`; nothing is guessed.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode, PythonKeyTracer
from torch.utils import _pytree as pytree

from surgery.analysis.answering import answer_of
from surgery.analysis.keeping import UnsureError, attributes_kept
from surgery.analysis.places import Places, called
from surgery.analysis.standing import device_of
from surgery.caches import is_cache
from surgery.inputs import Inputs

SILENT = "profiler::"
"""Ops that say nothing about values."""


@dataclass(frozen=True)
class Recording:
    """A recorded forward.

    Attributes:
        graph: One placeholder per parameter, buffer, input and lifted tensor, one node per op, one output.
        own: The name of the parameter or buffer behind a placeholder.
        lifted: Tensors that the code made or closed over, by placeholder.
        answers: The values that the code asked for, in order.
    """

    graph: fx.Graph
    own: Mapping[str, str]
    lifted: Mapping[str, Tensor]
    answers: tuple[Any, ...]


def record(model: nn.Module, inputs: Inputs, device: torch.device | None = None) -> Recording:
    """Record `model(*args, **kwargs)`; the model and the inputs are as before afterwards.

    Args:
        model: In eval mode.
        inputs: What it is called with.
        device: Where parameters on the meta device count as lying; None: where the inputs do.

    Raises:
        UnsureError: The code is not straight-line.
        Exception: Whatever the model raises.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UnsureError("a part in TorchScript")
    fakes = FakeTensorMode(allow_non_fake_inputs=False)
    tape = _Tape(model, fakes, device or device_of(inputs))
    given = pytree.tree_map_only(Tensor, tape.receive, (inputs.args, dict(inputs.kwargs)))
    grad = torch.is_grad_enabled()
    try:
        with (
            torch.backends.cudnn.flags(enabled=False),  # as torch.export has it; ops carry it as an argument
            attributes_kept(model),
            enable_python_dispatcher(),
            fakes,
            _Recorder(tape),
        ):
            answer = called(model, *given)
        return tape.close(answer)
    finally:
        torch.set_grad_enabled(grad)
        tape.places.modules.clear()  # frames hold the model, and are held by this one


@dataclass
class _Tape:
    """The graph being written, and which tensor stands for which node (mutable)."""

    model: nn.Module
    fakes: FakeTensorMode
    device: torch.device
    graph: fx.Graph = field(default_factory=fx.Graph)
    own: dict[str, str] = field(default_factory=dict)
    lifted: dict[str, Tensor] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.node_of: dict[int, fx.Node] = {}
        self.fake_of: dict[int, Tensor] = {}
        self.made: dict[int, fx.Node] = {}
        self.alive: list[Any] = []  # ids stay unique while their tensors live
        self.places = Places(self.model)
        self.answers = _Answers(self.fakes, self.faked)
        model = self.model
        self.last: fx.Node | None = None
        parameters = model.named_parameters(remove_duplicate=False)
        buffers = model.named_buffers(remove_duplicate=False)
        for prefix, tensors in (("p", parameters), ("b", buffers)):
            for name, tensor in tensors:
                node = self._place(f"{prefix}_{name.replace('.', '_')}", tensor)
                self.own[node.name] = name
                self.node_of.setdefault(id(tensor), node)

    def _place(self, name: str, tensor: Tensor) -> fx.Node:
        with self.graph.inserting_after(self.last):
            node = self.graph.create_node("placeholder", name, name=name)
        node.meta["val"] = _shape(tensor)  # a graph lives long; weights need not
        self.last = node
        self.alive.append(tensor)
        return node

    def receive(self, tensor: Tensor) -> Tensor:
        """An input of the model: a fake one in its place."""
        fake = self.fakes.from_tensor(tensor, static_shapes=True)
        self.alive.append(fake)
        self.node_of[id(fake)] = self._place("input", tensor)
        return fake

    def node(self, tensor: Tensor) -> fx.Node:
        """What a tensor stands for in the graph; one never seen before is a constant of the code."""
        fake = self.fake_of.get(id(tensor), tensor)
        found = self.node_of.get(id(fake))
        if found is not None:
            return found
        if type(tensor) is FakeTensor:
            found = self._made(tensor)
        elif type(tensor) in (Tensor, nn.Parameter) and not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            found = self._place("lifted", tensor)
            self.lifted[found.name] = tensor
        else:
            raise UnsureError(f"a {type(tensor).__name__}")
        self.alive.append(tensor)
        self.node_of[id(tensor)] = found
        return found

    def faked(self, tensor: Tensor) -> Tensor:
        """The fake tensor that flows for one that has a node."""
        if type(tensor) is FakeTensor:
            return tensor
        fake = self.fake_of.get(id(tensor))
        if fake is None:
            if tensor.layout is not torch.strided or tensor.is_quantized:
                raise UnsureError(f"a tensor of layout {tensor.layout}")
            device = self.device if tensor.is_meta else tensor.device
            fake = blank(self.fakes, tensor.shape, tensor.stride(), tensor.dtype, device, False)
            self.node_of[id(fake)] = self.node_of[id(tensor)]
            self.fake_of[id(tensor)] = fake
        return fake

    def _made(self, tensor: Tensor) -> fx.Node:
        """The op that made this tensor afresh: `torch.zeros` hands out a twin of what was written down."""
        node = self.made.get(tensor.untyped_storage()._cdata)
        if node is None or _facts(node.meta["val"]) != _facts(tensor):
            raise UnsureError("a tensor of another capture")
        return node

    def write(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an op on fake tensors and put it down."""
        if not isinstance(func, torch._ops.OpOverload):
            raise UnsureError(str(func))
        if torch.Tag.data_dependent_output in func.tags:
            self.asked.append(answer_of(func, _mapped(args, self.node), self.graph, self.lifted))
            return self.asked[-1]
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            raise UnsureError("autocast")
        arguments, settings = _mapped(args, self.node), _mapped(kwargs, self.node)
        answer = self.answers(func, args, kwargs)
        if func.name().startswith(SILENT):
            return answer
        if func is torch.ops.aten.lift_fresh.default:
            func = torch.ops.aten.lift_fresh_copy.default
        node = self.graph.create_node("call_function", func, arguments, settings, name=_name(func))
        node.meta.update(self.places.here())
        node.meta["val"] = answer
        self._name_outputs(answer, node)
        if isinstance(answer, Tensor) and (not node.all_input_nodes or _name(func).endswith("_like")):
            self.made[answer.untyped_storage()._cdata] = node
        return answer

    def _name_outputs(self, answer: Any, node: fx.Node) -> None:
        self.alive.append(answer)
        if isinstance(answer, Tensor):
            self.node_of[id(answer)] = node
        elif isinstance(answer, tuple | list):
            for index, part in enumerate(answer):
                if isinstance(part, Tensor):
                    item = self.graph.create_node("call_function", operator.getitem, (node, index))
                    item.meta.update({**node.meta, "val": part})
                    self.node_of[id(part)] = item
                elif part is not None:
                    raise UnsureError(f"{node.target} answers {type(part).__name__}")
        elif answer is not None:
            raise UnsureError(f"{node.target} answers {type(answer).__name__}")

    def close(self, answer: Any) -> Recording:
        """Write the output."""
        leaves = [leaf for leaf in pytree.tree_leaves(opened(answer), is_leaf=is_cache) if not is_cache(leaf)]
        for leaf in leaves:
            if not isinstance(leaf, Tensor | int | float | complex | str | None):
                raise UnsureError(f"an output of type {type(leaf).__name__}")
        self.graph.output(tuple(self.node(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves))
        for node in reversed(self.graph.nodes):
            if node.target is torch.ops.aten.detach.default and not node.users:
                self.graph.erase_node(node)  # as torch.export does; what else nobody reads runs all the same
        return Recording(self.graph, self.own, self.lifted, tuple(self.asked))


MOST_KNOWN = 1 << 14
_KNOWN: dict[Any, tuple[Any, ...]] = {}
"""What ops make of shapes, by op and arguments, for the whole process: nets repeat layers, and are captured again."""


class _Answers:
    """Fake answers of ops; what an op makes of the same shapes is known the second time."""

    def __init__(self, fakes: FakeTensorMode, faked: Callable[[Tensor], Tensor]) -> None:
        self.fakes, self.faked = fakes, faked
        if len(_KNOWN) > MOST_KNOWN:
            _KNOWN.clear()

    def __call__(self, func: torch._ops.OpOverload, args: Any, kwargs: Any) -> Any:
        """`func(*args, **kwargs)` on the fake tensors that flow for the given ones."""
        key = (func, torch.get_default_dtype(), _key(args), _key(kwargs)) if _makes_one_tensor(func) else None
        known = _KNOWN.get(key)
        if known is not None:
            return blank(self.fakes, *known) if known else self.faked(args[0])
        args, kwargs = _mapped(args, self.faked), _mapped(kwargs, self.faked)
        answer = func(*args, **kwargs)
        if key is not None and func._schema.is_mutable and answer is args[0]:
            _KNOWN[key] = ()
        elif key is not None and not func._schema.is_mutable:
            inputs = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            if all(answer.untyped_storage()._cdata != one.untyped_storage()._cdata for one in inputs):
                _KNOWN[key] = _facts(answer)
        return answer


@cache
def _makes_one_tensor(func: torch._ops.OpOverload) -> bool:
    """Whether an op hands out one tensor: a new one, or the one that it wrote into without changing its shape."""
    if func.namespace != "aten" or torch.Tag.inplace_view in func.tags:
        return False
    returns, first = func._schema.returns, func._schema.arguments[:1]
    if len(returns) != 1 or str(returns[0].type) != "Tensor":
        return False
    if not func._schema.is_mutable:
        return returns[0].alias_info is None
    written = [a for a in func._schema.arguments if a.alias_info is not None]
    return len(written) == 1 and first == written and first[0].name == "self"


def _facts(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _facts(value)
    if isinstance(value, list | tuple):
        return tuple(_key(part) for part in value)
    if isinstance(value, dict):
        return tuple((name, _key(part)) for name, part in value.items())
    return type(value), value


def _meta(shape: Any, stride: Any, dtype: torch.dtype) -> Tensor:
    with torch._C._DisableTorchDispatch():
        return torch.empty_strided(shape, stride, dtype=dtype, device="meta")


def _shape(tensor: Tensor) -> Tensor:
    """A tensor's shape, as a tensor without memory."""
    return _meta(tensor.shape, tensor.stride(), tensor.dtype) if tensor.layout is torch.strided else tensor


def blank(fakes: FakeTensorMode, shape: Any, stride: Any, dtype: torch.dtype, device: Any, grad: bool) -> Tensor:
    """A fake tensor."""
    made = FakeTensor(fakes, _meta(shape, stride, dtype), device)
    return made.requires_grad_(grad) if grad else made


def opened(output: Any) -> Any:
    """A model's output with its dataclasses as dicts, where the pytree registry does not know them."""
    kind = type(output)
    if kind in (tuple, list):
        return kind(opened(part) for part in output)
    if kind is dict:
        return {key: opened(part) for key, part in output.items()}
    if dataclasses.is_dataclass(output) and kind not in pytree.SUPPORTED_NODES:
        return {field.name: opened(getattr(output, field.name)) for field in dataclasses.fields(output)}
    return output


def _mapped(value: Any, function: Any) -> Any:
    """`value` with every tensor in it (lists and tuples, as ops take them) replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)([_mapped(part, function) for part in value])
    if isinstance(value, dict):
        return {key: _mapped(part, function) for key, part in value.items()}
    return value


def _name(func: torch._ops.OpOverload) -> str:
    return func._schema.name.split("::")[1]


class _Recorder(ProxyTorchDispatchMode):
    """Torch hands every op to this mode before it takes it apart; only a mode of this family may sit there."""

    def __init__(self, tape: _Tape) -> None:
        super().__init__(PythonKeyTracer(), "fake", pre_dispatch=True)
        self.tape = tape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Write the op down."""
        return self.tape.write(func, args, kwargs or {})
