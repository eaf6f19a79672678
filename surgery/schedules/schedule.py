"""When how much goes: plain numbers, which know nothing of masks, nets or loops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from surgery.errors import InputError
from surgery.schedules.how import How, Unstructured


@dataclass(frozen=True)
class Event:
    """Something that happens before a step.

    Attributes:
        step: The step of its round, counted from 0.
        amount: The share of the dense net that is gone afterwards, in [0, 1).
        rewind: Whether what is left goes back to its early values.
        last: Whether nothing comes after it, in this round or a later one.
    """

    step: int
    amount: float
    rewind: bool = False
    last: bool = False


@dataclass(frozen=True)
class Schedule(ABC):
    """When how much goes. A training loop runs `rounds` times for its full length, with `events` in between.

    Attributes:
        amount: The share of the dense net that is gone in the end, in (0, 1): of the weights that masks can reach
            (`Unstructured`), or of what its budget counts (`Structured`).
        how: What goes: single weights, or coupled channels.
    """

    amount: float
    how: How = field(default_factory=Unstructured, kw_only=True)

    def __post_init__(self) -> None:
        given: object = self.amount
        if isinstance(given, bool) or not isinstance(given, int | float | np.number) or not 0 < float(given) < 1:
            raise InputError(f"amount is {given!r}", "give the share that is to go, above 0 and below 1")
        if not isinstance(self.how, How):
            raise InputError(f"how is {self.how!r}", "give surgery.Unstructured(...) or surgery.Structured(...)")

    @property
    def rounds(self) -> int:
        """How many times the loop trains for its full length; the learning rate starts anew in each."""
        return 1

    def snapshot_at(self, steps: int) -> int | None:
        """Before which step of the first round the early values are taken down; None where nothing goes back."""
        return None

    @abstractmethod
    def events(self, round: int, steps: int) -> tuple[Event, ...]:
        """What happens in a round of so many steps, in order; at most one event before each step."""


@dataclass(frozen=True)
class OneShot(Schedule):
    """All at once, then tune. For a net that is trained already."""

    def events(self, round: int, steps: int) -> tuple[Event, ...]:
        """One, before the first step."""
        return (Event(0, float(self.amount), last=True),)


@dataclass(frozen=True)
class _Rounds(Schedule):
    """Some in each of several rounds.

    Attributes:
        prunings: In how many parts it goes: each takes the same share of what the one before has left, as Han et al.
            (2015) and Frankle & Carbin (2019) do.
    """

    prunings: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.prunings, bool) or not isinstance(self.prunings, int | np.integer) or self.prunings < 1:
            raise InputError(f"prunings is {self.prunings!r}", "give a whole number from 1 on")

    def gone_after(self, prunings: int) -> float:
        """The share that is gone after so many prunings."""
        return float(1 - (1 - self.amount) ** (prunings / self.prunings))


@dataclass(frozen=True)
class Iterative(_Rounds):
    """Prune, tune, and again: in each round some goes, then the loop trains. For a net that is trained already."""

    @property
    def rounds(self) -> int:
        """As many as prunings."""
        return self.prunings

    def events(self, round: int, steps: int) -> tuple[Event, ...]:
        """One in each round, before its first step."""
        done = round + 1
        return (Event(0, self.gone_after(done), last=done == self.prunings),)


@dataclass(frozen=True)
class LotteryTicket(_Rounds):
    """Train, prune, put what is left back to its early values, and again (Frankle & Carbin 2019).

    The first round trains the whole net; in each of the others some goes, the rest is rewound, and the loop trains with
    a fresh optimizer. For a net as it is before training, or with `early` for one that is trained: then no round is
    spent on the whole net.

    Attributes:
        prunings: In how many parts it goes; 1 is the ticket from one pruning of the trained net.
        rewind_to: Which early values: those before this step of the first round (a whole number; 0 is the start), or
            after this share of it (below 1), as very deep nets need it (Frankle et al. 2020).
        early: The early values themselves: a `state_dict` of the same net before or early in its training.
    """

    rewind_to: int | float = 0
    early: Mapping[str, Tensor] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        to: object = self.rewind_to
        whole = isinstance(to, int | np.integer) and not isinstance(to, bool) and to >= 0
        if not whole and not (isinstance(to, float) and 0 <= to < 1):
            raise InputError(f"rewind_to is {to!r}", "give a step, a whole number from 0 on, or a share below 1")
        if self.early is not None and self.rewind_to:
            raise InputError("rewind_to and early were both given", "early holds the values: leave rewind_to out")

    @property
    def rounds(self) -> int:
        """One for each pruning, and without `early` one before."""
        return self.prunings + (self.early is None)

    def snapshot_at(self, steps: int) -> int | None:
        """Where `rewind_to` says.

        Raises:
            InputError: The first round has fewer steps.
        """
        if self.early is not None:
            return None
        step = int(self.rewind_to * steps) if isinstance(self.rewind_to, float) else int(self.rewind_to)
        if step >= max(steps, 1):
            raise InputError(f"rewind_to is step {step}, a round has {steps}", "give a step of the first round")
        return step

    def events(self, round: int, steps: int) -> tuple[Event, ...]:
        """One in each round but the first (with `early`, in each), before its first step."""
        done = round + (self.early is not None)
        return (Event(0, self.gone_after(done), True, done == self.prunings),) if done else ()


@dataclass(frozen=True)
class Gradual(Schedule):
    """More and more within one round, much at first and little at the end: the cubic of Zhu & Gupta (2017).

    After update k of n, `amount · (1 - (1 - k/n)³)` is gone.

    Attributes:
        begin, end: The part of the round in which it goes, as shares; after `end` the net only tunes.
        updates: In so many steps, evenly spread (fewer, where the round is shorter).
    """

    begin: float = 0.0
    end: float = 0.75
    updates: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.begin < self.end <= 1:
            raise InputError(f"begin is {self.begin!r} and end {self.end!r}", "give shares with 0 <= begin < end <= 1")
        if isinstance(self.updates, bool) or not isinstance(self.updates, int | np.integer) or self.updates < 1:
            raise InputError(f"updates is {self.updates!r}", "give a whole number from 1 on")

    def events(self, round: int, steps: int) -> tuple[Event, ...]:
        """Up to `updates` of them, the first at `begin`, the last at `end` or before the round's last step."""
        gone: dict[int, float] = {}
        for k in range(1, self.updates + 1):
            place = self.begin + (self.end - self.begin) * (k - 1) / max(self.updates - 1, 1)
            step = min(round_down(place * steps), max(steps - 1, 0))
            gone[step] = float(self.amount * (1 - (1 - k / self.updates) ** 3))
        last = max(gone)
        return tuple(Event(step, amount, last=step == last) for step, amount in gone.items())


def round_down(value: float) -> int:
    """The whole part; what is whole but for rounding counts as whole."""
    return int(value + 1e-9)
