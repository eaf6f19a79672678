"""Before anything is timed: does the runtime compute what the model computes in eager mode?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surgery.errors import CheckError, InputError
from surgery.exporting.flat import output_tensors
from surgery.inputs import Inputs
from surgery.proof.resting import resting

TOLERANCE = 1e-3
"""The largest difference allowed, as a share of the spread of the output."""

NOISE_ULPS = 16
"""Or this many rounding steps of the largest output, where an output varies less than its own rounding noise."""

NOISES = 4
"""So many times what eager mode itself loses by rounding may be lost, in the model's own precision or a lower one."""


@dataclass(frozen=True)
class Reference:
    """A model's own outputs: on the inputs to be timed, and on fresh ones that show how far outputs vary.

    `slack` is what may be lost beside that, per output, `[units of the output]`: the model's own rounding, and what a
    lower precision loses.
    """

    outputs: tuple[Tensor, ...]
    fresh: tuple[Tensor, ...]
    slack: tuple[float, ...] = ()

    def rounded(self, exact: Sequence[Tensor] | None) -> Reference:
        """The same for a model whose outputs in float64 are `exact` (None: not known): another order of the same sums
        may be as far from them as eager mode is.
        """
        if exact is None or [t.shape for t in exact] != [t.shape for t in self.outputs]:
            return self
        pairs = zip(self.outputs, exact, strict=True)
        return replace(self, slack=tuple(NOISES * _largest(_real(own) - _real(one)) for own, one in pairs))

    def lowered(self, outputs: Sequence[Tensor] | None, dtype: torch.dtype) -> Reference:
        """The same for a runtime that computes in `dtype`, where eager mode gives `outputs` (None: it cannot)."""
        losses = [0.0] * len(self.outputs)
        if outputs is not None and [t.shape for t in outputs] == [t.shape for t in self.outputs]:
            losses = [_largest(_real(low) - _real(own)) for low, own in zip(outputs, self.outputs, strict=True)]
        steps = [NOISE_ULPS * torch.finfo(dtype).eps * _largest(_real(own)) for own in self.outputs]
        return replace(self, slack=tuple(max(NOISES * a, b) for a, b in zip(losses, steps, strict=True)))

    def unbounded(self) -> Reference:
        """The same for int8, whose loss is reported and not judged."""
        return replace(self, slack=(float("inf"),) * len(self.outputs))


def reference(model: nn.Module, name: str, inputs: Inputs, fresh: Inputs) -> Reference:
    """Run `model` in eval mode on both inputs; it is left as it was.

    Raises:
        InputError: The model refuses the inputs, or returns no tensor.
    """
    with resting(model) as reset:
        try:
            outputs = _kept(inputs.call(model))
        except Exception as error:
            shapes = ", ".join(str(tuple(t.shape)) for t in inputs.tensors())
            raise InputError(
                f"model {name!r} refuses the inputs ({shapes}): {type(error).__name__}: {error}",
                "pass example inputs, and batch sizes, that the model accepts",
            ) from error
        reset()
        try:
            other = _kept(fresh.call(model))
        except Exception:  # made-up inputs may be refused; the spread is then taken from the outputs alone
            other = ()
    if not outputs:
        raise InputError(f"model {name!r} returns no tensor", "benchmark a model whose output holds a tensor")
    return Reference(outputs, other)


def eager_outputs(model: nn.Module, inputs: Inputs) -> tuple[Tensor, ...] | None:
    """What the model gives in eval mode; None where it cannot run (a precision that an op of it does not know)."""
    try:
        with resting(model):
            return _kept(inputs.call(model))
    except Exception:
        return None


def _kept(output: Any) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().cpu().clone() for tensor in output_tensors(output))


def tensors_of(output: Any) -> list[Tensor]:
    """Every tensor of what a runtime returned, in order: modules, arrays, and what is bound on a device."""
    if hasattr(output, "arrays"):
        output = output.arrays()
    if isinstance(output, list) and all(isinstance(array, np.ndarray) for array in output):
        return [torch.from_numpy(array) for array in output]
    return output_tensors(output)


def check_parity(got: Sequence[Tensor], wanted: Reference, *, model: str, runtime: str) -> float:
    """Compare a runtime's outputs with the model's own.

    Returns:
        The largest difference over the spread of its output.

    Raises:
        CheckError: The number of outputs, a shape, or a value differs; model, runtime and difference are named.
    """
    way_out = f"do not trust times of this model in {runtime}; drop it from runtimes, or look into its export"

    def refuse(what: str) -> CheckError:
        return CheckError(f"{runtime} does not compute what model {model!r} computes in eager mode: {what}", way_out)

    if len(got) != len(wanted.outputs):
        raise refuse(f"{len(got)} output tensors instead of {len(wanted.outputs)}")
    worst = 0.0
    for position, (ours, eager) in enumerate(zip(got, wanted.outputs, strict=True)):
        if ours.shape != eager.shape:
            raise refuse(f"output {position} has shape {tuple(ours.shape)} instead of {tuple(eager.shape)}")
        if not eager.numel():
            continue
        a, b = _real(ours), _real(eager)
        if not torch.equal(a.isfinite(), b.isfinite()):
            raise refuse(f"output {position} has NaN or Inf in other places")
        fresh = wanted.fresh[position] if position < len(wanted.fresh) else None
        slack = wanted.slack[position] if wanted.slack else 0.0
        spread, error = _spread(eager, fresh), _largest(a - b)
        rounding = torch.finfo(eager.dtype).eps if eager.is_floating_point() or eager.is_complex() else 0.0
        if error > max(TOLERANCE * spread, NOISE_ULPS * rounding * _largest(b), slack):
            allowed = max(TOLERANCE, slack / spread)
            raise refuse(f"output {position} is off by {error / spread:.1e} of its spread ({allowed:.0e} allowed)")
        worst = max(worst, error / spread)
    return worst


def top1(got: Sequence[Tensor], first: Sequence[Tensor]) -> float | None:
    """The share of positions at which the largest value of the first output is where `first` has it.

    The classes are the last dim; of images and volumes, [b, classes, ...], dim 1. None where there are no classes, or
    the shapes differ.
    """
    if not got or not first or got[0].shape != first[0].shape or not got[0].is_floating_point():
        return None
    dim = 1 if got[0].dim() > 3 else -1
    if got[0].dim() < 2 or got[0].shape[dim] < 2 or not got[0].numel():
        return None
    ours, theirs = (_real(outputs[0]).argmax(dim) for outputs in (got, first))
    return float((ours == theirs).double().mean())


def _spread(output: Tensor, fresh: Tensor | None) -> float:
    """How far an output varies: against fresh inputs if it can be told, else within itself, else its size, else 1."""
    b = _real(output)
    if fresh is not None and fresh.shape == output.shape and (changes := _largest(b - _real(fresh))) > 0:
        return changes
    b = b[b.isfinite()]
    if not b.numel():
        return 1.0
    return float(b.max() - b.min()) or float(b.abs().max()) or 1.0


def _largest(tensor: Tensor) -> float:
    """The largest finite size of a value, 0 without one."""
    sizes = tensor.abs()
    sizes = sizes[sizes.isfinite()]
    return float(sizes.max()) if sizes.numel() else 0.0


def _real(tensor: Tensor) -> Tensor:
    """As float64 on the CPU, complex numbers as pairs."""
    tensor = tensor.detach().cpu()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).to(torch.float64)
