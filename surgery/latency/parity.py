"""Before anything is timed: does the runtime compute what the model computes in eager mode?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surgery.errors import CheckError, InputError
from surgery.inputs import Inputs
from surgery.latency.forms import evaluating, output_tensors

TOLERANCE = 1e-3
"""The largest difference allowed, as a share of the spread of the output."""

NOISE_ULPS = 16
"""Or this many rounding steps of the largest output, where an output varies less than its own rounding noise."""


@dataclass(frozen=True)
class Reference:
    """A model's own eager outputs: on the inputs to be timed, and on fresh ones that show how far outputs vary."""

    outputs: tuple[Tensor, ...]
    fresh: tuple[Tensor, ...]


def reference(model: nn.Module, name: str, inputs: Inputs, fresh: Inputs) -> Reference:
    """Run `model` in eval mode on both inputs.

    Raises:
        InputError: The model refuses the inputs, or returns no tensor.
    """
    with evaluating(model), torch.no_grad():
        try:
            outputs = [t.detach().cpu() for t in output_tensors(inputs.call(model))]
        except Exception as error:
            shapes = ", ".join(str(tuple(t.shape)) for t in inputs.tensors())
            raise InputError(
                f"model {name!r} refuses the inputs ({shapes}): {type(error).__name__}: {error}",
                "pass example inputs, and batch sizes, that the model accepts",
            ) from error
        try:
            other = [t.detach().cpu() for t in output_tensors(fresh.call(model))]
        except Exception:  # made-up inputs may be refused; the spread is then taken from the outputs alone
            other = []
    if not outputs:
        raise InputError(f"model {name!r} returns no tensor", "benchmark a model whose output holds a tensor")
    return Reference(tuple(outputs), tuple(other))


def check_parity(got: Sequence[Tensor], wanted: Reference, *, model: str, runtime: str) -> None:
    """Compare a runtime's outputs with the model's own.

    Raises:
        CheckError: The number of outputs, a shape, or a value differs; model, runtime and difference are named.
    """
    way_out = f"do not trust times of this model in {runtime}; drop it from runtimes, or look into its export"

    def refuse(what: str) -> CheckError:
        return CheckError(f"{runtime} does not compute what model {model!r} computes in eager mode: {what}", way_out)

    if len(got) != len(wanted.outputs):
        raise refuse(f"{len(got)} output tensors instead of {len(wanted.outputs)}")
    for position, (ours, eager) in enumerate(zip(got, wanted.outputs, strict=True)):
        if ours.shape != eager.shape:
            raise refuse(f"output {position} has shape {tuple(ours.shape)} instead of {tuple(eager.shape)}")
        if not eager.numel():
            continue
        a, b = _real(ours), _real(eager)
        if not torch.equal(a.isfinite(), b.isfinite()):
            raise refuse(f"output {position} has NaN or Inf in other places")
        a, b = a[a.isfinite()], b[b.isfinite()]
        if not a.numel():
            continue
        fresh = wanted.fresh[position] if position < len(wanted.fresh) else None
        spread, error = _spread(eager, fresh), float((a - b).abs().max())
        rounding = torch.finfo(eager.dtype).eps if eager.is_floating_point() or eager.is_complex() else 0.0
        if error > max(TOLERANCE * spread, NOISE_ULPS * rounding * float(b.abs().max())):
            raise refuse(f"output {position} is off by {error / spread:.1e} of its spread ({TOLERANCE:.0e} allowed)")


def _spread(output: Tensor, fresh: Tensor | None) -> float:
    """How far an output varies: against fresh inputs if it can be told, else within itself, else its size, else 1."""
    b = _real(output)
    if fresh is not None and fresh.shape == output.shape:
        changes = (b - _real(fresh)).abs()
        changes = changes[changes.isfinite()]
        if changes.numel() and float(changes.max()) > 0:
            return float(changes.max())
    b = b[b.isfinite()]
    return float(b.max() - b.min()) or float(b.abs().max()) or 1.0


def _real(tensor: Tensor) -> Tensor:
    """As float64 on the CPU, complex numbers as pairs."""
    tensor = tensor.detach().cpu()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).to(torch.float64)
