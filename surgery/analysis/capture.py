"""Capture a model as one program of ATen ops, high-level ops kept whole: recorded, or by `torch.export`."""

from __future__ import annotations

import io
import logging
import os
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from surgery.analysis.answering import Answered
from surgery.analysis.inlining import inline_regions_
from surgery.analysis.recording import Recording, opened, record
from surgery.analysis.standing import standing_in
from surgery.analysis.writes import aliasing_writes, written_roots
from surgery.caches import is_cache
from surgery.calls import short_name
from surgery.errors import CaptureError
from surgery.inputs import Inputs
from surgery.layout import Shape
from surgery.tensors import named_tensors


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
        given: Canonical names of tensors that stand for inputs, as operands of a sample do.
    """

    nodes: tuple[fx.Node, ...]
    parameters: Mapping[str, str]
    aliases: Mapping[str, tuple[str, ...]]
    tensors: Mapping[str, Tensor]
    lifted: Mapping[str, Tensor]
    mutated: frozenset[str]
    given: frozenset[str] = frozenset()

    @cached_property
    def by_name(self) -> dict[str, fx.Node]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def calls(self) -> tuple[fx.Node, ...]:
        """The nodes that call an op."""
        return tuple(node for node in self.nodes if node.op == "call_function")

    def readers(self, name: str) -> list[fx.Node]:
        """Every op that reads a tensor, by its canonical name, under whichever placeholder."""
        places = (self.by_name[place] for place, other in self.parameters.items() if other == name)
        return [user for place in places for user in users_of(place)]

    def source(self, name: str) -> tuple[str, tuple[int, ...]] | None:
        """The parameter that a value is, and which of its dims each of the value's is (a weight that is transposed)."""
        node = self.by_name[name]
        dims = tuple(range(node.meta["val"].dim()))
        while node.name not in self.parameters:
            if node.op != "call_function" or not node.args or not isinstance(node.args[0], fx.Node):
                return None
            order = order_of(node)
            if order is None:
                return None
            dims, node = tuple(order[d] for d in dims), node.args[0]
        return self.parameters[node.name], dims

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
        if name not in self._places:
            self._places[name] = self._place(name)
        return self._places[name]

    @cached_property
    def _places(self) -> dict[str, str]:
        return {}

    def _place(self, name: str) -> str:
        module, line = self.module_of(name), self.line_of(name)
        if module and self._is_library(name):
            return module
        return ", ".join(part for part in (module, line) if part) or name


def order_of(node: fx.Node) -> tuple[int, ...] | None:
    """Which dim of its input each dim of an op's output is, where the op does no more than swap dims."""
    rank, settings = node.meta["val"].dim(), node.args[1:]
    name = short_name(node.target)
    if name in ("contiguous", "clone", "alias", "detach"):
        return tuple(range(rank))
    if name == "permute" and isinstance(settings[0], list | tuple):
        return tuple(d % rank for d in settings[0])
    if name == "numpy_T":
        return tuple(reversed(range(rank)))
    if name in ("t", "mT", "transpose"):
        first, second = settings if name == "transpose" else (-2, -1)
        order = list(range(rank))
        order[first % rank], order[second % rank] = second % rank, first % rank
        return tuple(order) if rank > 1 else (0,)
    return None


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
    """Capture `model(*args, **kwargs)` in eval mode; weights on the meta device count as lying where the inputs do.

    Straight-line code is recorded, which gives the same program at a fraction of the price; everything else, and
    whatever fails, is `torch.export`'s.

    Raises:
        CaptureError: The model refused the inputs, or `torch.export` could not capture it.
    """
    tape = _taped(model, inputs)
    if tape is None or aliasing_writes(tape.graph):
        return exported(model, inputs, () if tape is None else tape.answers)
    return _program(model, tape.graph, tape.own, tape.lifted)


def recorded(model: nn.Module, inputs: Inputs, device: torch.device | None = None) -> Program | None:
    """The program of straight-line code, in eval mode; None where the code is not, or fails.

    Args:
        model: The model; its parameters may be on the meta device while the inputs are not.
        inputs: What it is called with.
        device: Where parameters on the meta device count as lying; None: where the inputs do.
    """
    tape = _taped(model, inputs, device)
    usable = tape is not None and not aliasing_writes(tape.graph)
    return _program(model, tape.graph, tape.own, tape.lifted) if tape is not None and usable else None


def _taped(model: nn.Module, inputs: Inputs, device: torch.device | None = None) -> Recording | None:
    with prepared(model):
        try:
            return record(model, inputs, device)
        except Exception:  # the model's own errors are raised again by torch.export, which has words for them
            return None


def ops_called(model: nn.Module, inputs: Inputs) -> list[Any] | None:
    """The ops of straight-line code in order, in eval mode; None where the code is not, or refuses the inputs."""
    with prepared(model):
        try:
            return [node.target for node in record(model, inputs).graph.nodes if node.op == "call_function"]
        except Exception:  # whatever a model raises
            return None


@contextmanager
def prepared(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, and no advice from upstream."""
    with evaluating(model), warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # upstream's advice about export is not for our user
        yield


def exported(model: nn.Module, inputs: Inputs, answers: Sequence[Any] = ()) -> Program:
    """`torch.export`'s program of a model, in eval mode.

    Args:
        model, inputs: As for `capture`.
        answers: The values that its code asks for, where a recording has found them.

    Raises:
        CaptureError: As for `capture`.
    """
    with prepared(model), _dataclasses_opened(model), standing_in(model, inputs):
        try:
            with Answered(answers) if answers else nullcontext():
                program = torch.export.export(model, inputs.args, dict(inputs.kwargs), strict=False)
        except Exception as error:
            raise _explained(model, inputs, error) from error
        inline_regions_(program.graph_module)
        if aliasing_writes(program.graph):
            program = program.run_decompositions({})
    own, lifted = {}, {}
    for spec in program.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target is not None:
            own[spec.arg.name] = spec.target
        constant = program.constants.get(spec.target) if spec.target is not None else None
        if isinstance(constant, Tensor):
            lifted[spec.arg.name] = constant
    return _program(model, program.graph, own, lifted, program.graph_signature.buffers_to_mutate.values())


@contextmanager
def _dataclasses_opened(model: nn.Module) -> Iterator[None]:
    """Inside, dataclasses in the model's output come as dicts, caches not at all: `torch.export` knows neither."""
    hook = model.register_forward_hook(lambda module, args, output: _without_caches(opened(output)))
    try:
        yield
    finally:
        hook.remove()


def _without_caches(output: Any) -> Any:
    return pytree.tree_map(lambda leaf: None if is_cache(leaf) else leaf, output, is_leaf=is_cache)


@contextmanager
def _quiet() -> Iterator[None]:
    """Upstream logs a traceback and prints a graph before it raises: what the reader needs of them is in our error."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch._subclasses.fake_tensor")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
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
        f"torch.export cannot capture {kind}{_raised_at(model, error)}: {_first_line(error)}",
        "remove the data-dependent Python control flow from its forward, or shrink the submodule that can be captured",
    )


def _raised_at(model: nn.Module, error: Exception) -> str:
    """The last line of the model's own code on the way to an error, in words; "" where there is none."""
    paths = {id(module): path for path, module in model.named_modules()}
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module, file = frame.f_locals.get("self"), frame.f_code.co_filename
        if id(module) in paths and f"{os.sep}torch{os.sep}" not in file:
            found = f" at {', '.join(part for part in (paths[id(module)], f'{Path(file).name}:{line}') if part)}"
    return found


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _program(
    model: nn.Module,
    graph: fx.Graph,
    own: Mapping[str, str],
    lifted: Mapping[str, Tensor],
    written: Iterable[str] = (),
) -> Program:
    """A captured graph in the names of the model.

    Args:
        own: The parameter or buffer behind a placeholder, by one of its names.
        lifted: Constant tensors by placeholder; some are the model's own under another name.
        written: Names of buffers that the program writes at its end.
    """
    everything = named_tensors(model)
    tensors = {name: tensor for name, tensor in everything.items() if not name.startswith(GRAPH_CONSTANT)}
    lifted = {**lifted, **{place: everything[name] for place, name in own.items() if name.startswith(GRAPH_CONSTANT)}}
    canonical: dict[Any, str] = {}
    aliases: dict[str, list[str]] = {}
    name_of: dict[str, str] = {}
    for name, tensor in tensors.items():
        first = canonical.setdefault(_identity(tensor), name)
        aliases.setdefault(first, []).append(name)
        name_of[name] = first
    parameters = {placeholder: name_of[name] for placeholder, name in own.items() if name in name_of}
    made: dict[str, Tensor] = {}
    for placeholder, constant in lifted.items():
        known = canonical.get(_identity(constant))
        if placeholder in parameters:
            continue
        if known is None:
            made[placeholder] = constant
        else:
            parameters[placeholder] = known
    nodes = tuple(graph.nodes)
    mutated = {parameters[n.name] for n in written_roots(nodes) if n.name in parameters}
    mutated |= {name_of[name] for name in written if name in name_of}
    return Program(
        nodes=nodes,
        parameters=parameters,
        aliases={name: tuple(others) for name, others in aliases.items()},
        tensors={name: tensors[name] for name in aliases},
        lifted=made,
        mutated=frozenset(mutated),
    )


GRAPH_CONSTANT = "_graph_constant"
"""What buffers of a captured graph are called that hold constants of the code."""


def _identity(tensor: Tensor) -> Any:
    storage = tensor.untyped_storage()
    return storage._cdata, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride())


def users_of(node: fx.Node) -> list[fx.Node]:
    """Who takes a value; not the ops that look at its kind and answer with no tensor (`torch.export` writes such)."""
    return [user for user in node.users if user.op != "call_function" or shapes_of(user)]


def shapes_of(node: fx.Node) -> tuple[Shape, ...]:
    """The shapes of a node's tensors (one, or several for ops with several outputs)."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return (tuple(map(_size, value.shape)),)
    if isinstance(value, tuple | list):
        return tuple(tuple(map(_size, v.shape)) for v in value if isinstance(v, Tensor))
    return ()


def _size(size: int | torch.SymInt) -> int:
    """A size; one that depends on the data (how many entries a mask has) is taken to be some odd number."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    stand_in = {symbol: _PRIMES[sum(str(symbol).encode()) % len(_PRIMES)] for symbol in expression.free_symbols}
    return size.node.hint if size.node.has_hint() else int(expression.subs(stand_in))


_PRIMES = (10007, 10009, 10037, 10039, 10061, 10067, 10069, 10079)
"""Sizes that no dim of channels is likely to have."""
