"""The model and its optimizer under Accelerate: wrapped for training, and given back as they were brought."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from surgery.errors import InputError, MissingExtraError
from surgery.fitting import chance
from surgery.fitting.settings import PRECISIONS

LEFT = ("_original_forward", "_is_accelerate_prepared", "forward")
"""What Accelerate writes into the model itself."""


EXPLAINED = {
    "finished reduction in the prior iteration": (
        "parameters that got a gradient in one step got none in another, which DDP must be told",
        "pass accelerator=Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])",
    ),
    "returned an invalid gradient": (
        "something that was computed with the model before it was cut is still held: an output, a loss, a clone",
        "compute it under torch.no_grad(), or delete it first",
    ),
    "FSDP group": (
        "weights are shared by modules in different groups of FSDP",
        "set an auto_wrap_policy that keeps them together, such as NO_WRAP, or train with DDP",
    ),
    "out of memory": ("there is not enough memory for a step", "make batches smaller, and pass accumulate="),
}
"""What backends say, and what it means here."""


def explained(error: BaseException) -> InputError | None:
    """What an error of a backend means; None where that is not known."""
    chain: BaseException | None = error
    while chain is not None:
        for said, (fact, way_out) in EXPLAINED.items():
            if isinstance(chain, RuntimeError | ValueError) and said in str(chain):
                return InputError(fact, way_out)
        chain = chain.__cause__
    return None


@contextmanager
def accelerating(given: Any, precision: str | None) -> Iterator[Any]:
    """The user's Accelerator, or one of our own that leaves no setting behind.

    Raises:
        MissingExtraError: accelerate is not installed (the extra `train`).
        InputError: The precision does not go with the device, or with an Accelerator that this process has already.
    """
    try:
        import accelerate
        from accelerate.state import AcceleratorState, is_initialized
    except ImportError as error:
        raise MissingExtraError("accelerate", "train") from error
    wanted = PRECISIONS[precision]
    if given is not None:
        if not isinstance(given, accelerate.Accelerator):
            raise InputError(f"accelerator is a {type(given).__name__}", "pass an accelerate.Accelerator, or None")
        if wanted not in (None, given.mixed_precision):
            fact = f"precision is {precision!r}, the accelerator's mixed_precision is {given.mixed_precision!r}"
            raise InputError(fact, "leave precision= out, or make the Accelerator with it")
        _require_all(given)
        yield given
        return
    fresh = not is_initialized()
    try:
        made = accelerate.Accelerator(
            mixed_precision=wanted, cpu=_launched() > 1 and not torch.accelerator.is_available()
        )
    except ValueError as error:
        way_out = "fp16 needs a GPU; an Accelerator that was made before must have the same precision: pass it"
        raise InputError(f"Accelerate refused precision={precision!r}: {error}", way_out) from error
    try:
        _require_all(made)
        yield made
    finally:
        if fresh:  # another precision may follow in this process; the processes stay together
            AcceleratorState._reset_state()


def _launched() -> int:
    """How many processes a launcher started; on a machine without accelerators, Accelerate must be told of them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _require_all(accelerator: Any) -> None:
    """Refuse an Accelerator that knows of this process alone where there are others: each would train on its own.

    Raises:
        InputError: So it is.
    """
    if accelerator.num_processes > 1:
        atexit.register(_part)
    if accelerator.num_processes == 1 and _launched() > 1:
        fact = f"{_launched()} processes were launched, and the Accelerator knows of one"
        raise InputError(fact, "on CPUs make it before anything else does, with accelerate.Accelerator(cpu=True)")


def _part() -> None:
    """Let go of the other processes while Python is there: gloo's threads, left to its end, abort the process then.

    What was wrapped for training may still be held in cycles, and holds the group of processes (pytorch#179291).
    """
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    gc.collect()


class Engine:
    """A model and its optimizer, wrapped while they are trained (mutable).

    Attributes:
        model: The model without wraps.
        optimizer: Its optimizer without wraps.
        wrapped: What is called in training; None while nothing is wrapped.
    """

    def __init__(self, accelerator: Any, model: nn.Module, optimizer: Optimizer, *, own: bool) -> None:
        self.accelerator, self.model, self.optimizer, self.own = accelerator, model, optimizer, own
        self.wrapped: Any = None
        self.stepping: Any = None
        self._before: dict[str, Any] = {}
        self._held: tuple[list[Any], list[Any]] = ([], [])
        devices = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
        self.home = devices.pop() if len(devices) == 1 else None

    @property
    def at(self) -> torch.device:
        """Where the model lies between steps."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def trained(self) -> nn.Module:
        """The model whose modules run."""
        return self.model

    def check(self) -> None:
        """Refuse a model that cannot be moved to where it is to be trained.

        Raises:
            InputError: It is spread over several devices, or on none.
        """
        if isinstance(self.model, DistributedDataParallel | nn.DataParallel):
            raise InputError(f"the model is wrapped in {type(self.model).__name__}", "pass model.module")
        if any(hasattr(parameter, "full_tensor") for parameter in self.model.parameters()):
            raise InputError("the model is in shards already", "pass it as it was before: fit makes the shards")
        if self.home is None:
            raise InputError("the model lies on several devices", "load it onto one: without device_map")
        if self.home.type == "meta":
            raise InputError("the model has no weights: it is on the meta device", "load them first")

    def place_(self) -> None:
        """Move the model to where it is trained; all processes get the weights of the first."""
        self._to(self.accelerator.device)
        self.agree_(self.model.parameters())
        self.agree_(self.model.buffers())

    def agree_(self, tensors: Any = None) -> None:
        """Give all processes the main one's values; of the buffers, where nothing else is said."""
        if self.accelerator.num_processes == 1:
            return
        for tensor in self.model.buffers() if tensors is None else tensors:
            sent = tensor.detach().to(self.accelerator.device).contiguous()
            sent = sent.to(torch.uint8) if sent.dtype == torch.bool else sent
            torch.distributed.broadcast(sent, 0)
            with torch.no_grad():
                tensor.copy_(sent)

    def wrap_(self, probe: Callable[[nn.Module], Tensor]) -> None:
        """Make the model ready to be trained by all processes.

        Args:
            probe: The loss of a first batch: parameters that it does not reach are allowed for.
        """
        self._before = {name: vars(self.model)[name] for name in LEFT if name in vars(self.model)}
        self._held = list(self.accelerator._models), list(self.accelerator._optimizers)
        if self.own and self.accelerator.num_processes > 1 and self._unreached(probe):
            from accelerate import DistributedDataParallelKwargs

            self.accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.wrapped, self.stepping = self.accelerator.prepare(self.model, self.optimizer)

    def unwrap_(self) -> None:
        """Take off all that was put around the model and the optimizer."""
        self.drop_()

    def drop_(self) -> None:
        """The same, without the other processes."""
        if self.wrapped is None:
            return
        self.accelerator._models[:], self.accelerator._optimizers[:] = self._held
        self.wrapped = self.stepping = None
        for name in LEFT:
            vars(self.model).pop(name, None)
        vars(self.model).update(self._before)

    def _unreached(self, probe: Callable[[nn.Module], Tensor]) -> bool:
        """Whether the loss of any process leaves a parameter without a gradient; nothing is changed."""
        kept = [(buffer, buffer.detach().clone()) for buffer in self.model.buffers()]
        with chance.kept_apart():
            self.optimizer.zero_grad(set_to_none=True)
            probe(self.model).backward()
        missing = any(p.grad is None for p in self.model.parameters() if p.requires_grad)
        self.optimizer.zero_grad(set_to_none=True)
        for parameter in self.model.parameters():
            parameter.grad = None
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
        told = torch.tensor(float(missing), device=self.accelerator.device)
        return bool(self.accelerator.reduce(told, reduction="sum") > 0)

    def syncing(self, last: bool) -> AbstractContextManager[Any]:
        """Around one batch of a step: gradients are exchanged with the last one."""
        return nullcontext() if last else self.accelerator.no_sync(self.wrapped)

    def backward(self, loss: Tensor) -> None:
        """Gradients; an Accelerator that divides by its own number of batches a step is made up for."""
        self.accelerator.backward(loss * self.accelerator.gradient_accumulation_steps)

    def step(self, clip_norm: float | None) -> bool:
        """One step of the optimizer; whether it was one (fp16 leaves those out whose gradients overflow)."""
        if clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), clip_norm)
        self.stepping.step()
        self.stepping.zero_grad()
        return not self.stepping.step_was_skipped

    def forget_(self) -> None:
        """The optimizer starts afresh: what it holds of the parameters is gone."""
        self.optimizer.state.clear()

    def state(self) -> dict[str, Any]:
        """Weights and optimizer, for a checkpoint, as they were when all agreed (`agree_`)."""
        scaler = self.accelerator.scaler
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load_(self, kept: dict[str, Any]) -> None:
        """What `state` returned."""
        self.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])
        if self.accelerator.scaler is not None and kept["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(kept["scaler"])

    def weights(self) -> dict[str, Any]:
        """A copy of the weights as they were when all agreed (`agree_`), in memory of the host."""
        return {
            name: value.detach().cpu().clone() if isinstance(value, Tensor) else value
            for name, value in self.model.state_dict().items()
        }

    def set_weights_(self, kept: dict[str, Any]) -> None:
        """What `weights` returned."""
        self.model.load_state_dict(kept)

    @contextmanager
    def evaluable(self) -> Iterator[nn.Module]:
        """The model as it will be used: in its own precision, without wraps."""
        held = {name: vars(self.model).pop(name) for name in LEFT if name in vars(self.model)}
        vars(self.model).update(self._before)
        try:
            yield self.model
        finally:
            for name in LEFT:
                vars(self.model).pop(name, None)
            vars(self.model).update(held)

    def close_(self, failed: bool) -> None:
        """Give the model back: nothing around it, no gradients, where it was.

        Args:
            failed: Whether the training did: other processes may be gone.
        """
        self.drop_() if failed else self.unwrap_()
        self.optimizer.zero_grad(set_to_none=True)
        if self.home is not None and self.home.type != "meta":
            self._to(self.home)

    def _to(self, device: torch.device) -> None:
        """Model and optimizer to a device."""
        self.model.to(device)
        for held in self.optimizer.state.values():
            for name, value in held.items():
                if isinstance(value, Tensor) and value.dim():  # what is one number stays where the optimizer put it
                    held[name] = value.to(device)
