"""The plan as the user holds it: cuts, and the doors that apply them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from surgery.analysis.graph_modules import rebound
from surgery.analysis.graph_specs import graph_again
from surgery.cutting.bypassing import shorten_
from surgery.cutting.cut import cut_, fold_
from surgery.cutting.twins import float64_copy
from surgery.deciding.checksums import checksum
from surgery.deciding.cuts import Cuts
from surgery.deciding.parts import Fold
from surgery.errors import CheckError, PlanError
from surgery.inputs import Example, Inputs
from surgery.masks import bake, bake_
from surgery.proof.prove import prove

_log = logging.getLogger("surgery")


@dataclass(frozen=True)
class Plan(Cuts):
    """Which channels go, what is folded where, which numbers change; made before anything is cut.

    It prints, explains (`explain`), saves (`to_json`, `from_json`), masks (`mask`, `mask_`) and is applied to any model
    with the same weights (`apply`, `apply_`).
    """

    def apply(
        self, model: nn.Module, example_inputs: Example | None = None, example_kwargs: Mapping[str, Any] | None = None
    ) -> nn.Module:
        """The slim model; the given one is left as it is. `apply(m)` is `shrink(mask(m)).model`.

        Args:
            model: The model that the plan was made for, or one with the same weights.
            example_inputs: With inputs the result is proven against the masked model; without, a log line says so.
            example_kwargs: Keyword inputs.

        Raises:
            PlanError: The model has other tensors, shapes or (where constants were folded) other weights.
            CheckError: The proof failed.
        """
        return self._apply(bake(model), example_inputs, example_kwargs)

    def apply_(
        self, model: nn.Module, example_inputs: Example | None = None, example_kwargs: Mapping[str, Any] | None = None
    ) -> nn.Module:
        """`apply`, in place. Nothing is changed where the plan does not fit."""
        self.fits(self.mask(model))
        if example_inputs is not None:
            self.apply(model, example_inputs, example_kwargs)
        bake_(model)
        return cut_(self.as_cut(self.mask_(model)), self)

    def replay_(self, fresh: nn.Module) -> nn.Module:
        """A fresh model of the class in the shapes, and with the numbers, of the slim one: weights are to be loaded.

        Nothing is asked of the weights that it has; it may be on the meta device.

        Raises:
            PlanError: It lacks a tensor of the plan, or has it in another shape.
        """
        for bias in self.made:
            fold_(fresh, Fold(bias, (0.0,) * self.shapes[bias][0]))
        return cut_(self.as_cut(self.mask_(fresh)), self)

    def as_cut(self, model: nn.Module) -> nn.Module:
        """The model itself without the modules that go as a whole, or its captured graph, where that is cut."""
        left = shorten_(model, self.bypasses, self.renumbered)
        return left if self.graph is None else graph_again(left, self.graph)

    def _apply(
        self, masked: nn.Module, example_inputs: Example | None, example_kwargs: Mapping[str, Any] | None
    ) -> nn.Module:
        self.mask_(masked)
        self.fits(masked)
        if example_inputs is None:
            _log.warning("the slim model was not proven: Plan.apply was given no example_inputs")
            return cut_(self.as_cut(masked), self)
        inputs = Inputs.of(example_inputs, example_kwargs)
        whole, wide = self.as_cut(bake(masked)), float64_copy(masked)
        # the example that a graph is captured with again has the model's own precision
        left64 = shorten_(bake(wide), self.bypasses, self.renumbered)
        whole64 = left64 if self.graph is None else rebound(whole, left64).double()
        slim, slim64 = cut_(whole, self), cut_(whole64, self)
        proof = prove(masked, slim, inputs, masked64=wide, slim64=slim64)
        if not proof.passed:
            raise CheckError(f"the slim model is not the masked one: {proof}", "make the plan again from this model")
        return slim

    def fits(self, masked: nn.Module) -> None:
        """Whether the constants in the plan are this model's.

        Raises:
            PlanError: Some weights are not those that the constants were computed from.
        """
        tensors = self.tensors_of(masked)
        changed = [name for name, expected in self.checksums.items() if checksum(tensors[name]) != expected]
        changed = [name for name in changed if not name.endswith("num_batches_tracked")]
        if changed:
            raise PlanError(
                f"the plan folds constants of other weights: {', '.join(changed[:3])}"
                + (f" and {len(changed) - 3} more changed" if len(changed) > 3 else " changed"),
                "make the plan again, or call shrink(plan.mask(model), example_inputs) to fold the constants of today",
            )
