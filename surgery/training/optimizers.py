"""An optimizer goes on with the slim model: its parameters are the slim ones, its state is cut as they are."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer

from surgery.deciding.cuts import Cuts
from surgery.errors import InputError, PlanError
from surgery.masks import worn
from surgery.training.tensors import POWERS, TensorCuts

_log = logging.getLogger("surgery")

Kind = TypeVar("Kind", bound=Optimizer)

MASKS = ("torch.nn.utils.prune", "FakeSparsity")
"""Coats under which the gradient is the weight's, but for zeros where the mask has them: the state goes on."""

FLAT = "prev_flat_grad"
"""What tells LBFGS: its state is of all parameters laid end to end."""


@dataclass(frozen=True, eq=False)
class _Place:
    """One place in a group of an optimizer.

    Attributes:
        key: What its state is found by: a parameter, or its number in a state_dict; None for a bias that a fold made.
        name: The slim model's name of it; None where the parameter is not the model's.
        goes_on: Whether its state does.
        label: What the optimizer called it; None where it is called by `name`.
        renamed: Whether it had another name in the model before the cut.
    """

    key: Any
    name: str | None
    goes_on: bool = True
    label: str | None = None
    renamed: bool = False


Parameters = Mapping[str, nn.Parameter]
"""The parameters of the slim model under all of their names, in its order."""


def cut_optimizer_(optimizer: Kind, plan: Cuts, slim: nn.Module, *, of: nn.Module | None = None) -> Kind:
    """Cut an optimizer as its model was cut, in place: schedulers and gradient scalers hold on to it.

    What the optimizer holds of each parameter is gathered as the parameter was (`torch.optim`'s, and any other whose
    state has the parameter's shape), numbers stay, Adafactor's row and column factors are gathered along the dims that
    they have. Groups keep their order and settings. A tied parameter stays one. A bias that a fold made joins the group
    that holds all other biases, where there is one, else that of its weight. Parameters of anything but the model
    (a criterion's) stay. A weight that wore a norm (weight norm, spectral norm) is a parameter of another kind: it
    takes the place of what it was computed from, and starts afresh. Parameters of modules that went as a whole leave
    (where the model was cut in place, without `of`, they stay as somebody else's; without gradients they do not move).

    Training goes on as that of the masked model would, step by step, where the dead channels' rows, biases, shifts and
    consumers' columns are zero and held zero: for every optimizer that treats each element by itself (SGD, Adam, AdamW,
    Adamax, NAdam, RAdam, RMSprop, Adagrad, Adadelta, ASGD, Rprop). Also where norms over whole tensors (LARS, LAMB) or
    over all of them (clipping) count, if the gradients of the masked model's dead channels are zero, as they are behind
    an activation that is zero at zero: zeros add nothing to a norm. It does not where

    * constants were folded: what they were computed from is gone and does not move any more. BatchNorm in training mode
      is a case of it: a dead channel's shift was folded as it comes out in eval mode. With a gain and a shift of zero
      nothing is folded, and training mode agrees;
    * the plan multiplies a parameter by f (`plan.scales`: RMSNorm gains, the queries of narrower heads). Its gradient
      is divided by f, and its moments are made to fit, but relative to it a step is 1/f² (SGD) or 1/f (Adam) of what
      it was;
    * dropout draws its random numbers by shape;
    * a step depends on how many elements a parameter has (Adafactor's, Muon's).

    Args:
        optimizer: The optimizer of the model before the cut.
        plan: What was cut: `result.plan`, or the plan that was applied.
        slim: The model to go on with: `result.model`, what `plan.apply` returned, or the model that was cut in place.
        of: The model that the optimizer was made for, where `slim` is not that very model, cut in place.

    Returns:
        The optimizer given.

    Raises:
        InputError: No optimizer, a state that cannot be cut (it is named), parameters that cannot be matched.
        PlanError: `slim` was not cut by this plan.
    """
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"{type(optimizer).__name__} is no torch.optim.Optimizer", "give the one that it wraps")
    cuts, parameters = TensorCuts(plan), dict(slim.named_parameters(remove_duplicate=False))
    heirs = _heirs(slim if of is None else of, parameters, cuts)
    held = [
        [
            place
            for p, label in zip(group["params"], _labels(group), strict=True)
            for place in _labelled(heirs.get(id(p), [_Place(p, None)]), label)
        ]
        for group in optimizer.param_groups
    ]
    if of is None:
        _refuse_strangers(held, parameters, cuts)
    groups = _arranged(held, parameters, cuts)
    states = _states(optimizer.state, groups, cuts)
    old = {id(p) for group in optimizer.param_groups for p in group["params"]}
    apart = {key: value for key, value in optimizer.state.items() if id(key) not in old}
    optimizer.state.clear()
    optimizer.state.update(apart)
    for group, places in zip(optimizer.param_groups, groups, strict=True):
        group["params"][:] = [place.key if place.name is None else parameters[place.name] for place in places]
        if "param_names" in group:
            group["param_names"] = [place.label or place.name for place in places]
        for place, p in zip(places, group["params"], strict=True):
            if place in states:
                optimizer.state[p] = states[place]
    return optimizer


def cut_optimizer_state(
    state_dict: Mapping[str, Any], plan: Cuts, slim: nn.Module, names: Sequence[str | None] | None = None
) -> dict[str, Any]:
    """Cut the state_dict of an optimizer, as a checkpoint holds it: `cut_optimizer_` for parameters by number.

    What comes out loads into an optimizer over the slim model's parameters in the same groups and the same order. A
    bias that a fold made stands where the slim model has it among the others of its group.

    Args:
        state_dict: What `optimizer.state_dict()` returned; it is left as it is.
        plan: What was cut.
        slim: The slim model.
        names: The names of the parameters in the order that the optimizer got them, over all groups, None for what is
            not the model's. Without, those that the optimizer was given (`param_names`), or, with one group of all
            parameters, the model's order.

    Raises:
        InputError: No optimizer's state_dict, names that do not fit, a state that cannot be cut (it is named).
        PlanError: `slim` was not cut by this plan.
    """
    if not {"state", "param_groups"} <= set(state_dict):
        keys = ", ".join(map(repr, list(state_dict)[:5]))
        raise InputError(
            f"this is no optimizer's state_dict: it has {keys}", "give what optimizer.state_dict() returns"
        )
    cuts, parameters = TensorCuts(plan), dict(slim.named_parameters(remove_duplicate=False))
    groups = state_dict["param_groups"]
    numbers = [number for group in groups for number in group["params"]]
    named = dict(zip(numbers, _names(groups, names, len(numbers), slim, cuts), strict=True))
    unknown = [name for name in named.values() if name is not None and name not in parameters and name not in cuts.gone]
    if unknown:
        raise InputError(f"the slim model has no parameter {unknown[0]!r}", "name them as the slim model does")
    for number, name in named.items():
        if name is None:
            continue
        momenta = (kept for key, kept in state_dict["state"].get(number, {}).items() if key in POWERS)
        wrong = [list(kept.shape) for kept in momenta if kept is not None and tuple(kept.shape) != cuts.before(name)]
        if wrong and (before := cuts.before(name)) is not None:
            raise InputError(
                f"parameter {number} has moments of {wrong[0]}, {name} was {list(before)} before the cut",
                "give names=[...], in the order in which the optimizer got them",
            )
    held = [
        [
            _Place(number, named[number], label=label)
            for number, label in zip(group["params"], _labels(group), strict=True)
            if named[number] not in cuts.gone
        ]
        for group in groups
    ]
    arranged = _arranged(held, parameters, cuts)
    states = _states(state_dict["state"], arranged, cuts)
    made: dict[str, Any] = {**state_dict, "state": {}, "param_groups": []}
    count = 0
    for group, places in zip(groups, arranged, strict=True):
        there = {**group, "params": list(range(count, count + len(places)))}
        if "param_names" in group:
            there["param_names"] = [place.label or place.name for place in places]
        made["param_groups"].append(there)
        made["state"] |= {count + at: states[place] for at, place in enumerate(places) if place in states}
        count += len(places)
    return made


def _heirs(model: nn.Module, parameters: Parameters, cuts: TensorCuts) -> dict[int, list[_Place]]:
    """By the identity of a model's parameter, what stands for it in the slim model (nothing for parts of a norm)."""
    coats = worn(model)
    under = {id(tensor) for _, originals in coats.values() for tensor in originals}
    found: dict[int, dict[str, _Place]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        here = found.setdefault(id(p), {})
        if name in parameters:
            here[name] = _Place(p, name)
        elif id(p) not in under and name not in cuts.gone:
            raise PlanError(f"the slim model has no {name}", "give the model that it was cut from (of=)")
    for name, (kind, originals) in coats.items():
        goes_on = kind in MASKS and len(originals) == 1
        for original in originals:
            if name in parameters and id(original) in found:
                found[id(original)][name] = _Place(original, name, goes_on, renamed=True)
    taken: set[int] = set()
    heirs: dict[int, list[_Place]] = {}
    for key, places in found.items():
        heirs[key] = []
        for name, place in places.items():  # a tied parameter has several names, and a norm several originals
            if id(parameters[name]) not in taken:
                taken.add(id(parameters[name]))
                heirs[key].append(place)
    return heirs


def _refuse_strangers(groups: Iterable[Iterable[_Place]], parameters: Parameters, cuts: TensorCuts) -> None:
    """Parameters of something else are fine, and so are some that nobody trains; both at once are another model's."""
    strangers = [place.key for group in groups for place in group if place.name is None]
    held = {id(place.key) for group in groups for place in group}
    idle = [name for name, p in parameters.items() if p.requires_grad and id(p) not in held and name not in cuts.made]
    if strangers and idle:
        raise InputError(
            f"the optimizer holds {len(strangers)} parameters that the model does not have (the first is "
            f"{list(strangers[0].shape)}), and not the model's {idle[0]}",
            "give the model that the optimizer was made for (of=; the slim model itself, where it was cut in place and "
            "this is meant); where norms on weights were taken off in place, make a new optimizer",
        )


def _arranged(groups: list[list[_Place]], parameters: Parameters, cuts: TensorCuts) -> list[list[_Place]]:
    """The groups with the biases that folds made, each where the model has it among the others of its group.

    Raises:
        PlanError: A parameter has not the shape that the plan leaves.
    """
    for place in (place for group in groups for place in group):
        after = None if place.name is None else cuts.after(place.name)
        if place.name is not None and after is not None and after != tuple(parameters[place.name].shape):
            raise PlanError(
                f"{place.name} is {list(parameters[place.name].shape)}, the plan leaves {list(after)}",
                "give the model that this plan was applied to",
            )
    groups = [list(group) for group in groups]
    order = {name: at for at, name in enumerate(parameters)}
    of_biases = [any((place.name or "").endswith("bias") for place in group) for group in groups]
    for bias in sorted(cuts.made & set(parameters), key=order.__getitem__):
        beside = bias.removesuffix("bias") + "weight"
        homes = [n for n, group in enumerate(groups) if any(_is(place, beside, parameters) for place in group)]
        if not homes:
            continue  # its weight is not trained
        home = of_biases.index(True) if sum(of_biases) == 1 else homes[0]
        later = (n for n, place in enumerate(groups[home]) if order.get(place.name or "", -1) > order[bias])
        groups[home].insert(next(later, len(groups[home])), _Place(None, bias))
        _log.info("%s, made by a fold, joins parameter group %d of the optimizer", bias, home)
    return groups


def _is(place: _Place, name: str, parameters: Parameters) -> bool:
    """Whether a place holds the parameter of this name, or one that is tied to it."""
    return place.name is not None and parameters[place.name] is parameters.get(name)


def _states(state: Mapping[Any, Any], groups: Iterable[Iterable[_Place]], cuts: TensorCuts) -> dict[_Place, Any]:
    """What becomes of the state of every parameter that goes on and has one."""
    if any(isinstance(kept, Mapping) and FLAT in kept for kept in state.values()):
        raise InputError(
            "the optimizer's state is of all parameters laid end to end, as LBFGS keeps it",
            "make a new optimizer over the slim model: its memory of steps is short",
        )
    made: dict[_Place, Any] = {}
    seen: set[Any] = set()
    for place in (place for group in groups for place in group):
        if place.key is None or place.key not in state or not place.goes_on:
            continue
        kept = state[place.key] if place.name is None else cuts.state(place.name, state[place.key])
        # two that were one before their masks were taken off
        made[place] = copy.deepcopy(kept) if place.key in seen else kept
        seen.add(place.key)
    return made


def _labels(group: Mapping[str, Any]) -> list[str | None]:
    """What the optimizer calls the parameters of a group."""
    return list(group.get("param_names", [None] * len(group["params"])))


def _labelled(places: list[_Place], label: str | None) -> list[_Place]:
    """The first parameter that keeps its name is called what the optimizer calls it."""
    return [replace(place, label=None if n or place.renamed else label) for n, place in enumerate(places)]


def _names(
    groups: Sequence[Mapping[str, Any]],
    names: Sequence[str | None] | None,
    count: int,
    slim: nn.Module,
    cuts: TensorCuts,
) -> Sequence[str | None]:
    """The names of the parameters that a state_dict has by number, in its order."""
    if names is None and all("param_names" in group for group in groups):
        names = [name for group in groups for name in group["param_names"]]
    if names is None:
        own = [name for name in cuts.order_before(slim) if name not in cuts.made]
        if len(groups) != 1 or len(own) != count:
            held = f"{count} parameters in {len(groups)} groups without names, the model had {len(own)}"
            raise InputError(
                f"the state_dict holds {held}", "give names=[...], in the order in which the optimizer got them"
            )
        names = own
    if len(names) != count:
        raise InputError(f"{len(names)} names for {count} parameters", "name each, over all groups, in order")
    return names
