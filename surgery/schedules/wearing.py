"""Masks of `torch.nn.utils.prune` on a net that trains: put on, tightened, read off; weights put back under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from surgery.deciding.cuts import Cuts, zero_
from surgery.deciding.steps import named_by
from surgery.errors import InputError
from surgery.masks import worn
from surgery.masks.coats import PRUNE
from surgery.masks.keep import full_masks
from surgery.schedules.how import Unstructured
from surgery.tensors import named_tensors


@dataclass(frozen=True, eq=False)
class Worn:
    """A weight that can be masked.

    Attributes:
        path: Its name without a mask, `"conv1.weight"`.
        module, name: Where it is.
    """

    path: str
    module: nn.Module
    name: str

    @property
    def masked(self) -> bool:
        """Whether it wears a mask."""
        return f"{self.name}_mask" in self.module._buffers

    @property
    def values(self) -> Tensor:
        """The weight under its mask."""
        found = getattr(self.module, f"{self.name}_orig" if self.masked else self.name)
        assert isinstance(found, Tensor), "weights are tensors"
        return found

    @property
    def keep(self) -> Tensor:
        """What its mask keeps, bool; all, where it wears none."""
        if not self.masked:
            return torch.ones_like(self.values, dtype=torch.bool)
        mask: Tensor = getattr(self.module, f"{self.name}_mask")
        return mask != 0

    def tighten_(self, keep: Tensor) -> None:
        """Keep no more than this; what is masked already stays so."""
        if not self.masked:
            prune.custom_from_mask(self.module, self.name, keep)
            return
        mask = getattr(self.module, f"{self.name}_mask")
        mask.logical_and_(keep.to(mask.device))
        # what `torch.nn.utils.prune` computes before each call: whoever reads the weight before that gets the new one
        setattr(self.module, self.name, self.values * mask)


def products(model: nn.Module, protect: Sequence[str] = ()) -> list[Worn]:
    """The weights that products are computed with: of linear layers, convolutions, attention and recurrent ones.

    Not those of norms and tables, nor any that wears something else than a mask, nor any that is shared.

    Raises:
        InputError: A name to protect is of nothing.
    """
    coats = worn(model)
    under = {id(tensor) for kind, originals in coats.values() if kind != PRUNE for tensor in originals}
    places = _places(model)
    shared = _shared(places)
    stay = set(named_by(protect, model, [*places, *named_tensors(model)]))
    return [
        one
        for path, one in places.items()
        if "weight" in one.name
        and one.values.dim() > 1
        and not isinstance(one.module, nn.Embedding | nn.EmbeddingBag)
        and id(one.values) not in shared
        and id(one.values) not in under
        and one.values.is_floating_point()
        and path not in stay
    ]


def share_masked(weights: Sequence[Worn]) -> float:
    """The share of weights that masks hold at zero."""
    total = sum(one.values.numel() for one in weights)
    return sum(int((~one.keep).sum()) for one in weights) / max(total, 1)


def sparsify_(model: nn.Module, amount: float, how: Unstructured | None = None) -> nn.Module:
    """Mask the least important weights, in place, until this share of all is masked; masks only get tighter.

    The masks are those of `torch.nn.utils.prune`; the magnitudes of what is left are compared (Han et al. 2015).

    Args:
        model: The net, with masks or without.
        amount: The share of the weights of products (linear layers, convolutions, attention, recurrent ones).
        how: Which of them; by default the smallest of all layers together.

    Returns:
        The net given.

    Raises:
        InputError: No share in [0, 1); there is nothing to mask; a weight is not finite.
    """
    how = how or Unstructured()
    if not 0 <= amount < 1:
        raise InputError(f"amount is {amount!r}", "give the share that is to go, from 0 to below 1")
    weights = products(model, how.protect)
    if not weights:
        fact = f"{type(model).__name__} has no weight of a linear layer or a convolution that could be masked"
        raise InputError(fact, "protect less, or take norms on weights off (surgery.shrink bakes them)")
    generator = torch.Generator().manual_seed(how.seed)
    for some in [weights] if how.global_ else [[one] for one in weights]:
        keeps = [one.keep.flatten() for one in some]
        keep = torch.cat(keeps)
        wanted = round(amount * keep.numel()) - int((~keep).sum())
        if wanted > 0:
            scores = _scores(some, how, generator)
            # torch's own choice of the smallest, among those that are left
            chosen = prune.L1Unstructured(amount=wanted).compute_mask(scores[keep], torch.ones_like(scores[keep]))
            keep = keep.clone()
            keep[keep.clone()] = chosen != 0
        for one, own in zip(some, keep.split([len(part) for part in keeps]), strict=True):
            one.tighten_(own.view_as(one.values))
    return model


def _scores(weights: Sequence[Worn], how: Unstructured, generator: torch.Generator) -> Tensor:
    if how.importance == "random":
        return torch.cat([torch.rand(one.values.numel(), generator=generator) for one in weights]).to(
            weights[0].values.device
        )
    for one in weights:
        if not one.values.isfinite().all():
            raise InputError(f"{one.path} holds NaN or infinity", "train it again: no magnitude can be told")
    return torch.cat([one.values.detach().abs().flatten() for one in weights])


def keep_masks(model: nn.Module) -> dict[str, Tensor]:
    """What the masks of `torch.nn.utils.prune` on a net keep: True stays, by the names of the weights.

    `surgery.wear_` puts them on another net of the class, `shrink(keep_masks=)` and `analyze(keep_masks=)` take them.
    """
    return {path: one.keep for path, one in _places(model).items() if one.masked}


def wear_(model: nn.Module, masks: Mapping[str, Tensor] | Cuts) -> nn.Module:
    """Put masks of `torch.nn.utils.prune` on a net, in place; masks that it wears already only get tighter.

    With the masks that one training found, a net can be trained from its start: what they hold stays zero.

    Args:
        model: The net, in the shapes that the masks have.
        masks: True (or 1) stays: by parameter name (full shape, or one entry per row) or module name, as
            `surgery.keep_masks` and `shrink(keep_masks=)` have them; or a plan, whose channels are held at zero as
            `plan.mask` zeroes them.

    Returns:
        The net given.

    Raises:
        InputError: A mask is of nothing in the net, has another shape or other values than 0 and 1; or would lie on a
            weight that modules share, or that wears something else.
        PlanError: The plan is of another net.
    """
    places = _places(model)
    values = {path: one.values for path, one in places.items()}
    keeps = _of_plan(masks, model, values) if isinstance(masks, Cuts) else full_masks(masks, model, values)
    shared = _shared(places)
    under = {path for path, (kind, _) in worn(model).items() if kind != PRUNE}
    for path in keeps:
        if path in under:
            raise InputError(f"{path} wears a norm or a parametrization", "take it off first: surgery.shrink does")
        if id(places[path].values) in shared:
            names = " and ".join(shared[id(places[path].values)])
            fact = f"{names} are one parameter, on which no mask of torch.nn.utils.prune can lie"
            raise InputError(fact, "mask another one, or cut (plan.apply, Structured(cut=True))")
    for path, keep in keeps.items():
        places[path].tighten_(keep)
    return model


def _places(model: nn.Module) -> dict[str, Worn]:
    """Every parameter, by its name without a mask."""
    found: dict[str, Worn] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            base = name.removesuffix("_orig") if f"{name.removesuffix('_orig')}_mask" in module._buffers else name
            if parameter is not None:
                full = ".".join(filter(None, (path, base)))
                found[full] = Worn(full, module, base)
    return found


def _shared(places: Mapping[str, Worn]) -> dict[int, list[str]]:
    """The names of every parameter that several modules hold; a module that is called twice is one."""
    names: dict[int, list[str]] = {}
    for path, one in places.items():
        names.setdefault(id(one.values), []).append(path)
    return {key: some for key, some in names.items() if len(some) > 1}


def _of_plan(plan: Cuts, model: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks of all that a plan zeroes in parameters."""
    keeps: dict[str, Tensor] = {}
    for zeros in plan.zeros:
        if zeros.name not in values or tuple(values[zeros.name].shape) != plan.shapes.get(zeros.name):
            has = list(values[zeros.name].shape) if zeros.name in values else "no such parameter"
            raise InputError(
                f"the plan masks {zeros.name} of {list(plan.shapes.get(zeros.name, ()))}, the model has {has}",
                "give the model that the plan was made for",
            )
        zero_(keeps.setdefault(zeros.name, torch.ones_like(values[zeros.name], dtype=torch.bool)), zeros)
    return keeps


def rewind_(model: nn.Module, early: Mapping[str, Tensor]) -> nn.Module:
    """Put a net back to early values, in place; the masks that it wears stay. (Frankle & Carbin 2019.)

    An optimizer keeps what it learnt: make a new one.

    Args:
        model: The net, with masks or without.
        early: A `state_dict` of it, taken down before it was masked or since: parameters and buffers, of which all but
            masks are written.

    Returns:
        The net given.

    Raises:
        InputError: A value is missing, or has another shape. Nothing is written then.
    """
    state = model.state_dict(keep_vars=True)
    writes: list[tuple[Tensor, Tensor]] = []
    masks = {f"{name}_mask" for name in keep_masks(model)}
    originals = {f"{name}_orig": name for name in keep_masks(model)}
    for name, tensor in state.items():
        if name in masks or not isinstance(tensor, Tensor):
            continue
        base = originals.get(name, name)
        value = early.get(base, early.get(f"{base}_orig"))
        if value is None:
            raise InputError(f"the early values have no {base!r}", "give what model.state_dict() returned early")
        if value.shape != tensor.shape:
            fact = f"{base} is {list(tensor.shape)}, its early value {list(value.shape)}"
            raise InputError(fact, "rewind before channels are cut: masks hold them meanwhile (cut=False)")
        writes.append((tensor, value))
    with torch.no_grad():
        for tensor, value in writes:
            tensor.copy_(value)
        for one in _places(model).values():
            if one.masked:
                setattr(one.module, one.name, one.values * getattr(one.module, f"{one.name}_mask"))
    return model


def early_values(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers as they are now, for `rewind_`, on the CPU; masks left out."""
    masks, state = keep_masks(model), model.state_dict()
    originals = {f"{name}_orig": name for name in masks}
    return {
        originals.get(name, name): value.detach().to("cpu", copy=True)
        for name, value in state.items()
        if name.removesuffix("_mask") not in masks or not name.endswith("_mask")
    }
