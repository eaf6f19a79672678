"""What a model costs: multiply-accumulates, parameters, bytes. Flops are 2 · macs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from surgery.cutting.twins import meta_copy
from surgery.errors import InputError, first_line
from surgery.inputs import Inputs
from surgery.proof.resting import resting

aten = torch.ops.aten
Formula = Callable[..., int]

EXTRA_FLOPS: dict[Any, Formula] = {
    aten.mv: lambda matrix, vector, *args, **kwargs: 2 * prod(matrix),
    aten.addmv: lambda bias, matrix, vector, *args, **kwargs: 2 * prod(matrix),
    aten.dot: lambda a, b, *args, **kwargs: 2 * prod(a),
    aten.vdot: lambda a, b, *args, **kwargs: 2 * prod(a),
    aten.addbmm: lambda bias, a, b, *args, **kwargs: 2 * prod(a) * b[-1],
}
"""Formulas for products that PyTorch's counter takes for free, from the shapes of their operands."""


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        macs: Multiply-accumulates of one call, in products of matrices, convolutions and attention.
        params: Numbers in parameters, shared ones once.
        size_bytes: Bytes of parameters and buffers, shared ones once.
        notes: How the macs were counted, where not on the meta device.
    """

    macs: int
    params: int
    size_bytes: int
    notes: tuple[str, ...] = ()


def cost(model: nn.Module, inputs: Inputs) -> Cost:
    """Everything that one call of the model costs.

    Raises:
        InputError: The model fails on the inputs.
    """
    counted, note = _count_macs(model, inputs)
    return Cost(counted, count_params(model), size_bytes(model), (note,) if note else ())


def macs(model: nn.Module, inputs: Inputs) -> int:
    """Multiply-accumulates of one call in eval mode: of matrix products, convolutions and attention.

    Raises:
        InputError: The model fails on the inputs.
    """
    return _count_macs(model, inputs)[0]


def count_params(model: nn.Module) -> int:
    """Numbers in the model's parameters; memory that is shared counts once."""
    return sum(tensor.numel() for tensor in _unique(model.parameters()))


def size_bytes(model: nn.Module) -> int:
    """Bytes of the model's parameters and buffers; memory that is shared counts once."""
    return sum(t.numel() * t.element_size() for t in _unique([*model.parameters(), *model.buffers()]))


def _unique(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """One tensor per place in memory; parts of one storage (an LSTM's flat weights) are places of their own."""
    seen: set[tuple[int, int, int]] = set()
    for tensor in tensors:
        place = tensor.untyped_storage()._cdata, int(tensor.storage_offset()), tensor.numel()
        if place not in seen:
            seen.add(place)
            yield tensor


def _count_macs(model: nn.Module, inputs: Inputs) -> tuple[int, str]:
    """The macs and a note, "" where they were counted on the meta device."""
    try:
        with torch.device("meta"):
            return _counted(meta_copy(model), inputs.to(torch.device("meta"))), ""
    except Exception as error:  # .item(), numpy, a kernel without a meta version, a model that cannot be copied
        note = f"macs counted in a real run, for the model cannot run on the meta device ({first_line(error)})"
    try:
        with _plain_kernels():
            return _counted(model, inputs), note
    except Exception as error:
        fact = f"the model fails on its own example inputs: {first_line(error)}"
        raise InputError(fact, "pass inputs that the model accepts in eval mode") from error


def _counted(model: nn.Module, inputs: Inputs) -> int:
    """Half the flops of one call."""
    with resting(model), _untracked(model), FlopCounterMode(display=False, custom_mapping=EXTRA_FLOPS) as counter:
        inputs.call(model)
    return int(counter.get_total_flops()) // 2


@contextmanager
def _untracked(model: nn.Module) -> Iterator[None]:
    """Inside, no parameter asks for gradients: the counter fails on one that is handed to a module as an input."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Attention and recurrent layers as products of matrices: their fused CPU kernels count as nothing."""
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN")  # of other machines; warns when set
        stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
