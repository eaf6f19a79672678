"""What a transformers config can say: which of its numbers stand for which sizes, and which numbers fit a slim model.

Nothing is known of any architecture here. A number is doubled, the model is built without weights, and the sizes that
change are those that the number stands for.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from torch import nn

from surgery.coupling import Coupling
from surgery.deciding.widths import Likeness, Rule, axes_of_groups

Axis = tuple[str, int]
"""A tensor's name, and one of its dims."""

Shapes = Mapping[str, tuple[int, ...]]
Key = tuple[str | int, ...]
Number = int | float

FACTORS = (2, 3)
"""What a number is multiplied by to see what it stands for: by one alone it may come to equal another."""

MOST_TRIED = 40
"""How many configs are looked at that bring a slim model's tensors closer to their shapes."""

AT_MOST = 400
"""How many numbers of a config are tried at most: lists of layers can make it long."""


NOT_IN_CONFIG = "kept, for the model's config has no number for this width"


@dataclass(frozen=True)
class Setting:
    """A number in a config: where it stands (`("vision_config", "hidden_sizes", 2)`), and what it is."""

    key: Key
    value: Number

    def __str__(self) -> str:
        return ".".join(map(str, self.key))

    def put(self, config: Any, value: Number) -> Any:
        """A copy of the config with another number there."""
        changed = copy.deepcopy(config)
        *way, last = self.key
        entry: Any = value
        if isinstance(last, int):  # of a list, which is set as a whole: a tuple cannot be written into
            whole = changed
            for step in way:
                whole = whole[step] if isinstance(whole, dict) else getattr(whole, str(step))
            entry = [value if i == last else known for i, known in enumerate(whole)]
            *way, last = way
        holder = changed
        for step in way:
            holder = holder[step] if isinstance(holder, dict) else getattr(holder, str(step))
        if isinstance(holder, dict):
            holder[last] = entry
        else:
            setattr(holder, str(last), entry)
        with quiet():
            return type(config).from_dict(changed.to_dict())  # as `from_pretrained` will read it


Changes = tuple[tuple[Setting, Number], ...]
"""Numbers of a config that become others."""


@dataclass(frozen=True)
class Configured:
    """A class of transformers models, with the config of one of them."""

    kind: type[nn.Module]
    config: Any

    @classmethod
    def of(cls, model: nn.Module) -> Configured | None:
        """None for a model that is not of transformers (which is then not imported), or whose class is not its own."""
        transformers = sys.modules.get("transformers")
        if transformers is None or not isinstance(model, transformers.PreTrainedModel):
            return None
        return cls(type(model), model.config)

    def with_(self, config: Any) -> Configured:
        """The same class with another config."""
        return Configured(self.kind, config)

    def empty(self) -> nn.Module:
        """The model without weights.

        Raises:
            Exception: The class refuses the config; it may be any.
        """
        with quiet(), torch.device("meta"):
            return self.kind(copy.deepcopy(self.config))

    def shapes(self) -> Shapes:
        """The shapes of all tensors of its state."""
        return {name: tuple(tensor.shape) for name, tensor in self.empty().state_dict().items()}

    def settings(self) -> tuple[Setting, ...]:
        """Every number that could stand for a size."""
        return tuple(setting for setting in _numbers(self.config.to_dict(), ()) if setting.value >= 1)[:AT_MOST]

    def spoken(self) -> Configured:
        """The same model with what its config leaves open (`head_dim`: None) put into words.

        That is a size of the model, or a number that modules keep under that name, which makes no difference where
        another does.
        """
        model, shapes, said = self.empty(), self.shapes(), self
        sizes = {size for shape in shapes.values() for size in shape if size > 1}
        for name in [key for key, value in self.config.to_dict().items() if value is None]:
            kept = {value for module in model.modules() if type(value := vars(module).get(name)) is int and value > 1}
            if said._differs(name, 2 * max(sizes | kept), shapes):
                for value in sorted(kept | sizes):
                    if said._differs(name, value, shapes) is False:
                        said = said.with_(Setting((name,), value).put(said.config, value))
                        break
        return said

    def _differs(self, name: str, value: int, shapes: Shapes) -> bool | None:
        """Whether a number makes other shapes; None where the class refuses it."""
        try:
            return self.with_(Setting((name,), value).put(self.config, value)).shapes() != shapes
        except Exception:  # in words of its own
            return None

    @cached_property
    def sized_by(self) -> dict[Axis, frozenset[Key]]:
        """For every axis that some number of the config stands for, those numbers."""
        before = self.shapes()
        found: dict[Axis, set[Key]] = {}
        for setting, times in product(self.settings(), FACTORS):
            try:
                after = self.with_(setting.put(self.config, times * setting.value)).shapes()
            except Exception:  # the class refuses such a number, in words of its own
                continue
            for name in before.keys() & after.keys():
                if len(before[name]) == len(after[name]):
                    for dim, (old, new) in enumerate(zip(before[name], after[name], strict=True)):
                        if old != new:
                            found.setdefault((name, dim), set()).add(setting.key)
        return {axis: frozenset(keys) for axis, keys in found.items()}

    def rule(self, without: Collection[Key] = ()) -> Rule:
        """Groups that the same numbers of the config stand for are alike; those that it has none for stay whole.

        Args:
            without: Numbers that stay as they are.
        """
        sized, without = self.sized_by, frozenset(without)

        def rule(coupling: Coupling) -> Likeness:
            alike: dict[frozenset[frozenset[Key]], list[int]] = {}
            whole = []
            for group, axes in enumerate(axes_of_groups(coupling)):
                said = {sized.get((axis.name, axis.dim), frozenset()) for axis in axes}
                if any(not numbers or numbers & without for numbers in said):
                    whole.append(group)
                elif said:
                    alike.setdefault(frozenset(said), []).append(group)
            pairs = tuple(np.array(groups) for groups in alike.values() if len(groups) > 1)
            return Likeness(pairs, np.array(whole, np.int64), NOT_IN_CONFIG)

        return rule

    def fitting(self, slim: nn.Module, floats: Mapping[float, float]) -> Iterator[Any]:
        """Configs that make a model of the slim one's shapes; whether one computes the same is for the caller to see.

        Sizes that shrank say by how much a number may have. Those that bring the most tensors to their shapes are taken
        over, until all fit; then others are tried, for fewer heads and narrower ones may make the same shapes.

        Args:
            slim: The slim model.
            floats: Numbers that the cut changed in modules, old to new (the eps of norms).
        """
        wanted = {name: tuple(tensor.shape) for name, tensor in slim.state_dict().items()}
        if not self._uniform(wanted):
            return
        start = self
        for setting in _numbers(self.config.to_dict(), ()):
            if isinstance(setting.value, float) and setting.value in floats:
                start = start.with_(setting.put(start.config, floats[setting.value]))
        sizing = frozenset(key for keys in self.sized_by.values() for key in keys)
        seen: list[dict[str, Any]] = []
        waiting = [start]
        while waiting and len(seen) < MOST_TRIED:
            here = waiting.pop()
            if (plain := here.config.to_dict()) in seen:
                continue
            seen.append(plain)
            left = here._misfit(wanted)
            if left == 0:
                yield here.config
            elif left is not None:
                found = here._further(wanted, left, sizing)
                waiting += [further for _, further in sorted(found, key=lambda each: -each[0])]

    def _uniform(self, wanted: Shapes) -> bool:
        """Whether all that the same numbers stand for, and that was as wide, is as wide still; else none can say it."""
        widths: dict[tuple[frozenset[Key], int], set[int]] = {}
        for name, shape in self.shapes().items():
            now = wanted.get(name, ())
            if len(now) != len(shape):
                return False
            for dim, (old, new) in enumerate(zip(shape, now, strict=True)):
                keys = self.sized_by.get((name, dim), frozenset())
                widths.setdefault((keys, old), set() if keys else {old}).add(new)
        return all(len(found) == 1 for found in widths.values())

    def _further(self, wanted: Shapes, left: int, sizing: Collection[Key]) -> list[tuple[int, Configured]]:
        """With one number changed, or two where one alone does not help: those that bring tensors to their shapes."""
        single = [changes for changes in self._steps(wanted) if changes[0][0].key in sizing]
        found = self._better(single, wanted, left)
        pairs = ((*a, *b) for a, b in combinations(single, 2) if a[0][0].key != b[0][0].key)
        return found or self._better(pairs, wanted, left)

    def _steps(self, wanted: Shapes) -> Iterator[Changes]:
        """Numbers that may have changed, each with what it may be now."""
        pairs = {
            (old, new)
            for name, shape in self.shapes().items()
            for old, new in zip(shape, wanted.get(name, shape), strict=False)
            if old != new
        }
        for setting in self.settings():
            whole = isinstance(setting.value, int)
            for value in sorted({setting.value * new / old for old, new in pairs}):
                if value >= 1 and (not whole or value == int(value)):
                    yield ((setting, int(value) if whole else value),)

    def _better(self, tried: Iterable[Changes], wanted: Shapes, left: int) -> list[tuple[int, Configured]]:
        """The changes after which fewer tensors have another shape, each with its misfit."""
        found = []
        for changes in tried:
            try:
                config = self.config
                for setting, value in changes:
                    config = setting.put(config, value)
                misfit = self.with_(config)._misfit(wanted)
            except Exception:  # the class refuses such a number, in words of its own
                continue
            if misfit is not None and misfit < left:
                found.append((misfit, self.with_(config)))
        return found

    def _misfit(self, wanted: Shapes) -> int | None:
        """How many tensors have another shape; None where the tensors are others."""
        shapes = self.shapes()
        if shapes.keys() != wanted.keys():
            return None
        return sum(shapes[name] != wanted[name] for name in wanted)


def _numbers(plain: Any, key: Key) -> Iterator[Setting]:
    """Every number in plain data, with the way to it."""
    children: Iterator[tuple[str | int, Any]]
    if isinstance(plain, dict):
        children = iter(plain.items())
    elif isinstance(plain, list | tuple):
        children = iter(enumerate(plain))
    else:
        if isinstance(plain, int | float) and not isinstance(plain, bool) and key:
            yield Setting(key, plain)
        return
    for name, value in children:
        yield from _numbers(value, (*key, name))


@contextmanager
def quiet() -> Iterator[None]:
    """Without what transformers logs and draws of configs and weights that are about to be judged."""
    import transformers

    logging: Any = transformers.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
