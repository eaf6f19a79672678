"""Aiming: build, measure, correct, until the slim model itself has the latency that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from torch import nn

from surgery.budgets import Budget
from surgery.cutting.operate import Operation
from surgery.deciding.aims import WITHIN, Aim
from surgery.deciding.build import sides_of
from surgery.deciding.cuts import Cuts
from surgery.deciding.pick import Floats, Ranking
from surgery.deciding.steps import Limits, Steps
from surgery.deciding.study import Study
from surgery.deciding.widths import axes_of_groups
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.latency.machine import this_machine
from surgery.progress import bar
from surgery.targeting.clock import PAIRS, SECONDS, SLIM, Clock, Place, RefusedError, time_beside
from surgery.targeting.knapsack import cheapest
from surgery.targeting.loss import Widths
from surgery.targeting.store import Reading
from surgery.targeting.table import GRID, Measuring, kinds_of
from surgery.tensors import named_tensors

C = TypeVar("C", bound=Cuts)

CLOSE = 0.015
"""A slim model this close to the target, over it, is not improved on."""

SLACK = 0.01
"""The target is aimed at from below: this much of it is left for what a later measurement may say."""

MOST_TRIED = 8
"""So many slim models are built at most."""

COARSE = (4, 8, 12)
"""Of `GRID` parts of the way down, where all groups are narrowed alike to see how latency follows."""


Family = Callable[[float], Floats]
"""The shares of the groups that are gone, by how far the whole model has come down, in 0 (dense) to 1 (narrowest)."""


class UnreachableError(InputError):
    """A latency below that of the narrowest model."""


@dataclass(frozen=True)
class Tried(Generic[C]):
    """A slim model that was built: how far down, what was measured, and how far that is off the target, over it."""

    way: float
    cut: Operation[C]
    reading: Reading
    off: float

    @property
    def miss(self) -> float:
        """How far it is from where the search aims."""
        return abs(self.off + SLACK)


@dataclass(frozen=True)
class Aiming(Generic[C]):
    """The search for the plan that has a latency.

    Attributes:
        dense: Of the dense model, which latencies are beside.
        study: Of what is left of it without the blocks that go whole; the same where there are none.
        ranking: What can be picked, in what order.
        limits: What the widths have to be.
        budget: The latency that is asked for.
        place: Where it is meant.
        attempt: Carries out shares of the groups, as far as they can go.
        order: None to lose least per millisecond, or the steps that are taken one after the other.
        key: How the attempts are carried out, as far as their latency depends on it.
    """

    dense: Study
    study: Study
    ranking: Ranking
    limits: Limits
    budget: Budget
    place: Place
    attempt: Callable[[Floats], Operation[C]]
    order: Steps | None = None
    key: str = ""

    def aimed(self) -> tuple[Operation[C], Aim]:
        """What has that latency, and what was measured of it.

        Raises:
            InputError: The latency cannot be reached, or the model cannot be timed there.
        """
        study, n_groups = self.study, self.ranking.sizes.size
        clock = Clock.of(self.dense.program, self.dense.model, self.dense.inputs, self.place)
        widths = Widths.of(self.ranking, self.limits, readers_of(study))
        key = f"{self.limits} {self.key} {tuple(named_tensors(study.model)) if self.shorter else ''}"
        measuring = Measuring(clock, lambda shares: self.attempt(shares).slim, widths, n_groups, key)
        ways = [part / GRID for part in ((0,) if self.shorter else ()) + (*COARSE, GRID)]
        found = measuring.readings([measuring.alike(way) for way in ways], "measuring how latency follows widths")
        curve = [(way, one) for way, one in zip(ways, found, strict=True) if one is not None]
        if not curve or not curve[-1][0]:
            raise RefusedError(f"no narrower model can be timed in {self.place.runtime}", "choose another runtime")
        narrowest = curve[-1][1]
        target = self._target(narrowest)
        if self._off(narrowest) > WITHIN:
            raise self._unreachable(narrowest)
        curve = curve if self.shorter else [(0.0, WHOLE), *curve]
        if target >= curve[0][1].share:
            return self._whole(clock)
        start = float(np.interp(-target, [-one.share for _, one in curve], [way for way, _ in curve]))
        slope = self._off(narrowest) - (1 / target - 1)  # where latency fell evenly on the way down
        if self.order is not None:
            return self._corrected(clock, along(self.order), start, slope)
        way = round(start * GRID) / GRID
        (base,) = measuring.readings([measuring.alike(way)], "measuring how latency follows widths")
        kinds = kinds_of(study, np.unique(widths.group))
        table = measuring.table(kinds, way, base or narrowest)

        def family(way: float) -> Floats:
            latency = 1 - way * (1 - narrowest.share)
            return widths.shares(cheapest(widths, table, latency), n_groups)

        return self._corrected(clock, family, (1 - target * (1 - SLACK)) / (1 - narrowest.share), slope)

    @property
    def shorter(self) -> bool:
        """Whether whole blocks go before anything else."""
        return self.study is not self.dense

    def _target(self, seen: Reading) -> float:
        """The latency asked for, as a share of the dense model's as it was seen."""
        return self.budget.limit(seen.dense_ms) / seen.dense_ms

    def _off(self, seen: Reading) -> float:
        """How far a reading is off the target, over the target."""
        return seen.share / self._target(seen) - 1

    def _corrected(self, clock: Clock, family: Family, start: float, slope: float) -> tuple[Operation[C], Aim]:
        """The best of a family of models, each built and measured.

        From one to the next by the secant of the last two, first by the slope that is expected (how far off a model is,
        by how far down it has come); between the nearest known on either side, or in their middle.
        """
        low, high, way = 0.0, 1.0, min(max(start, SAME), 1.0)
        seen: dict[bytes, Tried[C]] = {}
        refused: dict[bytes, RefusedError] = {}
        last: Tried[C] | None = None
        with bar(f"building and measuring for {self.budget.name} {self.budget.amount}", MOST_TRIED) as told:
            for turn in range(1, MOST_TRIED + 1):
                shares = family(way)
                key = shares.tobytes()
                told(1)
                again = seen.get(key)
                try:
                    one = again or self._tried(clock, way, shares, refused.get(key))
                except RefusedError as error:
                    refused[key] = error
                    way = low + (high - low) * (turn * GOLDEN % 1)  # somewhere else between the two
                    continue
                seen[key] = one
                low, high = (way, high) if one.off > -SLACK else (low, way)
                if one.miss <= CLOSE or high - low < SAME:
                    break
                if last is not None and (one.off - last.off) * (way - last.way) < 0:
                    slope = (one.off - last.off) / (way - last.way)
                last = one
                stepped = way - (one.off + SLACK) / slope
                way = stepped if again is None and low < stepped < high else (low + high) / 2
        if not seen:
            raise next(iter(refused.values()))
        best = min(seen.values(), key=lambda one: one.miss)
        return best.cut, self._aim(best.reading, len(seen), self._why(best, list(seen.values()), len(refused)))

    def _tried(self, clock: Clock, way: float, shares: Floats, refused: RefusedError | None = None) -> Tried[C]:
        if refused is not None:
            raise refused
        cut = self.attempt(shares)
        reading = clock.time(cut.slim)
        if abs(self._off(reading)) <= WITHIN:  # a second process, at another time: the mean of the two counts
            reading = reading.beside(clock.time(cut.slim))
        return Tried(way, cut, reading, self._off(reading))

    def _why(self, best: Tried[C], seen: list[Tried[C]], refused: int) -> str:
        """What to say of a target that was missed, and of a measurement that was disturbed."""
        found = [best.reading.doubt] if best.reading.doubt else []
        if abs(best.off) > WITHIN:
            shares = sorted(one.reading.share for one in seen)
            near = ", ".join(f"{share:.1%}" for share in shares)
            found.append(
                f"nothing nearer was found: widths go in multiples of {self.limits.round_to}; tried were {near} of the "
                "dense model's latency"
            )
            if refused:
                found.append(f"{refused} more could not be timed in {self.place.runtime}")
        return "; ".join(found)

    def _whole(self, clock: Clock) -> tuple[Operation[C], Aim]:
        """No channel goes: the model is fast enough with all of them."""
        one = self._tried(clock, 0.0, np.zeros(self.ranking.sizes.size))
        told = "without these blocks it is as fast" if self.shorter else "the dense model itself is as fast"
        return one.cut, self._aim(one.reading, 0, told)

    def _aim(self, reading: Reading, tried: int, note: str) -> Aim:
        return aim_of(self.budget, self.place, reading, self.study.inputs.batch, tried=tried, note=note)

    def _unreachable(self, narrowest: Reading) -> UnreachableError:
        fact = (
            f"latency {self.budget.amount} cannot be reached in {self.place.runtime}: with all that may go gone, "
            f"{narrowest.ms:.3g} ms are left ({narrowest.share:.1%} of {narrowest.dense_ms:.3g} ms)"
        )
        return UnreachableError(fact, "ask for more, or protect less and lower min_keep and round_to")


WHOLE = Reading(1.0, 1.0, 1.0, 0.0, 0.0)
"""The dense model beside itself."""

GOLDEN = 0.618
"""Multiples of it, less their whole part, come ever closer to everywhere."""

SAME = 1e-3
"""Ways down that are so close lead to the same model."""


def aim_of(budget: Budget, place: Place, reading: Reading, batch: int | None, *, tried: int = 0, note: str = "") -> Aim:
    """What a reading says of a budget."""
    return Aim(
        asked=budget.amount,
        target_ms=budget.limit(reading.dense_ms),
        dense_ms=reading.dense_ms,
        slim_ms=reading.ms,
        share=reading.share,
        low=reading.low,
        high=reading.high,
        runtime=place.runtime,
        threads=place.threads,
        device=place.device,
        batch=batch,
        machine=str(this_machine()),
        tried=tried,
        note=note,
    )


def measured_again(aim: Aim, dense: nn.Module, slim: nn.Module, inputs: Inputs) -> Aim:
    """The aim with what is measured of another slim model, such as the one after compensation.

    Raises:
        InputError: It cannot be timed there.
    """
    budget, place = Budget("latency", aim.asked), Place(aim.runtime, aim.threads, aim.device)
    with bar(f"measuring for latency {aim.asked}", 1) as told:
        reading = time_beside(dense, {SLIM: slim}, inputs, place, PAIRS, SECONDS, needed=(SLIM,))[SLIM]
        told(1)
    return aim_of(budget, place, reading, aim.batch, tried=aim.tried, note=aim.note)


def along(order: Steps) -> Family:
    """The models that lie on the way of steps taken one after the other."""
    last = order.stops.size - 1
    return lambda way: order.shares(int(order.stops[round(way * last)]))


def readers_of(study: Study) -> Floats:
    """How many weights read each group, at least 1, `[n_groups]`: what a group lacks, each of them misses.

    Where scores are norms, those of two groups say nothing about each other; the share of each that is lost does.
    """
    _, consumers = sides_of(study.program, study.coupling)
    reading = set(consumers)
    counts = [sum((axis.name, axis.dim) in reading for axis in axes) for axes in axes_of_groups(study.coupling)]
    return np.maximum(np.array(counts, np.float64), 1)
