"""The judge of the zoo: `tests/exactness.py` for nets with any inputs. It knows nothing of the package's own proof."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from surgery.inputs import Inputs
from tests.exactness import BOUND_FLOAT32, BOUND_FLOAT64, HEALTHY, Distance

NARROW = {torch.float32: torch.float64, torch.complex64: torch.complex128}

UNDECIDED = "nobody could tell"
NOISY = 1e-2
"""A net whose own rounding in float32 is more than this of its spread is allowed none of it.

Attention masked by -1e10 makes such: of a row that sees nothing, float32 keeps no scores, and float64 does.
"""


class _Wide(TorchDispatchMode):
    """Whatever asks for float32 gets float64: casts inside a net would hide a wrong cut behind their rounding."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def widened(value: Any) -> Any:
            if isinstance(value, torch.dtype):
                return NARROW.get(value, value)
            return value.to(NARROW[value.dtype]) if isinstance(value, Tensor) and value.dtype in NARROW else value

        if func in (torch.ops.aten.view.dtype, torch.ops.aten.detach.default):  # they read the bits, and copy nothing
            return func(*args, **(kwargs or {}))
        args, kwargs = pytree.tree_map(widened, (args, kwargs or {}))
        if func is torch.ops.aten._grouped_mm.default:  # it has no float64 kernel
            return _grouped(*args, **kwargs)
        return func(*args, **kwargs)


def _grouped(rows: Tensor, weights: Tensor, offs: Tensor, bias: Tensor | None = None, out_dtype: Any = None) -> Tensor:
    """rows [t, k], weights [e, k, n]: rows up to `offs[e]` meet `weights[e]`, [t, n]; the others give zeros."""
    out, first = rows.new_zeros(rows.shape[0], weights.shape[-1]), 0
    for weight, last in zip(weights, offs.tolist(), strict=True):
        out[first:last] = rows[first:last] @ weight
        first = last
    return out


@contextmanager
def wide() -> Iterator[None]:
    """Run a float64 model in float64 throughout."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Wide():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_default_dtype(before)


def widened(model: nn.Module) -> nn.Module:
    """A float64 copy: parameters, buffers, and the tensors that modules hold as plain attributes."""
    copied = copy.deepcopy(model).double()
    for module in copied.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.dtype in NARROW:
                setattr(module, name, value.to(NARROW[value.dtype]))
    return copied


def tensors_of(value: Any) -> list[Tensor]:
    """Every tensor of a model's output: in containers, dataclasses and model outputs, in their order.

    Not those in a cache of keys and values: that is the model's own memory, and a slim one remembers less.
    """
    if type(value).__name__.endswith("Cache"):
        return []
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for part in value.values() for tensor in tensors_of(part)]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_of(part)]
    if hasattr(value, "__dict__") and not isinstance(value, type | nn.Module):
        return [tensor for part in vars(value).values() for tensor in tensors_of(part)]
    return []


def answers(model: nn.Module, inputs: Inputs, dtype: torch.dtype) -> list[Tensor]:
    """What a model in eval mode returns, in float64."""
    with torch.no_grad():
        if dtype == torch.float64:
            with wide():
                result = inputs.to(dtype).call(model)
        else:
            result = inputs.to(dtype).call(model)
    return [_real(tensor).double() for tensor in tensors_of(result)]


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def distance(
    masked: nn.Module, slim: nn.Module, slim64: nn.Module, trials: Iterable[tuple[Inputs, Inputs]]
) -> Distance:
    """The worst distance over pairs of fresh inputs of the same size; outputs that never vary must agree, too.

    Raises:
        AssertionError: The outputs have other shapes, or are not finite in the same places.
    """
    masked64 = widened(masked)
    worst64 = worst32 = noise = 0.0
    health = float("inf")
    for pair in trials:
        truths = [answers(masked64, inputs, torch.float64) for inputs in pair]
        spreads = [_largest(a - b) for a, b in zip(*truths, strict=True)]
        largest = [max(_largest(a), _largest(b)) for a, b in zip(*truths, strict=True)]
        varying = [s / m for s, m in zip(spreads, largest, strict=True) if m and s]
        health = min(health, *varying) if varying else 0.0
        scales = [s or m or 1.0 for s, m in zip(spreads, largest, strict=True)]
        for inputs, truth in zip(pair, truths, strict=True):
            run64, run32 = answers(slim64, inputs, torch.float64), answers(slim, inputs, torch.float32)
            own = answers(masked, inputs, torch.float32)
            worst64 = max(worst64, _error(run64, truth, scales))
            worst32 = max(worst32, _error(run32, own, scales))
            noise = max(noise, _error(own, truth, scales))
    return Distance(worst64, worst32, noise, health)


def over_largest(masked: nn.Module, slim: nn.Module, trials: Iterable[Inputs]) -> float:
    """The worst max|slim - masked| / max|masked| in float32: what most tools are measured by, and milder than ours."""
    worst = 0.0
    for inputs in trials:
        own = answers(masked, inputs, torch.float32)
        largest = [_largest(tensor) or 1.0 for tensor in own]
        worst = max(worst, _error(answers(slim, inputs, torch.float32), own, largest))
    return worst


def _largest(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _error(run: list[Tensor], truth: list[Tensor], scales: list[float]) -> float:
    assert [tuple(o.shape) for o in run] == [tuple(o.shape) for o in truth], "the outputs have other shapes"
    worst = 0.0
    for a, b, scale in zip(run, truth, scales, strict=True):
        assert torch.equal(a.isfinite(), b.isfinite()), "the outputs are finite in other places"
        worst = max(worst, _largest(a - b) / scale)
    return worst


def faults(found: Distance) -> str:
    """Why a slim model is not exact, or why nobody could tell; "" where it is."""
    if found.health < HEALTHY:
        return f"{UNDECIDED}: the outputs vary by {found.health:.0e} of their largest value"
    if found.float64 > BOUND_FLOAT64:
        return f"wrong: relative error {found.float64:.1e} in float64"
    bound = max(BOUND_FLOAT32, 4 * found.noise)
    if found.float32 > BOUND_FLOAT32 and found.noise > NOISY:
        return f"{UNDECIDED}: the masked net's own rounding is {found.noise:.0e} of its spread"
    if found.float32 > bound:
        return f"wrong: relative error {found.float32:.1e} in float32, bound {bound:.1e}"
    return ""
