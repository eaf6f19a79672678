"""What a parameter can wear (a mask, a parametrization), and how to take it off without changing the function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils import _pytree as pytree

from surgery.caches import forget_
from surgery.errors import InputError
from surgery.masks.hooks import carry_hooks_
from surgery.masks.standardised import become_plain_, is_standardised, originals, standardised_weight

PRUNE = "torch.nn.utils.prune"


@dataclass(frozen=True)
class Coats:
    """Which parameters wore what.

    `by_kind` maps a kind (`"torch.nn.utils.prune"`, `"weight_norm"`, `"spectral_norm"`, `"weight_standardisation"`,
    or the class name of a parametrization, as `"FakeSparsity"`) to the names of the parameters. `untied` names those
    that shared a tensor with another parameter under a different mask: they are two different weights, and separate
    ones after baking.
    """

    by_kind: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    untied: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every parameter that wore something, once."""
        return tuple(dict.fromkeys(name for names in self.by_kind.values() for name in names))

    def __bool__(self) -> bool:
        return bool(self.by_kind)

    def __str__(self) -> str:
        lines = [f"{kind}: {', '.join(names)}" for kind, names in self.by_kind.items()]
        if self.untied:
            lines.append(f"shared before, apart now (their masks differ): {', '.join(self.untied)}")
        return "\n".join(lines) or "every parameter is plain"


def find_coats(model: nn.Module) -> Coats:
    """What the parameters of the model wear; the model is not touched."""
    return _record([coat for kind_of_coat in LAYERS for coat in kind_of_coat(model)])


def worn(model: nn.Module) -> dict[str, tuple[str, tuple[Tensor, ...]]]:
    """The kind of every coat, and the tensors under it, by the name that the parameter has without it."""
    return {coat.path: (coat.kind, coat.originals) for layer in LAYERS for coat in layer(model)}


def bake(model: nn.Module) -> nn.Module:
    """A deep copy of the model in which every mask is plain zeros in a plain `nn.Parameter`.

    Works where `copy.deepcopy` fails: a model fresh from `torch.nn.utils.prune` holds tensors that are not leaves of
    the autograd graph. See `bake_` for what is kept.

    Raises:
        InputError: the model holds something that cannot be copied.
    """
    memo: dict[int, Any] = {}
    kept_alive = []
    for module in model.modules():
        for leaf in pytree.tree_leaves(list(vars(module).values())):
            if isinstance(leaf, Tensor) and not leaf.is_leaf:
                memo[id(leaf)] = leaf.detach().clone()
                kept_alive.append(leaf)
    try:
        copied = copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(
            f"the model cannot be copied: {first_line}", "remove what holds it, or work in place (inplace=True)"
        ) from error
    bake_(copied)
    forget_(copied)
    return carry_hooks_(model, copied)


def bake_(model: nn.Module) -> Coats:
    """Take off every coat in place, and say what was found.

    Known coats: hooks of `torch.nn.utils.prune`, the hooks of the old `weight_norm` and `spectral_norm`, every
    `torch.nn.utils.parametrize` parametrization, and timm's convolutions with weight standardisation (they become
    plain ones). The parameter gets the value that the model computes with in eval mode, its name, dtype, device and
    `requires_grad`. Parameters that were one tensor under equal masks stay one. All other hooks, flags and attributes
    stay. A parameter masked by one tensor (`weight_orig`) stays the same object, so that an optimizer goes on with it.
    """
    found: list[_Coat] = []
    untied: list[str] = []
    for kind_of_coat in LAYERS:
        coats = list(kind_of_coat(model))
        found += coats
        untied += _take_off_(model, coats)
    return _record(found, untied)


@dataclass(frozen=True)
class _Coat:
    """One parameter in one coat. `value()` is what the model computes with; `remove_()` leaves no trace of the coat."""

    path: str  # "conv1.weight"
    kind: str
    module: nn.Module
    name: str  # "weight"
    originals: tuple[Tensor, ...]
    value: Callable[[], Tensor]
    remove_: Callable[[], None]


def _record(coats: list[_Coat], untied: list[str] | None = None) -> Coats:
    by_kind: dict[str, list[str]] = {}
    for coat in coats:
        by_kind.setdefault(coat.kind, []).append(coat.path)
    return Coats({kind: tuple(names) for kind, names in by_kind.items()}, tuple(untied or ()))


def _take_off_(model: nn.Module, coats: list[_Coat]) -> list[str]:
    """Give every module its plain parameter; returns the names that had to be untied."""
    with torch.no_grad():
        values = [coat.value().detach().clone() for coat in coats]
    worn: dict[tuple[int, ...], list[int]] = {}
    for position, coat in enumerate(coats):
        worn.setdefault(tuple(map(id, coat.originals)), []).append(position)
    places: dict[int, int] = {}
    for module in model.modules():
        for tensor in [*module._parameters.values(), *module._buffers.values()]:
            places[id(tensor)] = places.get(id(tensor), 0) + 1

    plain: dict[int, Tensor] = {}
    untied = []
    for positions in worn.values():
        originals = coats[positions[0]].originals
        shared_bare = len(originals) == 1 and places.get(id(originals[0]), 0) > len(positions)
        made: list[Tensor] = [originals[0]] if shared_bare else []
        for position in positions:
            value = values[position]
            same = next((tensor for tensor in made if _equal(tensor, value)), None)
            if same is None:
                if made:
                    untied.append(coats[position].path)
                same = _plain(originals, value, reuse=not made)
                made.append(same)
            plain[position] = same
    for coat in coats:  # all of them first: a class with two parametrized tensors is itself again only after both
        coat.remove_()
    for position, coat in enumerate(coats):
        _register_(coat.module, coat.name, plain[position])
    return untied


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and not a.is_meta and torch.equal(a, b)


def _plain(originals: tuple[Tensor, ...], value: Tensor, *, reuse: bool) -> Tensor:
    """The parameter (or buffer) that takes the value: the original object where there is one of the same kind."""
    if not isinstance(originals[0], nn.Parameter):
        return value
    if reuse and len(originals) == 1 and originals[0].shape == value.shape and originals[0].dtype == value.dtype:
        originals[0].data = value
        return originals[0]
    return nn.Parameter(value, requires_grad=any(tensor.requires_grad for tensor in originals))


def _register_(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Register the tensor under its name, in the place of the plain attribute that the coat left there."""
    module.__dict__.pop(name, None)
    if isinstance(tensor, nn.Parameter):
        setattr(module, name, tensor)  # not register_parameter: recurrent modules keep a list of theirs in step
    else:
        module.register_buffer(name, tensor)


def _prefixed(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _hooks(model: nn.Module, kind: type) -> Iterator[tuple[str, nn.Module, int, Any]]:
    """Path, module, key and hook of every forward pre-hook of one kind."""
    for path, module in model.named_modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, kind):
                yield path, module, key, hook


def _drop_hook_(module: nn.Module, key: int) -> None:
    module._forward_pre_hooks.pop(key)
    module._forward_pre_hooks_with_kwargs.pop(key, None)


def _pruned(model: nn.Module) -> Iterator[_Coat]:
    """`weight_orig` (a parameter), `weight_mask` (a buffer), `weight` (their product, made anew before each call)."""
    for path, module, key, hook in _hooks(model, BasePruningMethod):
        name = hook._tensor_name

        def remove_(module: nn.Module = module, key: int = key, name: str = name) -> None:
            _drop_hook_(module, key)
            del module._parameters[name + "_orig"], module._buffers[name + "_mask"]

        def value(module: nn.Module = module, hook: Any = hook) -> Tensor:
            return cast("Tensor", hook.apply_mask(module))

        original = module._parameters[name + "_orig"]
        assert original is not None, "torch.nn.utils.prune registers a tensor"
        yield _Coat(_prefixed(path, name), PRUNE, module, name, (original,), value, remove_)


def _weight_normed(model: nn.Module) -> Iterator[_Coat]:
    """The old weight_norm: `weight_g` (lengths), `weight_v` (directions), `weight` made before each call."""
    for path, module, key, hook in _hooks(model, WeightNorm):
        name = hook.name
        g, v = getattr(module, name + "_g"), getattr(module, name + "_v")

        def remove_(module: nn.Module = module, key: int = key, name: str = name) -> None:
            _drop_hook_(module, key)
            del module._parameters[name + "_g"], module._parameters[name + "_v"]

        def value(module: nn.Module = module, hook: Any = hook) -> Tensor:
            return cast("Tensor", hook.compute_weight(module))

        yield _Coat(_prefixed(path, name), "weight_norm", module, name, (g, v), value, remove_)


def _spectral_normed(model: nn.Module) -> Iterator[_Coat]:
    """The old spectral_norm: `weight_orig`, and the buffers `weight_u`, `weight_v` of its power iteration."""
    for path, module, key, hook in _hooks(model, SpectralNorm):
        name = hook.name

        def remove_(module: nn.Module = module, key: int = key, name: str = name) -> None:
            _drop_hook_(module, key)
            del module._parameters[name + "_orig"], module._buffers[name + "_u"], module._buffers[name + "_v"]
            # torch's own remove_spectral_norm misses the second one, since torch wraps it
            for hooks in (module._state_dict_hooks, module._load_state_dict_pre_hooks):
                for other, found in list(hooks.items()):
                    found = getattr(found, "hook", found)
                    if isinstance(owner := getattr(found, "fn", None), SpectralNorm) and owner.name == name:
                        del hooks[other]

        def value(module: nn.Module = module, hook: Any = hook) -> Tensor:
            return cast("Tensor", hook.compute_weight(module, do_power_iteration=False))

        original = getattr(module, name + "_orig")
        yield _Coat(_prefixed(path, name), "spectral_norm", module, name, (original,), value, remove_)


def _parametrized(model: nn.Module) -> Iterator[_Coat]:
    """`torch.nn.utils.parametrize`: the module's class is replaced by one that computes the tensor when it is read."""
    for path, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        lists = cast("nn.ModuleDict", module.parametrizations)
        for name, steps in lists.items():
            assert isinstance(steps, parametrize.ParametrizationList), "torch registers a ParametrizationList"
            originals = (steps.original,) if steps.is_tensor else _several(steps)
            # two kinds of the old style have a successor here: same word for the same thing
            kinds = [type(step).__name__.lstrip("_") for step in steps]
            kind = " + ".join({"WeightNorm": "weight_norm", "SpectralNorm": "spectral_norm"}.get(k, k) for k in kinds)

            def remove_(module: nn.Module = module, lists: nn.ModuleDict = lists, name: str = name) -> None:
                # not torch's remove_parametrizations: it deletes the property from the class, which a deep copy shares
                del lists[name]
                if not len(lists):
                    del module._modules["parametrizations"]
                    module.__class__ = type(module).__bases__[0]

            def value(steps: parametrize.ParametrizationList = steps) -> Tensor:
                return cast("Tensor", steps.eval()())  # eval: spectral_norm iterates while it trains

            yield _Coat(_prefixed(path, name), kind, module, name, originals, value, remove_)


def _several(steps: parametrize.ParametrizationList) -> tuple[Tensor, ...]:
    return tuple(getattr(steps, f"original{position}") for position in range(steps.ntensors))


def _standardised(model: nn.Module) -> Iterator[_Coat]:
    """Weight standardisation: the convolution's own forward standardises its weight, and becomes a plain one."""
    for path, module in model.named_modules():
        if is_standardised(module):

            def remove_(module: nn.Module = module) -> None:
                become_plain_(module)
                module._parameters.pop("weight", None)

            def value(module: nn.Module = module) -> Tensor:
                return standardised_weight(module)

            name = _prefixed(path, "weight")
            yield _Coat(name, "weight_standardisation", module, "weight", originals(module), value, remove_)


LAYERS = (_pruned, _weight_normed, _spectral_normed, _parametrized, _standardised)
"""From the inside out: a mask on `weight_v` counts before the norm that uses it."""
