"""A model whose weights are on the meta device, captured and run as if they lay where its inputs do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from surgery.inputs import Inputs


def device_of(inputs: Inputs) -> torch.device:
    """The device of all inputs; the CPU where they differ."""
    devices = {tensor.device for tensor in inputs.tensors()}
    return devices.pop() if len(devices) == 1 else torch.device("cpu")


def hollow(model: nn.Module) -> bool:
    """Whether a parameter of the model is on the meta device."""
    return any(parameter.is_meta for parameter in model.parameters())


@contextmanager
def standing_in(model: nn.Module, inputs: Inputs) -> Iterator[None]:
    """Inside, fake tensors on the inputs' device stand where the model's own are on the meta device."""
    device = device_of(inputs)
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    stand_ins: dict[int, Tensor] = {}
    changed: list[tuple[Any, str, Tensor]] = []
    if device.type != "meta":
        for module in model.modules():
            held: Any
            for held in (module._parameters, module._buffers):
                changed += [(held, name, t) for name, t in held.items() if t is not None and t.is_meta]
    try:
        for held, name, tensor in changed:
            if id(tensor) not in stand_ins:
                stand_ins[id(tensor)] = _stand_in(tensor, fakes, device)
            held[name] = stand_ins[id(tensor)]
        yield
    finally:
        for held, name, tensor in changed:
            held[name] = tensor


def _stand_in(tensor: Tensor, fakes: FakeTensorMode, device: torch.device) -> Tensor:
    with fakes:
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
