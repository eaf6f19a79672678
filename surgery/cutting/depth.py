"""Depth: a model without the modules that nothing would miss, and how it is made again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from surgery.analysis.capture import prepared
from surgery.analysis.constants import constants
from surgery.analysis.recording import opened
from surgery.analysis.unchanged import Unchanged
from surgery.caches import is_cache
from surgery.cutting.bypassing import shorten_
from surgery.cutting.numbering import renumberings
from surgery.cutting.twins import sharing_copy
from surgery.deciding.bypasses import Bypass, Give, goes_whole
from surgery.deciding.checksums import checksum
from surgery.deciding.cuts import Cuts
from surgery.deciding.parts import Edit, Zeros
from surgery.deciding.spare import Spare, spare_modules
from surgery.deciding.study import Study
from surgery.errors import CaptureError, InputError, first_line
from surgery.inputs import Inputs

C = TypeVar("C", bound=Cuts)

FRESH = 11
"""The seed of the second call that is listened to: what is equal by chance in the example is not in that."""

MISPLACED = "the cache of keys and values asks its place how long it is"
COUNTED = "layers behind it compute with their number"

MOST_TRIED = 64
"""Where the model fails without all of them, so many modules are tried one by one."""


@dataclass(frozen=True)
class Shortened:
    """A study of what is left where whole modules are gone.

    Attributes:
        before: Of the model with them.
        study: Of the model without them, over the same tensors.
        bypasses: What stands in their place.
        renumbered: Places in a cache that are others now.
        zeros: What `mask` sets to zero so that they could go.
        checksums: Of the tensors in them, where these zeros alone would not do.
        refused: Modules that do nothing and stay all the same, each with the reason.
    """

    before: Study
    study: Study
    bypasses: tuple[Bypass, ...] = ()
    renumbered: tuple[Edit, ...] = ()
    zeros: tuple[Zeros, ...] = ()
    checksums: Mapping[str, int] = field(default_factory=dict)
    refused: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(study: Study, refused: Iterable[tuple[str, str]] = ()) -> Shortened:
        """Nothing is gone."""
        return Shortened(study, study, refused=tuple(refused))

    def shorten_(self, model: nn.Module) -> nn.Module:
        """Take the same modules out of another model with the same code, in place."""
        return shorten_(model, self.bypasses, self.renumbered)

    def told(self, cuts: C) -> C:
        """Cuts of the model without the modules, as cuts of the one with them."""
        return replace(
            cuts,
            bypasses=self.bypasses,
            renumbered=self.renumbered,
            zeros=(*self.zeros, *cuts.zeros),
            checksums={**cuts.checksums, **self.checksums},
        )


def idle(study: Study, staying: Mapping[str, str] | None = None) -> Spare:
    """The modules of a model that nothing would miss, but for some that stay for other reasons."""
    return spare_modules(study.model, study.unchanged, staying)


def shortened(study: Study, staying: Mapping[str, str] | None = None) -> Shortened:
    """The study of a model without the modules that nothing would miss.

    A module goes where what it hands out is, for every input, one of its arguments (`x + f(x)` where f(x) is zero) or
    zeros that are added to something, or is asked for by nobody else: that is read off the captured graph. Which
    argument it is, two calls of the model tell. The model without them has to answer as before.

    Args:
        study: Of the model with them.
        staying: Modules that stay for other reasons, each with the reason.
    """
    model, inputs = study.model, study.inputs
    expected: list[Tensor] = []
    staying = dict(staying or {})
    while True:
        spare = idle(study, staying)
        if not spare.paths:
            return Shortened.of(study, spare.refused)
        expected = expected or _answers(model, inputs)
        bypasses, failed = _bypasses(study, spare)
        failed = failed or _failing(model, inputs, bypasses, expected)
        numbers, misplaced = renumberings(model, spare.paths)
        failed = failed or dict.fromkeys(misplaced, MISPLACED)
        if not failed and numbers and not _works(model, inputs, bypasses, numbers, expected):
            failed = dict.fromkeys(spare.paths, COUNTED)
        if failed:
            staying |= failed
            continue
        try:
            after = Study.of(shorten_(sharing_copy(model), bypasses, numbers), inputs)
        except (CaptureError, InputError) as error:
            staying |= dict.fromkeys(spare.paths, error.fact)
            continue
        zeros = _zeros(model, bypasses)
        sums = _checksums(study, bypasses, {one.name for one in zeros})
        return Shortened(study, after, tuple(bypasses), tuple(numbers), zeros, sums, spare.refused)


def _bypasses(study: Study, spare: Spare) -> tuple[list[Bypass], dict[str, str]]:
    """What could stand in the place of modules, and those for which nothing was found, each with the reason."""
    ears = {path: _Ear(silent=path in spare.silent) for path in spare.paths}
    model = study.model
    with prepared(model), torch.no_grad(), ExitStack() as hooks:
        for path, ear in ears.items():
            module = model.get_submodule(path)
            hooks.callback(module.register_forward_hook(ear.heard, with_kwargs=True).remove)
        for inputs in (study.inputs, study.inputs.fresh(FRESH)):
            try:
                inputs.call(model)
            except Exception as error:  # whatever a model raises on values that were drawn
                if inputs is study.inputs:
                    return [], dict.fromkeys(ears, f"the model fails: {first_line(error)}")
    made: list[Bypass] = []
    failed: dict[str, str] = {}
    for path, ear in ears.items():
        why = ear.refusal()
        if why:
            failed[path] = why
            continue
        module = model.get_submodule(path)
        places = [other for other, one in model.named_modules(remove_duplicate=False) if one is module]
        own = [(name, tuple(parameter.shape)) for name, parameter in module.named_parameters()]
        shapes = {f"{place}.{name}": shape for place in (path, *places) for name, shape in own}
        gives = ear.gives()
        alone = ear.alone and gives == (Give(source=0),) and ear.form == "tensor"
        made.append(Bypass(path, gives, ear.form, alone, shapes, _why(gives)))
    return made, failed


def _why(gives: Sequence[Give]) -> str:
    if all(give.source is not None for give in gives):
        return "what it hands out is what it is given"
    return "all that it hands out is zero, or nobody reads it"


class _Ear:
    """Listens to the calls of one module (mutable); a silent one hands out zeros."""

    def __init__(self, *, silent: bool) -> None:
        self.silent = silent
        self.form = ""
        self.alone = True
        self.options: list[list[Give]] = []
        self.trouble = ""
        self.called = False

    def heard(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        """One call: what of that which was handed out could be handed out without the module."""
        forms: dict[type, str] = {tuple: "tuple", list: "list"}
        form = "tensor" if isinstance(output, Tensor) else forms.get(type(output), "")
        parts = [output] if form == "tensor" else list(output) if form else []
        if not form or not all(part is None or isinstance(part, Tensor) for part in parts):
            self.trouble = f"it hands out a {type(output).__name__}, which is no tensor and no tuple of tensors"
            return
        given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        tensors = [(key, value) for key, value in given if isinstance(value, Tensor)]
        self.alone = self.alone and len(args) == 1 and not kwargs
        options = [_options(part, tensors, silent=self.silent) for part in parts]
        if not self.called:
            self.form, self.options, self.called = form, options, True
        elif form != self.form or len(options) != len(self.options):
            self.trouble = "it hands out something else at each call"
        else:
            both = zip(self.options, options, strict=True)
            self.options = [[give for give in before if give in now] for before, now in both]

    def refusal(self) -> str:
        """Why nothing can stand in its place; "" where something can."""
        if not self.called and not self.trouble:
            return "it is never called as a module"
        return self.trouble

    def gives(self) -> tuple[Give, ...]:
        """The best for each value."""
        return tuple(options[0] for options in self.options)


def _options(part: Tensor | None, given: Sequence[tuple[int | str, Tensor]], *, silent: bool) -> list[Give]:
    """What may be handed out for a value, the best first (what is zero may be equal to an argument by chance)."""
    if part is None:
        return [Give()]
    alike = [(key, value) for key, value in given if value.shape == part.shape and value.dtype == part.dtype]
    found = [Give(source=key) for key, value in alike if torch.equal(value, part)]
    floating = next((value for _, value in given if value.is_floating_point()), None)
    zeros = [Give(zeros=part.dim())] if floating is not None and floating.dtype == part.dtype else []
    if silent and bool((part == 0).all()):
        found = [*zeros, *found]
    # nobody reads it, if it is neither: so says the graph
    found += [Give(source=key) for key, _ in alike if Give(source=key) not in found]
    return list(dict.fromkeys([*found, *zeros, Give()]))


def _failing(model: nn.Module, inputs: Inputs, made: Sequence[Bypass], expected: Sequence[Tensor]) -> dict[str, str]:
    """Those without which the model does not answer as before: none, or what stands out one after the other."""
    if _works(model, inputs, made, (), expected):
        return {}
    why = "the model's code does not run, or not as before, without it"
    good: list[Bypass] = []
    for bypass in made[:MOST_TRIED]:
        if _works(model, inputs, [*good, bypass], (), expected):
            good.append(bypass)
    kept = {bypass.module for bypass in good}
    return {bypass.module: why for bypass in made if bypass.module not in kept}


def _works(
    model: nn.Module, inputs: Inputs, bypasses: Sequence[Bypass], numbers: Sequence[Edit], expected: Sequence[Tensor]
) -> bool:
    try:
        found = _answers(shorten_(sharing_copy(model), bypasses, numbers), inputs)
    except Exception:  # whatever the model's code raises where it meets something else
        return False
    same = zip(found, expected, strict=False)
    return len(found) == len(expected) and all(a.shape == b.shape and _close(a, b) for a, b in same)


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether two outputs agree to rounding (the proof looks closer): kernels may differ."""
    if not a.is_floating_point():
        return torch.equal(a, b)
    finite = b[torch.isfinite(b)].abs()
    room = 1e3 * torch.finfo(b.dtype).eps * (float(finite.max()) if finite.numel() else 1.0)
    return torch.allclose(a, b, rtol=0, atol=room, equal_nan=True)


def _answers(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """What a model answers, and what is left of the inputs: code behind what hands them on may write into them."""
    fed = inputs.map(torch.clone)
    with prepared(model), torch.no_grad():
        output = model(*fed.args, **fed.kwargs)
    leaves = pytree.tree_leaves(opened(output), is_leaf=is_cache)
    return [*(leaf for leaf in leaves if isinstance(leaf, Tensor)), *fed.tensors()]


def _zeros(model: nn.Module, bypasses: Sequence[Bypass]) -> tuple[Zeros, ...]:
    """The parameters in modules that go which are zero: they make them do nothing."""
    found = []
    for bypass in bypasses:
        for name, parameter in model.get_submodule(bypass.module).named_parameters():
            if parameter.dim() and parameter.is_floating_point() and bool((parameter == 0).all()):
                found.append(Zeros(f"{bypass.module}.{name}", 0, tuple(range(parameter.shape[0]))))
    return tuple(found)


def _checksums(study: Study, bypasses: Sequence[Bypass], zeros: AbstractSet[str]) -> dict[str, int]:
    """The sums of all tensors in modules that go, where they could not for other values of those that are not zero."""
    program = study.program
    inside = {name for name in program.tensors if goes_whole(bypasses, name)}
    free = {name for name in inside - zeros if isinstance(program.tensors[name], nn.Parameter)}
    others = replace(program, mutated=program.mutated | free)
    there = spare_modules(study.model, Unchanged.of(others, constants(others))).paths
    if all(any(bypass.module == path or bypass.module.startswith(f"{path}.") for path in there) for bypass in bypasses):
        return {}
    return {name: checksum(program.tensors[name]) for name in sorted(inside)}
