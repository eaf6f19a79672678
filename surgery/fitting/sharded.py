"""The same under FSDP2: a copy in shards is trained; the model itself is brought up to date when it is needed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from surgery.errors import InputError
from surgery.fitting.engine import Engine
from surgery.schedules import keep_masks


class Sharded(Engine):
    """A model and its optimizer whose shards are trained (mutable).

    `fully_shard` changes the class of a model and its parameters for good, so that it is given a copy. Between steps,
    where the model is to be changed, judged or written, all processes gather the shards into it; a change is made to
    the whole model and the whole optimizer, of which new shards are made then.
    """

    def __init__(self, accelerator: Any, model: nn.Module, optimizer: Optimizer, *, own: bool) -> None:
        super().__init__(accelerator, model, optimizer, own=own)
        self.shards: Optimizer | None = None

    @property
    def at(self) -> torch.device:
        """Where the whole model lies: where it was brought from."""
        assert self.home is not None, "checked before"
        return self.home

    @property
    def trained(self) -> nn.Module:
        """The model whose modules run."""
        return self.model if self.wrapped is None else self.wrapped

    def wrap_(self, probe: Callable[[nn.Module], Tensor]) -> None:
        """Make shards of a copy of the model, and of the optimizer's state."""
        for path in keep_masks(self.model):  # what a mask computes from the weight is made anew by the next call
            module, _, name = path.rpartition(".")
            holder = self.model.get_submodule(module)
            setattr(holder, name, getattr(holder, name).detach())
        held = dict(self.optimizer.state)
        self.optimizer.state.clear()
        try:
            twin, optimizer = copy.deepcopy((self.model, self.optimizer))
        finally:
            self.optimizer.state.update(held)
        self.wrapped, self.stepping = self.accelerator.prepare(twin, optimizer)
        self.shards = optimizer
        for whole, shard in self._pairs():
            if whole in self.optimizer.state:
                optimizer.state[shard] = {
                    name: _sharded(value, whole, shard) for name, value in self.optimizer.state[whole].items()
                }

    def unwrap_(self) -> None:
        """Bring the model up to date, and let the shards go."""
        if self.wrapped is not None:
            self._gather_()
        super().unwrap_()

    def drop_(self) -> None:
        """Let the shards go; the model is as it was when it was last brought up to date."""
        super().drop_()
        self.shards = None

    def agree_(self, tensors: Any = None) -> None:
        """Bring the model up to date; all processes have the main one's buffers then."""
        if self.wrapped is not None:
            self._gather_()
        super().agree_(tensors)
        if self.wrapped is not None:
            with torch.no_grad():
                for whole, own in zip(self.model.buffers(), self.wrapped.buffers(), strict=True):
                    own.copy_(whole)

    def step(self, clip_norm: float | None) -> bool:
        """One step of the shards' optimizer, at the rates of the whole one, which learning rates are set in."""
        assert self.shards is not None, "wrapped before"
        for whole, own in zip(self.optimizer.param_groups, self.shards.param_groups, strict=True):
            own.update({name: value for name, value in whole.items() if name not in ("params", "param_names")})
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # else torch warns of rates without steps
        return super().step(clip_norm)

    @contextmanager
    def evaluable(self) -> Iterator[nn.Module]:
        """The shards: all processes run them together."""
        yield self.trained

    def place_(self) -> None:
        """All processes get the weights of the first; shards go to where they are trained."""
        self.agree_(self.model.parameters())
        self.agree_(self.model.buffers())

    def _gather_(self) -> None:
        """Write the shards back into the model and its optimizer."""
        assert self.shards is not None, "wrapped before"
        with torch.no_grad():
            for whole, shard in zip(self.model.parameters(), self.wrapped.parameters(), strict=True):
                whole.copy_(_whole(shard))
            for buffer, own in zip(self.model.buffers(), self.wrapped.buffers(), strict=True):
                buffer.copy_(_whole(own))
        self.optimizer.state.clear()
        for parameter, shard in self._pairs():
            if shard in self.shards.state:
                held = {name: _moved(value, parameter) for name, value in self.shards.state[shard].items()}
                self.optimizer.state[parameter] = held

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        """Every parameter that the optimizer holds, and its shard."""
        assert self.shards is not None, "wrapped before"
        for whole, own in zip(self.optimizer.param_groups, self.shards.param_groups, strict=True):
            yield from zip(whole["params"], own["params"], strict=True)

    def _unreached(self, probe: Callable[[nn.Module], Tensor]) -> bool:
        """Shards without gradients are no matter."""
        return False


def refuse(accelerator: Any) -> None:
    """Refuse the ways of sharing a model out that training does not know.

    Raises:
        InputError: So it is, by name.
    """
    kind = accelerator.distributed_type.value
    if kind == "FSDP" and not accelerator.is_fsdp2:
        raise InputError("FSDP is asked for in its first version", "ask for fsdp_version=2")
    if kind in ("DEEPSPEED", "MEGATRON_LM", "XLA"):
        raise InputError(f"the Accelerator shares the model out by {kind}", "train with DDP or FSDP2")


def _whole(value: Tensor) -> Tensor:
    """The whole of a tensor in shards; other tensors as they are."""
    full: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return full.detach()


def _moved(value: Any, parameter: Tensor) -> Any:
    """A whole state of an optimizer, where the whole parameter is; what is one number stays where it is."""
    if not isinstance(value, Tensor):
        return value
    full = _whole(value)
    return full.to(parameter.device) if full.dim() else full


def _sharded(value: Any, whole: Tensor, shard: Any) -> Any:
    """A state of the parameter's shape in the shards that the parameter has; anything else as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(value, Tensor):
        return value
    if not isinstance(shard, DTensor) or value.shape != whole.shape or not value.dim():
        return value.to(shard.device) if value.dim() else value.clone()
    return distribute_tensor(value.to(shard.device), shard.device_mesh, shard.placements)
