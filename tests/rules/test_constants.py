"""What a rule claims to be constant is constant: in every run, at every position, at other sizes, too."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from surgery.analysis import constants as module
from surgery.calls import KnownCall
from surgery.known import Known
from surgery.registry import Rule, find_rule
from tests.samples import SAMPLES
from tests.samples.sample import PATTERN, Plain, Sample

RANDOM_ROUNDS = 10
State = dict[str, Known]


def claimed(monkeypatch: pytest.MonkeyPatch, sample: Sample, state: Mapping[str, Known]) -> list[Known]:
    """What the rules say of the outputs when this is known of the operands."""
    plain = iter([state[name] for name, operand in sample.operands.items() if isinstance(operand, Plain)])
    own = module._placeholder

    def placeholder(program: Any, node: fx.Node) -> Known | None:
        if node.name in program.parameters:
            return state[program.parameters[node.name]]
        return own(program, node) if node.name in program.lifted else next(plain, None)

    failures: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(module, "_placeholder", placeholder)
        patched.setattr(module, "find_rule", lambda target: watched(target, failures))
        known = module.constants(sample.program).known
    assert failures == [], failures
    output = next(node for node in sample.program.nodes if node.op == "output")
    answers = [known[node.name] for node in pytree.tree_leaves(output.args) if isinstance(node, fx.Node)]
    return [answer for answer in answers if answer is not None]


def watched(target: Any, failures: list[str]) -> Rule | None:
    """The rule of an op; the engine goes on where its constant side raises, a test does not."""
    rule = find_rule(target)
    if rule is None or rule.knows is None:
        return rule
    knows = rule.knows

    def watching(call: KnownCall, **operands: Any) -> Any:
        try:
            return knows(call, **operands)
        except Exception as error:
            failures.append(f"{target}: {type(error).__name__}: {error}")
            raise

    return replace(rule, knows=watching)


def drawn(state: Mapping[str, Known], sample: Sample, shapes: Mapping[str, tuple[int, ...]], seed: int) -> list[Tensor]:
    """Operands that agree with what is known, all else drawn from their own values."""
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for name, known in state.items():
        own = sample.tensors[name]
        shape = shapes.get(name, tuple(own.shape))
        varied = own.flatten()[torch.randint(own.numel(), shape, generator=generator)]
        if own.is_floating_point():
            varied = varied * (0.5 + 2 * float(torch.rand((), generator=generator)))
        tensors.append(torch.where(known.varies, varied, known.value.to(own.dtype)).expand(shape).contiguous())
    return tensors


def patterned(sample: Sample, *, others_vary: bool) -> State:
    """PATTERN along one dim of one operand; the others are known, or not at all."""
    state = {}
    for name, tensor in sample.tensors.items():
        state[name] = Known.exactly(sample.sparse.get(name, tensor))
        if others_vary and tensor.dtype in (torch.float64, torch.bool):
            state[name] = Known.anything(tuple(tensor.shape))
    name, dim = sample.patterned
    tensor = sample.tensors[name]
    shape = [-1 if d == dim else 1 for d in range(tensor.dim())]
    numbers = torch.tensor([PATTERN[i] if i < len(PATTERN) else 0.0 for i in range(tensor.shape[dim])])
    varies = torch.arange(tensor.shape[dim]) >= len(PATTERN)
    state[name] = Known(tuple(tensor.shape), numbers.to(tensor.dtype).reshape(shape), varies.reshape(shape))
    return state


def scattered(sample: Sample, generator: torch.Generator) -> State:
    """Every operand known at random positions, its two arrays reduced along dims of their own."""
    state = {}
    for name, tensor in sample.tensors.items():

        def reduced(array: Tensor) -> Tensor:
            for dim in range(array.dim()):
                if float(torch.rand((), generator=generator)) < 0.5:
                    array = array.narrow(dim, 0, min(1, array.shape[dim]))
            return array

        share = float(torch.randint(-1, 5, (), generator=generator)) / 3
        varies = reduced(torch.rand(tensor.shape, generator=generator) < share)
        value = reduced(tensor)
        if not bool((tensor >= 0).all()):
            pick = torch.randint(5, value.shape, generator=generator)
            for index, number in enumerate(PATTERN):
                value = torch.where(pick == index, number, value).to(tensor.dtype)
        if tensor.is_floating_point() or tensor.dtype is torch.bool:
            state[name] = Known(tuple(tensor.shape), value, varies)
        else:
            state[name] = Known.exactly(tensor)
    return state


def states(sample: Sample) -> Iterator[State]:
    generator = torch.Generator().manual_seed(zlib.crc32(sample.name.encode()))
    yield patterned(sample, others_vary=False)
    yield patterned(sample, others_vary=True)
    for _ in range(RANDOM_ROUNDS):
        yield scattered(sample, generator)


def results(sample: Sample, operands: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        answer = sample.run(*operands)
    return [leaf for leaf in pytree.tree_leaves(answer) if isinstance(leaf, Tensor)]


def check(known: Known, tensor: Tensor, where: str) -> None:
    """Every position that is claimed has its value."""
    steady = (~known.varies).expand(tensor.shape)
    value = known.value.expand(tensor.shape)
    torch.testing.assert_close(tensor[steady], value[steady], check_dtype=False, msg=lambda text: f"{where}: {text}")


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_what_is_claimed_is_true_and_what_must_be_found_is_found(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0
    for number, state in enumerate(states(sample)):
        claims = claimed(monkeypatch, sample, state)
        if number == 0 and sample.found is not None:
            _, constant = claims[0].along(sample.along)
            assert tuple(constant.nonzero()[:, 0].tolist()) == sample.found
        for seed in range(2):
            tensors = results(sample, drawn(state, sample, {}, seed))
            for known, tensor in zip(claims, tensors, strict=True):
                assert known.shape == tuple(tensor.shape)
                check(known, tensor, f"state {number}")
        if sample.resized and all(fits(state[name], shape) for name, shape in sample.resized.items()):
            tensors = results(sample, drawn(state, sample, sample.resized, number))
            for known, tensor in zip(claims, tensors, strict=True):
                if fits(known, tuple(tensor.shape)):
                    check(known, tensor, f"state {number}, other sizes")
                    compared += 1
    assert compared or not sample.resized


def fits(known: Known, shape: tuple[int, ...]) -> bool:
    """Whether what is known does not depend on the sizes in which `shape` differs."""
    arrays = (known.value, known.varies)
    return all(a.shape[d] in (1, size) for a in arrays for d, size in enumerate(shape))
