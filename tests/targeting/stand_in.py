"""A clock that does not look at the time: what a model takes is reckoned from its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from torch import nn

from surgery.inputs import Inputs
from surgery.proof.cost import macs
from surgery.targeting import aiming, clock
from surgery.targeting.clock import Place, RefusedError
from surgery.targeting.store import Reading

Takes = Callable[[nn.Module, Inputs], float]
"""Milliseconds of a model."""


def by_macs(model: nn.Module, inputs: Inputs) -> float:
    """A tenth of a millisecond, and a millisecond for a million multiply-accumulates."""
    return 0.1 + macs(model, inputs) / 1e6


@dataclass
class StandIn:
    """Stands for `time_beside`.

    Attributes:
        takes: How long models take.
        refuses: Models that the runtime does not take.
        calls: How many models each call timed.
        table: The names of all that were timed for the table.
        stop_after: After so many calls Ctrl-C is pressed.
        factor: By which this machine is slower than it was, by the number of the call.
    """

    takes: Takes = by_macs
    refuses: Callable[[nn.Module], bool] = lambda model: False
    calls: list[int] = field(default_factory=list)
    table: list[str] = field(default_factory=list)
    stop_after: int | None = None
    noise: Callable[[int], float] = lambda call: 1.0

    def __call__(
        self, dense: nn.Module, models: Mapping[str, nn.Module], inputs: Inputs, place: Place, pairs: int,
        seconds: tuple[float, float], needed: Sequence[str] = (),
    ) -> dict[str, Reading]:  # fmt: skip
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(len(models))
        self.table += [name for name in models if name != clock.SLIM]
        whole = self.takes(dense, inputs)
        found = {}
        for name, model in models.items():
            if self.refuses(model):
                if name in needed:
                    raise RefusedError("the slim model cannot be timed in the stand-in: refused", "choose another")
            else:
                ms = self.takes(model, inputs) * self.noise(len(self.calls))
                found[name] = Reading(ms / whole, ms / whole, ms / whole, ms, whole)
        return found


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """The clock, in the place of the real one, and no readings from before."""
    one = StandIn()
    monkeypatch.setattr(clock, "time_beside", one)
    monkeypatch.setattr(aiming, "time_beside", one)
    monkeypatch.setenv("SURGERY_CACHE_DIR", str(tmp_path_factory.mktemp("readings")))
    return one
