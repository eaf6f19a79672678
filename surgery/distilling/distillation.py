"""The door: a teacher and how much it counts, for any training loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from surgery.analysis.capture import evaluating
from surgery.deciding.cuts import Cuts
from surgery.distilling.losses import feature_error, soft_targets, squared_error
from surgery.distilling.matching import Match, Matcher
from surgery.distilling.targets import (
    KINDS,
    Asked,
    Kind,
    class_dim_of,
    counted,
    distilled,
    kind_of,
    labels_of,
)
from surgery.distilling.watching import Features, listening
from surgery.errors import InputError, first_line
from surgery.inputs import Inputs


class Distillation:
    """A student learns from a teacher: what is added to the loss of a training loop.

    ```python
    distillation = surgery.Distillation(dense, temperature=4.0, weight=0.9)
    for x, y in loader:
        with distillation.watching(student):
            outputs = student(x)
            loss = distillation(outputs, (x,), task_loss=F.cross_entropy(outputs, y), targets=y)
        ...
    ```

    The loss is `(1 - weight) · task_loss + weight · T² · KL(teacher ∥ student)` (Hinton, Vinyals, Dean 2015); without
    a task loss the soft targets stand alone. Where a model's outputs are numbers rather than scores of classes, the
    mean squared difference stands in the place of the second term (Ba and Caruana 2014, who match logits so, too).
    Features add `feature_weight` times their mean error (FitNets, Romero et al. 2015); the plan says which channels of
    the teacher's the student's are, so that no regressor is learnt between them.

    The teacher is asked in eval mode without gradients, and is left as it is: one that lies on another device is
    copied there. It is given the student's inputs, floating-point ones in its own dtype.
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        temperature: float = 4.0,
        weight: float = 0.9,
        features: Iterable[str] | None = None,
        feature_weight: float = 1.0,
        plan: Cuts | Sequence[Cuts] | None = None,
        kind: Kind | None = None,
        output: str | int | None = None,
        class_dim: int | None = None,
        ignore_index: int = -100,
        name: str | None = None,
    ) -> None:
        """Nothing is computed yet.

        Args:
            teacher: The model to learn from, such as the dense one.
            temperature: T: the higher, the more the classes count that the teacher thinks less likely.
            weight: The share of the teacher in the loss, from 0 to 1.
            features: Names of modules, the same in teacher and student, whose outputs are to agree.
            feature_weight: What the mean error of the features is multiplied by.
            plan: The plan that cut the student from the teacher; several that followed each other in that order. Only
                features ask for it.
            kind: Whether outputs are scores of "classes" or "values" that are themselves the answer. By default
                classes; values where there is one number a sample.
            output: Which of several outputs, by name or place; by default `logits`, or the first of a tuple.
            class_dim: The dim of the classes; by default the one that the labels have not, or the last.
            ignore_index: Positions with this label do not count, nor do those that an attention mask leaves out.
            name: What to call the teacher in records; by default its class.

        Raises:
            InputError: A setting is out of its range.
        """
        if not isinstance(teacher, nn.Module):
            raise InputError(f"the teacher is a {type(teacher).__name__}", "pass an nn.Module")
        _check(temperature > 0 and math.isfinite(temperature), "temperature", temperature, "a number above 0")
        _check(0 <= weight <= 1, "weight", weight, "a share from 0 to 1")
        _check(feature_weight >= 0 and math.isfinite(feature_weight), "feature_weight", feature_weight, "0 or more")
        _check(kind is None or kind in KINDS, "kind", kind, f"one of {', '.join(KINDS)}")
        if isinstance(features, str):
            raise InputError(f"features is the text {features!r}", f"pass a list of names: [{features!r}]")
        self.teacher, self.name = teacher, name or type(teacher).__name__
        self.temperature, self.weight, self.feature_weight = float(temperature), float(weight), float(feature_weight)
        self.features = tuple(dict.fromkeys(features or ()))
        self.plans = _plans(plan)
        self._asked = Asked(kind, output, class_dim, ignore_index)
        self._kinds: dict[str, Kind] = {}
        self._student: nn.Module | None = None
        self._watched: Features | None = None
        self._matcher: Matcher | None = None
        self._matches: dict[tuple[str, int], Match | None] = {}

    def prepare(self, device: torch.device | str) -> Distillation:
        """Have the teacher on a device; it is copied where it lies on another one.

        Returns:
            Itself.
        """
        device = torch.device(device)
        home = _home(self.teacher)
        if home is None or home == device or (home.type == device.type and device.index is None):
            return self
        if getattr(self.teacher, "hf_device_map", None):  # spread over several on purpose
            return self
        try:
            self.teacher = copy.deepcopy(self.teacher).to(device)
        except Exception as error:
            fact = f"the teacher lies on {home} and cannot be copied to {device}: {first_line(error)}"
            raise InputError(fact, f"move it there yourself: teacher.to({str(device)!r})") from error
        self._matcher, self._matches = None, {}
        return self

    def following(self, plans: Cuts | Sequence[Cuts]) -> Distillation:
        """The same with other plans."""
        other = copy.copy(self)
        other.plans = _plans(plans)
        other._kinds, other._matches = {}, {}
        other._student = other._watched = other._matcher = None
        return other

    def follow_(self, plan: Cuts) -> None:
        """The student was cut once more, by this plan."""
        self.plans = (*self.plans, plan)
        self._matcher, self._matches = None, {}

    @contextmanager
    def watching(self, student: nn.Module) -> Iterator[None]:
        """Inside, the student's features are recorded: for one call of it and one of this object.

        Args:
            student: The model that is trained, not its wrapper of `DistributedDataParallel` or the like.

        Raises:
            InputError: The student is the teacher, shares weights with it that are trained, or lacks a feature.
        """
        if student is not self._student:
            _check_apart(student, self.teacher)
            for name in self.features:
                with listening(self.teacher, [name], "teacher"):
                    pass
        self._student = student
        with listening(student, self.features, "student") as features:
            self._watched = features
            try:
                yield
            finally:
                self._watched = None

    def __call__(
        self,
        outputs: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        task_loss: Tensor | None = None,
        *,
        targets: Any = None,
    ) -> Tensor:
        """The loss of one batch.

        Args:
            outputs: What the student answered.
            args, kwargs: What it was called with; the teacher is called with the same.
            task_loss: Its own loss; None where there are no labels.
            targets: The labels, where they are not among `kwargs`: positions that they leave out do not count.

        Returns:
            A tensor of one number, to be differentiated.

        Raises:
            InputError: The teacher fails on the inputs, or answers in another shape; an output is not what it seems;
                a feature was not called, or the plan does not say which of its channels are which.
        """
        kwargs = dict(kwargs or {})
        mine = distilled(outputs, self._asked)
        self.prepare(next(iter(mine.values())).device)
        call = self._call(args, kwargs)
        with evaluating(self.teacher), torch.no_grad(), listening(self.teacher, self.features, "teacher") as taught:
            try:
                answer = self.teacher(*call.args, **call.kwargs)
            except Exception as error:
                fact = f"the teacher ({type(self.teacher).__name__}) fails on the student's inputs: {first_line(error)}"
                raise InputError(fact, "pass a teacher that takes what the student takes") from error
        wanted = distilled(answer, self._asked)
        total = torch.stack([self._soft(n, mine[n], _alike(n, mine, wanted), targets, kwargs) for n in mine]).mean()
        if task_loss is not None:
            total = self.weight * total
            if self.weight < 1:  # a loss that does not count need not be finite
                total = (1 - self.weight) * task_loss.mean() + total
        if self.features:
            total = total + self.feature_weight * self._features(taught, call)
        return total

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain data."""
        asked = self._asked
        return {
            "teacher": self.name,
            "temperature": self.temperature,
            "weight": self.weight,
            "features": list(self.features),
            "feature_weight": self.feature_weight if self.features else None,
            "kind": asked.kind,
            "output": asked.output,
            "class_dim": asked.class_dim,
            "ignore_index": asked.ignore_index,
        }

    def __str__(self) -> str:
        return told(self.as_dict())

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs:
        """The student's call with floating-point tensors in the teacher's dtype."""
        dtypes = (p.dtype for p in self.teacher.parameters() if p.is_floating_point())
        dtype, given = next(dtypes, None), Inputs(tuple(args), kwargs)
        if not given.tensors():
            raise InputError("the teacher was given no inputs", "pass what the student was called with: args, kwargs")
        return given.map(lambda one: one.to(dtype) if dtype is not None and one.is_floating_point() else one)

    def _soft(self, name: str, mine: Tensor, wanted: Tensor, targets: Any, kwargs: Mapping[str, Any]) -> Tensor:
        if name not in self._kinds:
            self._kinds[name] = kind_of(name, mine, targets, self._asked)
        labels = labels_of(targets, kwargs)
        if self._kinds[name] == "values":
            positions = mine.shape[:-1] if mine.dim() > 1 else mine.shape
            return squared_error(mine, wanted, keep=counted(positions, self._student, labels, kwargs, self._asked))
        dim = class_dim_of(name, mine, labels, self._asked)
        positions = torch.Size([*mine.shape[:dim], *mine.shape[dim + 1 :]])
        keep = counted(positions, self._student, labels, kwargs, self._asked)
        return soft_targets(mine, wanted, temperature=self.temperature, dim=dim, keep=keep)

    def _features(self, taught: Features, call: Inputs) -> Tensor:
        """The mean error of all features."""
        if self._watched is None:
            raise InputError("features were asked for, and the student was not watched", "use watching(student)")
        errors = []
        calls = {name: len(found) for name, found in taught.items()}
        for name, found in self._watched.items():
            if not found or len(found) != calls[name]:
                fact = f"{name!r} was called {len(found)} times in the student, {calls[name]} in the teacher"
                raise InputError(fact, "name modules that both call equally often, with tensors")
            for number, (mine, wanted) in enumerate(zip(found, taught[name], strict=True)):
                if torch.is_grad_enabled() and not mine.requires_grad:
                    fact = f"what {name!r} hands out in the student does not rest on weights that are trained"
                    raise InputError(fact, "name another feature, or use non-reentrant checkpointing")
                match = self._match(name, number, mine, wanted, calls, call)
                kept = wanted if match is None else match.of(wanted)
                errors.append(feature_error(mine, kept.to(mine.device)))
        return torch.stack(errors).mean()

    def _match(
        self, name: str, number: int, mine: Tensor, wanted: Tensor, calls: Mapping[str, int], call: Inputs
    ) -> Match | None:
        """Which of the teacher's channels the student's are, at one call of a module; None for all of them."""
        place = name, number
        if mine.shape != wanted.shape and not self.plans:
            fact = f"the teacher's {name!r} hands out {list(wanted.shape)}, the student's {list(mine.shape)}"
            raise InputError(fact, "say which channels are which: Distillation(..., plan=result.plan)")
        if place not in self._matches:
            if mine.shape != wanted.shape and self._matcher is None:
                self._matcher = Matcher(self.teacher, calls, self.plans, call)
            matcher = self._matcher
            self._matches[place] = None if matcher is None else matcher.match(name, number, wanted, mine)
        return self._matches[place]


def told(settings: Mapping[str, Any]) -> str:
    """The settings of a distillation (`as_dict`) in words."""
    said = f"{settings['teacher']}, temperature {settings['temperature']:g}, weight {settings['weight']:g}"
    features = ", ".join(settings["features"])
    return said + (f", features {features} ({settings['feature_weight']:g})" if features else "")


def _alike(name: str, mine: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """The teacher's output of a name, in the student's shape.

    Raises:
        InputError: There is none.
    """
    named = f"output {name!r}" if name else "output"
    way_out = "pass a teacher for the same task, with the same classes in the same order"
    own = mine[name]
    other = next(iter(wanted.values())) if len(mine) == len(wanted) == 1 else wanted.get(name)  # a tuple has no names
    if other is None:
        raise InputError(f"the teacher has no {named}, only {', '.join(wanted)}", way_out)
    if other.shape != own.shape:
        fact = f"the teacher's {named} is {list(other.shape)}, the student's {list(own.shape)}"
        raise InputError(fact, way_out)
    return other.to(own.device)  # a teacher may be spread over several


def _check_apart(student: nn.Module, teacher: nn.Module) -> None:
    if student is teacher:
        raise InputError("the teacher is the student itself", "pass another model, such as copy.deepcopy(model)")
    held = {id(parameter) for parameter in teacher.parameters()}
    shared = [name for name, p in student.named_parameters() if p.requires_grad and id(p) in held]
    if shared:
        fact = f"the student trains weights that it shares with the teacher: {', '.join(shared[:3])}"
        raise InputError(fact, "give the teacher its own: copy.deepcopy(model)")


def _home(model: nn.Module) -> torch.device | None:
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), None)


def _plans(plan: Cuts | Sequence[Cuts] | None) -> tuple[Cuts, ...]:
    given = (plan,) if isinstance(plan, Cuts) else tuple(plan or ())
    for one in given:
        if not isinstance(one, Cuts):
            raise InputError(f"plan is a {type(one).__name__}", "pass a Plan, such as result.plan, or a list of them")
    return given


def _check(fine: bool, name: str, value: Any, wanted: str) -> None:
    if not fine:
        raise InputError(f"{name} is {value!r}", f"give {wanted}")
