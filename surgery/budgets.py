"""Budgets: how much may be left of a model, and the search for the largest plan that leaves no more."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from torch import nn

from surgery.deciding.pick import CLOSE, Floats
from surgery.deciding.steps import Steps
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.progress import counting
from surgery.proof.cost import count_params, macs, size_bytes

Amount = int | float | str
"""A share of the dense model in (0, 1], or an absolute number; in words `"50%"`, `"3.5M"`, `"1.2G"`, `"20MB"`."""

T = TypeVar("T")

MEASURES: dict[str, Callable[[nn.Module, Inputs], int]] = {
    "params": lambda model, inputs: count_params(model),
    "macs": macs,
    "size_bytes": lambda model, inputs: size_bytes(model),
}
"""What can be budgeted, and how it is counted."""

DECIMAL: dict[str, float] = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
BYTES: dict[str, float] = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}
TIMES: dict[str, float] = {"": 1, "MS": 1, "S": 1e3, "US": 1e-3}
"""Of a latency, in milliseconds."""

UNITS: dict[str, dict[str, float]] = {"size_bytes": BYTES, "latency": TIMES}
NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%]*)\s*")

MICRO = {0xB5: "u", 0x3BC: "u"}
"""Both letters that people write for a millionth."""

CLOSE_ENOUGH = 0.002
"""A plan that leaves this share of the budget unused, or less, is not improved on."""

MOST_TAKEN_BACK = 12
"""So many times a group is tried one step wider at the end."""


@dataclass(frozen=True)
class Budget:
    """The most that may be left.

    Attributes:
        name: `"params"`, `"macs"`, `"size_bytes"` or `"latency"` (in milliseconds; `surgery/targeting` measures it).
        amount: As the user gave it.
    """

    name: str
    amount: Amount

    def __post_init__(self) -> None:
        given: object = self.amount
        if isinstance(given, np.generic):
            object.__setattr__(self, "amount", given.item())  # it goes into plans, which go through JSON
        self.limit(1)

    def measure(self, model: nn.Module, inputs: Inputs) -> int:
        """What a model has of it."""
        return MEASURES[self.name](model, inputs)

    def limit(self, dense: float) -> float:
        """The absolute number, of a model that has `dense`.

        Raises:
            InputError: It is none, or not above 0.
        """
        number, is_share = self._number()
        if not 0 < number < float("inf"):
            raise InputError(f"{self.name} is {self.amount!r}", "give a share of the dense model or a number above 0")
        return number * dense if is_share else number

    def _number(self) -> tuple[float, bool]:
        """The number, and whether it is a share: of what has a unit, even a fraction of one is none (`"0.5ms"`)."""
        if isinstance(self.amount, bool) or not isinstance(self.amount, int | float | str):
            raise InputError(f"{self.name} is a {type(self.amount).__name__}", "give a number, or words such as '50%'")
        if not isinstance(self.amount, str):
            return float(self.amount), self.amount <= 1
        units = UNITS.get(self.name, DECIMAL)
        match = NUMBER.fullmatch(self.amount.translate(MICRO))
        if match is not None and match[2] == "%":
            share = float(match[1]) / 100
            return share if share <= 1 else float("nan"), True
        if match is None or match[2].upper() not in units:
            known = ", ".join(f"'3.5{unit}'" for unit in units if unit)
            raise InputError(f"{self.name} is {self.amount!r}", f"write it as '0.5', '50%', '3500000' or {known}")
        number = float(match[1]) * units[match[2].upper()]
        return number, not match[2] and number <= 1


@dataclass(frozen=True)
class Candidate(Generic[T]):
    """One plan that was tried: the shares of the groups that were to go, what came of it, and what that leaves."""

    shares: Floats
    result: T
    left: int


def within(budget: Budget, dense: int, steps: Steps, attempt: Callable[[Floats], tuple[T, int]], *, fill: bool) -> T:
    """What `attempt` makes of the fewest steps that leave no more than the budget.

    Between the last number of steps known to leave too much and the first known not to, the next to be tried is where
    a straight line meets the budget, and every third time the middle. What is then left of the budget is filled: one
    group after the other takes back its last step where there is room for it.

    Args:
        budget: The most that may be left.
        dense: What the dense model has.
        steps: All steps, in order.
        attempt: `(what comes of it, what it leaves)` where these shares of the groups go.
        fill: Whether groups may take back a step on their own.

    Raises:
        InputError: It cannot be reached.
    """
    limit = budget.limit(dense)
    stops = steps.stops
    with counting(f"looking for {budget.name} of at most {limit:,.0f}") as tried:
        least = dense

        def at(shares: Floats) -> Candidate[T]:
            nonlocal least
            tried()
            result, left = attempt(shares)
            least = min(least, left)
            return Candidate(shares, result, left)

        if dense <= limit:
            return at(steps.shares(0)).result
        low, above = 0, dense  # stops[low] leaves too much
        high, best = len(stops) - 1, None  # stops[high] does not, once it is known
        below: float = 0.0
        turn = 0
        while high - low > 1 or best is None:
            turn += 1
            if high - low <= 1:
                middle = high
            elif turn % 3 == 0 or above <= below:
                middle = (low + high) // 2
            else:
                middle = low + round((high - low) * (above - limit) / (above - below))
                middle = min(max(middle, low + 1), high - 1)
            found = at(steps.shares(int(stops[middle])))
            if found.left > limit:
                if middle == high:
                    raise _unreachable(budget, least, dense, limit)
                low, above = middle, found.left
            else:
                high, below, best = middle, float(found.left), found
                if limit - found.left <= CLOSE_ENOUGH * limit:
                    break
        return (_filled(best, steps, limit, at) if fill else best).result


def _filled(best: Candidate[T], steps: Steps, limit: float, at: Callable[[Floats], Candidate[T]]) -> Candidate[T]:
    """The candidate with what room there is given back, step by step, first to the groups whose last step came last."""
    taken = steps.share <= best.shares[steps.group] + CLOSE
    waiting = list(dict.fromkeys(steps.group[taken][::-1].tolist()))
    tries = MOST_TAKEN_BACK
    while waiting and tries and limit - best.left > CLOSE_ENOUGH * limit:
        fitting = []
        for group in waiting[:tries]:
            tries -= 1
            wider = at(steps.back(best.shares, group))
            if best.left < wider.left <= limit:
                best = wider
                fitting += [group] if best.shares[group] > 0 else []
        waiting = fitting
    return best


def _unreachable(budget: Budget, least: int, dense: int, limit: float) -> InputError:
    fact = (
        f"{budget.name} of at most {limit:,.0f} cannot be reached: with all that may go gone, {least:,} are left "
        f"({least / dense:.1%} of {dense:,})"
    )
    return InputError(fact, "ask for more, or protect less and lower min_keep and round_to")
