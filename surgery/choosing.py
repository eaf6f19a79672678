"""`surgery.choose`: pick the channels that matter least, of such as can then be cut exactly."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from surgery.budgets import Amount, Budget, within
from surgery.cutting.depth import Shortened
from surgery.cutting.fallback import operate_anyhow
from surgery.cutting.operate import Operation
from surgery.deciding.aims import Aim
from surgery.deciding.build import zeros_of
from surgery.deciding.criteria import Feed, Loss
from surgery.deciding.dead import decide
from surgery.deciding.importance import Importance, check_importance, importance_scores, is_comparable
from surgery.deciding.pick import Floats, Ranking
from surgery.deciding.steps import Limits, Steps, protected
from surgery.deciding.study import Study
from surgery.deciding.widths import ANY, Widths
from surgery.depth import check_depth, less_deep
from surgery.errors import InputError
from surgery.inputs import Example, Inputs
from surgery.layout import Bools
from surgery.masks import bake, check_finite
from surgery.plans import Plan
from surgery.progress import stage
from surgery.streaming import check_held, check_streamable, open_stored, scored
from surgery.streaming import masked as masked_in_files
from surgery.targeting import Aiming, Place, RefusedError, UnreachableError
from surgery.tensors import named_tensors
from surgery.uniform import uniform_widths


def choose(
    model: nn.Module,
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    keep_ratio: float | None = None,
    params: Amount | None = None,
    macs: Amount | None = None,
    size_bytes: Amount | None = None,
    latency: Amount | None = None,
    runtime: str = "eager",
    threads: int = 1,
    importance: str | Importance = "l2",
    data: Any = None,
    loss: Loss | None = None,
    global_: bool | None = None,
    uniform: bool = False,
    round_to: int | None = None,
    min_keep: float = 1,
    protect: Sequence[str] = (),
    keep_class: bool = False,
    depth: float | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Plan:
    """Choose the least important channels, such that they can be cut exactly once they are zeroed.

    Nothing is changed: `plan.mask(model)` zeroes them, `plan.apply(model)` cuts them. At most one of `keep_ratio`,
    `params`, `macs`, `size_bytes` and `latency` says how much is to stay; without any, half of each group does (with
    `depth`, all of what is left).

    A budget is a maximum: the slim model is measured, with all that stays for other reasons, and has no more of it, but
    as little less as the widths allow. It is a share of the dense model in (0, 1], or an absolute number above 1, or
    words: `"50%"`, `"3.5M"`, `"1.2G"`, `"20MB"`, `"20MiB"`.

    A latency is measured, and so is all that leads to it: first how much each group's width weighs on this machine,
    kept in the user's cache folder for the next time (`$SURGERY_CACHE_DIR` names another); then widths are chosen that
    lose least within it (a knapsack; Shen et al. 2022); then slim models are built and measured, and corrected, until
    one is within 5 % of the target. `Plan.aim` tells what was measured, or why nothing came nearer. Ctrl-C loses no
    part of the table: another call goes on from there.

    Args:
        model: The dense model.
        example_inputs: A tensor, or a tuple of the positional inputs; MACs are those of one call on them.
        example_kwargs: Keyword inputs.
        keep_ratio: The share of channels that stays, in (0, 1]: of each group, or of all together with `global_`.
        params: The most numbers in parameters.
        macs: The most multiply-accumulates.
        size_bytes: The most bytes of parameters and buffers.
        latency: The time of a call on the example, beside that of the dense model: `0.5`, `"50%"`, `"12ms"`, `"800us"`.
        runtime: Where that counts: one of the runtimes of `surgery.benchmark`, on the model's device.
        threads: How many threads it has there.
        importance: What a channel is worth; bigger is kept.

            * By the weights: `"l1"`, `"l2"` (the norm of everything that writes the channel), `"bn_scale"`, `"fpgm"`,
              `"lamp"`, or `"random"`.
            * By gradients over `data`: `"taylor"`, `"hessian"`, `"obdc"`.
            * By what flows through it, over `data`: `"wanda"`, `"variance"` (0 for a channel that never changes).
            * A criterion of torch-pruning, or any that was written for its `Importance`: it is called on our groups,
              and finds gradients there if `data` and `loss` are given.
            * A function of the model that returns scores per parameter axis, `{"conv1.weight": [out_channels], ...}`.
            * A `surgery.Sensitivity`: what the model was measured to lose with a channel. Its scores are compared
              between groups as they are, which is what `global_` is for; so are those of a function with an attribute
              `comparable` that is True (NaN: stays).
        data: A DataLoader or another iterable of batches, or a function that returns one; all are looked at. A batch is
            a tensor; a tuple of the model's inputs, as many as the example has, and then the targets; or a dict by the
            names of forward's parameters. One tensor alone is one batch.
        loss: A function of (outputs, targets), the mean over the batch: `torch.nn.functional.cross_entropy`. Targets
            are what follows the inputs in the tuple; of a dict, or a tensor alone, the batch itself. None where the
            model's output has a `loss`, as transformers' do with `labels` in the batch.
        global_: True for one ranking over all groups, by scores over the mean of their group; False for the same share
            of each. None is False, but for a latency: there each group gives up what loses least per millisecond.
        uniform: The same part of every layer stays as wide, and what the config of a model of transformers has no
            number for stays whole (see `shrink`).
        round_to: Widths that stay are multiples of this. None is 1, but for a latency 8, for other widths are slow in
            some runtimes; and 1 where that does not reach it.
        min_keep: At least so many channels of each group stay, or (a float) such a share of them.
        protect: Names of modules and tensors whose shapes stay, `*` for any text: `["head", "layer1.*.conv1"]`.
        keep_class: Choose only what the model's code, as it is, can do without (see `shrink`).
        depth: So many whole blocks of a residual net go first (a float: such a share of them): those without which the
            outputs over `data` change least, or, without data, whose last weights are smallest. What else is chosen, is
            chosen of what is left. A block adds to a value what it computes of it, `x + f(x)`; one whose shortcut has
            weights of its own stays. `shrink(plan.mask(model), ..., depth=True)` is exact.
        seed: Of what is drawn at random.
        checkpoint: For a model on the meta device, a `.safetensors` file or a directory of them, from which weights are
            read one tensor at a time, so that no more memory is needed than for the largest. Only for an importance by
            weights alone. Numbers have the precision that they have there.

    Raises:
        InputError: More than one budget, or one that cannot be reached; a number out of its range; an unknown
            importance, or scores of the wrong shape; names to protect that nothing has; data that is empty, or that the
            model fails on; a loss that fails or is no finite number; fewer blocks than `depth` asks for.
        CaptureError: The model refused the inputs or cannot be captured.
    """
    budget = _budget(keep_ratio, {"params": params, "macs": macs, "size_bytes": size_bytes, "latency": latency})
    roundings = (round_to,) if round_to is not None else (1,) if latency is None else (KIND_TO_KERNELS, 1)
    limits = [Limits(multiple, min_keep) for multiple in roundings]
    if uniform and global_:
        raise InputError("uniform and global_ contradict each other", "choose one: layers alike, or each as it matters")
    if checkpoint is None:
        check_held(model)
    else:
        check_streamable(model, importance, data, uniform=uniform)
    check_importance(importance, data)
    if depth is not None:
        check_depth(depth)
    place = None if latency is None else Place.of(model, runtime, threads)
    study = _study(model, Inputs.of(example_inputs, example_kwargs), checkpoint)
    feed = Feed(list(data) if isinstance(data, Iterator) else data, loss, seed)  # blocks and channels look at it
    short = Shortened.of(study) if depth is None else less_deep(study, depth, feed, protect)
    study = short.study
    if depth is not None and (budget is None or _fits(budget, short)):
        nothing = np.zeros(study.coupling.n_channels, bool)
        return short.told(exact_plan(study, nothing, keep_class=keep_class)[0])
    held = protected(study.model, study.coupling, protect)
    gone = named_tensors(short.before.model).keys() - named_tensors(study.model).keys()
    scores = importance_scores(scored(study), importance, feed, gone)
    ranking = Ranking.of(study.coupling, scores, held, comparable=is_comparable(importance))
    chooser = _Chooser(short, ranking, limits[0], uniform, keep_class)
    if place is not None and isinstance(budget, Budget):
        return chooser.aimed(budget, place, limits, global_=global_)
    if isinstance(budget, Budget):
        return short.told(chooser.within(budget, global_=bool(global_)))
    with stage("choosing"):
        return short.told(chooser.keeping(0.5 if budget is None else budget, global_=bool(global_)).cuts)


KIND_TO_KERNELS = 8
"""Widths that all runtimes are fast on: some are up to twice as slow on others (`benchmarks/widths.py`)."""


def _study(model: nn.Module, inputs: Inputs, checkpoint: str | os.PathLike[str] | None) -> Study:
    """The study of a model, with its own weights or with those of a checkpoint, left where they are."""
    if checkpoint is not None:
        return open_stored(model, inputs, checkpoint)
    check_finite(model)
    with stage("analysing"):
        return Study.of(bake(model), inputs)


def _fits(budget: Budget | float, short: Shortened) -> bool:
    """Whether what is left without some blocks is little enough; of a latency only a clock can tell."""
    if not isinstance(budget, Budget):
        return budget == 1
    if budget.name == "latency":
        return False
    dense, left = (budget.measure(study.model, study.inputs) for study in (short.before, short.study))
    return left <= budget.limit(dense)


def _budget(keep_ratio: float | None, amounts: Mapping[str, Amount | None]) -> Budget | float | None:
    """The one that was given.

    Raises:
        InputError: Several, or a ratio that is none.
    """
    given = {name: amount for name, amount in {"keep_ratio": keep_ratio, **amounts}.items() if amount is not None}
    if len(given) > 1:
        raise InputError(f"{len(given)} budgets were given: {', '.join(given)}", "give one of them")
    if keep_ratio is not None and not 0 < keep_ratio <= 1:
        raise InputError(f"keep_ratio is {keep_ratio}", "give the share of channels to keep, above 0 and at most 1")
    return next((Budget(name, amount) for name, amount in amounts.items() if amount is not None), keep_ratio)


@dataclass(frozen=True)
class _Chooser:
    """From the shares of groups that are to go to plans that can be carried out."""

    short: Shortened
    ranking: Ranking
    limits: Limits
    uniform: bool
    keep_class: bool

    @property
    def study(self) -> Study:
        """Of the model without the blocks that go whole."""
        return self.short.study

    def keeping(self, keep_ratio: float, *, global_: bool) -> Operation[Plan]:
        """The operation that keeps such a share of the channels."""
        if not global_:
            return self.operation(self.limits.shares(self.ranking.sizes, keep_ratio))
        steps = Steps.of(self.ranking, self.limits, global_=True)
        total = int(self.ranking.sizes[np.unique(self.ranking.group)].sum())
        gone = np.cumsum(np.append(0, steps.channels))
        return self.operation(steps.shares(int((gone <= total * (1 - keep_ratio) + 1e-9).sum()) - 1))

    def within(self, budget: Budget, *, global_: bool) -> Plan:
        """The plan of the most that leaves no more than a budget."""
        model, inputs = self.short.before.model, self.study.inputs
        steps = Steps.of(self.ranking, self.limits, global_=global_, together=self.uniform)

        def attempt(shares: Floats) -> tuple[Plan, int]:
            done = self.operation(shares)
            return done.cuts, budget.measure(done.slim, inputs)

        return within(budget, budget.measure(model, inputs), steps, attempt, fill=not self.uniform)

    def aimed(self, budget: Budget, place: Place, limits: Sequence[Limits], *, global_: bool | None) -> Plan:
        """The plan that has a latency, by the first of some limits that reach it, or by those that come closest."""
        found: list[tuple[Aim, Plan]] = []
        for number, allowed in enumerate(limits, 1):
            order = None
            if self.uniform or global_ is not None:
                order = Steps.of(self.ranking, allowed, global_=bool(global_), together=self.uniform)
            attempt = replace(self, limits=allowed).operation
            key = f"{self.uniform} {self.keep_class}"
            aiming = Aiming(self.short.before, self.study, self.ranking, allowed, budget, place, attempt, order, key)
            try:
                done, aim = aiming.aimed()
            except (UnreachableError, RefusedError):
                if number == len(limits) and not found:
                    raise
                continue
            found.append((aim, done.cuts))
            if aim.reached or (aim.off < 0 and not aim.tried):
                break
        aim, cuts = min(found, key=lambda one: abs(one[0].off))
        return replace(self.short.told(cuts), aim=aim)

    def operation(self, shares: Floats) -> Operation[Plan]:
        """The operation by which such shares of the groups go, as far as they can."""
        study, chosen, widths = self.study, self.ranking.chosen(shares), Widths()

        def attempt(asked: Widths) -> Operation[Plan]:
            return exact_operation(study, chosen, widths=asked, keep_class=self.keep_class)[0]

        if self.uniform:
            widths = uniform_widths(study.model, study.inputs, 1, attempt, plain_too=not self.short.bypasses)
        done, carriers = exact_operation(study, chosen, widths=widths, keep_class=self.keep_class)
        if self.limits.round_to == 1:
            return done
        # a carrier takes one of the places in a rounded width
        chosen = self.ranking.chosen(shares, carriers)
        return attempt(replace(widths, multiple=self.limits.round_to))


def exact_plan(
    study: Study, chosen: Bools, *, widths: Widths = ANY, dead_too: bool = False, keep_class: bool = False
) -> tuple[Plan, Bools]:
    """The plan that cuts the chosen channels, less those that could not go exactly; and its carriers, `[n_channels]`.

    With `dead_too` it cuts what is dead beside them, as well: that is not zeroed, for it asks for nothing.
    """
    done, carriers = exact_operation(study, chosen, widths=widths, dead_too=dead_too, keep_class=keep_class)
    return done.cuts, carriers


def exact_operation(
    study: Study, chosen: Bools, *, widths: Widths = ANY, dead_too: bool = False, keep_class: bool = False
) -> tuple[Operation[Plan], Bools]:
    """As `exact_plan`: the operation of which it is the plan."""
    columns = np.zeros_like(chosen)
    while True:
        masked, chosen, columns = zeroed_exactly(study, chosen, columns, widths=widths, dead_too=dead_too)
        allowed = None if dead_too else chosen
        done = operate_anyhow(masked, Plan, allowed=allowed, columns=columns, widths=widths, keep_class=keep_class)
        carriers = _carriers_of(masked, done)
        final = chosen & (~done.alive | carriers)
        if np.array_equal(final, chosen):
            return done, carriers
        chosen, columns = final, columns & final


def zeroed_exactly(
    study: Study, chosen: Bools, columns: Bools, *, widths: Widths = ANY, dead_too: bool = False
) -> tuple[Study, Bools, Bools]:
    """`(the study of a masked copy, the channels zeroed in it, those that are zeroed where they are read, too)`.

    Chosen channels are zeroed where they are written. Those that something would still notice are zeroed where they
    are read, too; those that stay all the same are dropped from the choice, until what is zeroed is what goes (or
    stays to carry a constant).
    """
    while True:
        masked = _zeroed(study, chosen, columns)
        decision = decide(masked.case, allowed=None if dead_too else chosen, widths=widths)
        zeroed = ~decision.alive | decision.carrying(masked.readings)
        blocked = chosen & ~zeroed
        if not blocked.any():
            return masked, chosen, columns
        # read all the same: zero the columns that read them; if that was done already, they stay
        chosen, columns = (chosen, blocked) if not columns.any() else (chosen & zeroed, columns & zeroed)


def _carriers_of(study: Study, done: Operation[Plan]) -> Bools:
    """Carriers of a finished operation, `[n_channels]`."""
    found = np.zeros(study.coupling.n_channels, bool)
    by_weight = {reading.weight_name: reading for reading in study.readings if reading.weight_name}
    for carry in done.cuts.carries:
        reading = by_weight[carry.weight]
        found[reading.channels.ravel()[carry.onto]] = True
    return found


def _zeroed(study: Study, chosen: Bools, columns: Bools) -> Study:
    """The study of a copy whose chosen channels are zero; the study itself where none are."""
    if not chosen.any():
        return study
    zeros = tuple(zeros_of(study.program, study.coupling, chosen, columns))
    if study.stored:
        return masked_in_files(study, zeros)
    model = copy.deepcopy(study.model)
    masked = study.with_weights_of(model)
    Plan(axes=(), zeros=zeros).mask_(model)
    return masked
