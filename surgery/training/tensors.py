"""What a plan does to any tensor that goes with a parameter: a moment of its gradients, an average of its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from surgery.cutting.cut import gathered, scale_
from surgery.deciding.cuts import Cuts
from surgery.deciding.parts import AxisCut, Scale
from surgery.errors import InputError
from surgery.layout import Shape

POWERS = {
    "momentum_buffer": 1,
    "exp_avg": 1,
    "grad_avg": 1,
    "exp_inf": 1,
    "prev": 1,
    "exp_avg_sq": 2,
    "max_exp_avg_sq": 2,
    "square_avg": 2,
    "sum": 2,
    "variance": 2,
    "step_size": -1,
    "acc_delta": -2,
}
"""Which power of the gradient a state of torch.optim grows with (below 0: of the parameter's step)."""

MEANS = {"row_var": -1, "col_var": -2, "exp_avg_sq_row": -1, "exp_avg_sq_col": -2}
"""Adafactor's factors (Shazeer and Stern, 2018), of torch and of transformers: the dim that each is the mean over."""


class TensorCuts:
    """A plan, asked for one tensor at a time, under any of its names."""

    def __init__(self, plan: Cuts) -> None:
        self.shapes = plan.shapes
        self.canonical = {alias: axis.name for axis in plan.axes for alias in (axis.name, *axis.aliases)}
        self.axes: dict[str, list[AxisCut]] = {}
        for axis in plan.axes:
            if axis.removed:
                self.axes.setdefault(axis.name, []).append(axis)
        self.scales: dict[str, list[Scale]] = {}
        for scale in plan.scales:
            self.scales.setdefault(scale.name, []).append(scale)
        biases = {fold.bias for fold in plan.folds}
        self.made = (biases - set(self.canonical) - set(plan.shapes)) | set(plan.made)
        """Biases that folds and compensation make, where the model had none."""
        self.bypassed = {bypass.module: tuple(bypass.shapes) for bypass in plan.bypasses}
        self.gone = {name for names in self.bypassed.values() for name in names}
        """Parameters of modules that went as a whole."""

    def order_before(self, slim: nn.Module) -> list[str]:
        """The names of the parameters that the model had, in its order; tied ones once."""
        found: list[str] = []
        seen: set[int] = set()
        for path, module in slim.named_modules():
            found += [name for name in self.bypassed.get(path, ()) if name.startswith(f"{path}.")]
            for name, parameter in module.named_parameters(path, recurse=False):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    found.append(name)
        return found

    def changes(self, name: str) -> bool:
        """Whether the tensor loses positions or is multiplied."""
        name = self.canonical.get(name, name)
        return name in self.axes or name in self.scales

    def before(self, name: str) -> Shape | None:
        """Its shape before the cut; None where the plan does not know it."""
        shape = self.shapes.get(self.canonical.get(name, name))
        return None if shape is None else tuple(shape)

    def after(self, name: str) -> Shape | None:
        """Its shape after the cut; None where the plan does not know it."""
        before = self.before(name)
        return None if before is None else tuple(self._gathered(name, torch.empty(before, device="meta")).shape)

    def average(self, name: str, tensor: Tensor) -> Tensor:
        """What becomes of values that are averages of the tensor's: multiplied and gathered as it is."""
        return self._gathered(name, _multiplied(tensor, self._scales(name)))

    def state(self, name: str, state: Mapping[str, Any]) -> dict[str, Any]:
        """What becomes of an optimizer's state of a parameter.

        Tensors of its shape are gathered as it is, Adafactor's factors along the dims that they have; numbers stay.
        Where the plan multiplies the parameter by f, its gradient is divided by f: so is what is linear in it, and
        what is quadratic is divided by f².

        Raises:
            InputError: A tensor of another shape, or a state of a multiplied parameter of which it is not known how it
                grows with the gradient.
        """
        if not self.changes(name):
            return dict(state)
        return {key: self._cut(name, key, value, state) for key, value in state.items()}

    def _cut(self, name: str, key: str, value: Any, state: Mapping[str, Any]) -> Any:
        before = self.before(name)
        assert before is not None, "what changes is known"
        tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
        if isinstance(value, Tensor) and tuple(value.shape) == before:
            return self._gathered(name, self._as_gradients(name, key, value, state))
        if isinstance(value, Tensor) and key in MEANS and not self._scales(name):
            factor = self._factor(name, value, MEANS[key])
            if factor is not None:
                return factor
        if all(tensor.numel() == 1 for tensor in tensors):
            return value
        shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors[:3])
        raise _refused(name, key, f"it is {shapes}, the parameter was {list(before)} before the cut")

    def _scales(self, name: str) -> list[Scale]:
        return self.scales.get(self.canonical.get(name, name), [])

    def _as_gradients(self, name: str, key: str, value: Tensor, state: Mapping[str, Any]) -> Tensor:
        """A state of the parameter's shape, over the factors of its gradients."""
        scales = self._scales(name)
        if scales and key == "ax":  # ASGD's average of the parameter itself
            return _multiplied(value, scales)
        # RMSprop's momentum is of gradients over their own size
        power = 0 if key == "momentum_buffer" and "square_avg" in state else POWERS.get(key)
        if scales and power is None:
            raise _refused(name, key, "the plan multiplies that parameter, and how this grows with it is not known")
        return _multiplied(value, [replace(one, factor=one.factor ** -(power or 0), offset=0) for one in scales])

    def _gathered(self, name: str, tensor: Tensor) -> Tensor:
        axes = self.axes.get(self.canonical.get(name, name))
        return gathered(tensor, axes) if axes else tensor

    def _factor(self, name: str, value: Tensor, mean_over: int) -> Tensor | None:
        """A mean over one dim of what has the parameter's shape; None where it has not the shape of one.

        What goes had no gradients: over what is left the mean is larger by as much as the dim gets smaller.
        """
        before, after = self.before(name), self.after(name)
        assert before is not None, "what changes is known"
        assert after is not None, "what changes is known"
        if len(before) < 2:
            return None
        dim = len(before) + mean_over
        kept = (*before[:dim], 1, *before[dim + 1 :])
        if tuple(value.shape) not in (kept, (*before[:dim], *before[dim + 1 :])):
            return None
        # of a grouped weight dim 1 means other channels in each group: without it, what is left is along plain dims
        axes = [axis for axis in self.axes.get(self.canonical.get(name, name), ()) if axis.dim != dim]
        full = value.detach().reshape(kept)
        smaller = (gathered(full, axes) if axes else full) * (before[dim] / after[dim])
        return smaller.reshape([size for d, size in enumerate(smaller.shape) if d != dim or value.dim() == len(before)])


def _multiplied(tensor: Tensor, scales: list[Scale]) -> Tensor:
    held = tensor.detach().view_as(tensor)  # another object: what is given is left as it is
    for scale in scales:
        scale_(held, scale)
    return held


def _refused(name: str, key: str, why: str) -> InputError:
    return InputError(
        f"the optimizer's {key!r} of {name} cannot be cut: {why}",
        "delete that parameter's state first (it starts afresh), or make a new optimizer over the slim model",
    )
