"""What training does otherwise: settings that differ between `train()` and `eval()`, found by recording both."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from surgery.analysis.graph_capture import Flat, plain_places_
from surgery.analysis.graph_trees import call_tree
from surgery.analysis.inlining import inline_regions_
from surgery.analysis.recording import record
from surgery.inputs import Inputs
from surgery.registry import arguments, find_rule

FLAGS = {
    **{f"aten.{op}{end}.default": "train" for op in ("dropout", "feature_dropout") for end in ("", "_")},
    **{f"aten.{op}{end}.default": "train" for op in ("alpha_dropout", "feature_alpha_dropout") for end in ("", "_")},
    "aten.native_dropout.default": "train",
    "aten.batch_norm.default": "training",
    "aten.native_batch_norm.default": "training",
}
"""The setting that follows the training flag, where nothing better is known."""


SILENT = (
    *("aten.alias.", "aten.slice.", "aten.detach", "aten.contiguous.", "aten.sym_", "aten._assert"),
    *("aten.lift_fresh",),
)
"""Ops that hand on what they are given, or nothing: two ways of capturing leave other ones of them."""


def by_mode(training: bool, in_training: Any, in_eval: Any) -> Any:
    """One of two settings."""
    return in_training if training else in_eval


def count_batch_(training: bool, batches: Tensor) -> None:
    """A batch norm counts the batches that it was trained on."""
    if training:
        batches.add_(1)


def average_of_all(training: bool, batches: Tensor) -> float:
    """The momentum of a batch norm that averages over all batches (`momentum=None`)."""
    return 1.0 / float(batches) if training else 0.0


@dataclass(frozen=True)
class Switch:
    """A setting of one op that depends on the training flag of a module."""

    node: str
    argument: str
    module: str
    in_training: Any
    in_eval: Any


@dataclass(frozen=True)
class Op:
    """An op of the program in eval mode: its node and the path of the module that called it."""

    node: fx.Node
    module: str


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Train mode inside; every module gets its own flag back afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def switches(model: nn.Module, inputs: Inputs, ops: Sequence[Op]) -> tuple[list[Switch], tuple[str, ...]]:
    """Which settings follow which training flag, and what training does that cannot be brought over, in words.

    Args:
        model: The model, which is captured in train mode on fake tensors; its state stays.
        inputs: The example that the ops were captured with.
        ops: The ops in eval mode, in order.
    """
    recorded = _in_training(model, inputs)
    found: dict[tuple[str, str], Switch] = {}
    lost: tuple[str, ...] = ()
    paired: set[str] = set()
    if recorded is not None:
        pairs, lost = _paired(ops, recorded)
        for op, other in pairs:
            paired.add(op.node.name)
            for switch in _differing(op, other):
                found[switch.node, switch.argument] = switch
    for op in ops:
        flag = FLAGS.get(str(op.node.target))
        if flag is not None and op.node.name not in paired:
            found[op.node.name, flag] = Switch(op.node.name, flag, op.module, True, False)
    if recorded is None:
        lost = ("what its code does in train mode only could not be looked at; dropout and batch norm follow train()",)
    return list(found.values()), lost


def _in_training(model: nn.Module, inputs: Inputs) -> list[Op] | None:
    """The ops in train mode without the counting of batches, or None where the code is not straight-line."""
    momenta = [(m, m.momentum) for m in model.modules() if isinstance(m, _BatchNorm) and m.momentum is None]
    try:
        for module, _ in momenta:
            module.momentum = 0.1  # None asks for the number of batches, which no recording knows
        with training(model), torch.enable_grad():
            graph = _recorded(model, inputs) or _exported(model, inputs)
    except Exception:  # what cannot be captured follows the table above
        return None
    finally:
        for module, momentum in momenta:
            module.momentum = momentum
    calls = [Op(node, path_of(node)) for node in graph.nodes if node.op == "call_function"]
    return [op for op in calls if isinstance(op.node.target, torch._ops.OpOverload) and not _counts(op.node)]


def _recorded(model: nn.Module, inputs: Inputs) -> fx.Graph | None:
    try:
        return record(model, inputs).graph
    except Exception:  # torch.export takes more
        return None


def _exported(model: nn.Module, inputs: Inputs) -> fx.Graph:
    signature, call, leaves = call_tree(model, inputs)
    program = torch.export.export(Flat(model, signature, call), tuple(leaves), strict=False)
    inline_regions_(program.graph_module)
    for node in program.graph.nodes:
        plain_places_(node)
    graph: fx.Graph = program.graph
    return graph


def _counts(node: fx.Node) -> bool:
    given = node.args[0] if node.args else None
    into = isinstance(given, fx.Node) and given.op == "placeholder" and given.name.endswith("num_batches_tracked")
    return into and str(node.target).startswith("aten.add_.")


def path_of(node: fx.Node) -> str:
    """The path of the module whose code called an op."""
    stack = node.meta.get("nn_module_stack")
    path: str = next(reversed(stack.values()))[0] if stack else ""
    return path.removeprefix("L['self'].").removeprefix("L['self']")


def _paired(ops: Sequence[Op], others: Sequence[Op]) -> tuple[list[tuple[Op, Op]], tuple[str, ...]]:
    """The same op in both modes, and where training has ops of its own."""
    ops, others = ([op for op in some if not str(op.node.target).startswith(SILENT)] for some in (ops, others))
    here, there = ([(str(op.node.target), op.module) for op in some] for some in (ops, others))
    if here == there:
        return list(zip(ops, others, strict=True)), ()
    pairs: list[tuple[Op, Op]] = []
    own: list[str] = []
    for kind, a, a_end, b, b_end in difflib.SequenceMatcher(None, here, there, autojunk=False).get_opcodes():
        if kind == "equal":
            pairs += zip(ops[a:a_end], others[b:b_end], strict=True)
        else:
            own += [
                f"{path or 'the model'} calls {target} in train mode only"
                for target, path in there[b:b_end]
                if target not in SILENT
            ]
    return pairs, tuple(dict.fromkeys(own))


def _differing(op: Op, other: Op) -> Iterator[Switch]:
    rule = find_rule(op.node.target)
    sizes = rule.sizes if rule is not None else frozenset()
    first, second = (arguments(n.target, n.args, n.kwargs) for n in (op.node, other.node))
    for name, value in first.items():
        trained = second.get(name)
        numbers = isinstance(value, int | float) and isinstance(trained, int | float)
        counts = type(value) is int and type(trained) is int  # a dim or a size, which does not follow the mode
        if numbers and not counts and name not in sizes and value != trained:
            yield Switch(op.node.name, name, op.module, trained, value)
