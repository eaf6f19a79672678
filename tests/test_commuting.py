"""Removing commutes with the op: take units from the operands and run it, or run it and take them from the output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from surgery.analysis.couple import couple
from surgery.coupling import Coupling
from surgery.layout import Bools, Ids
from tests.samples import SAMPLES
from tests.samples.closing import removable
from tests.samples.removal import Run, dropped, output_layouts
from tests.samples.sample import Sample

OUTPUT = "it is an output of the model"


@cache
def coupled(sample: Sample) -> Coupling:
    """The sample's coupling, as if something followed its output."""
    coupling = couple(sample.program, sample.norms)
    return replace(coupling, pins=tuple(pin for pin in coupling.pins if pin.reason != OUTPUT))


def seeds(coupling: Coupling) -> Iterator[Ids]:
    """Where removals start: every free channel, every row of a rectangle that may lose rows, some random handfuls."""
    free = np.flatnonzero(coupling.pin_of < 0)
    yield from free[:, None]
    for uniform in coupling.uniforms:
        if not uniform.rows_stay and len(uniform.arrays[0]) > 1:
            yield coupling.channel_of[uniform.arrays[0][0]]
            yield coupling.channel_of[uniform.arrays[-1][-1]]
    rng = np.random.default_rng(1)
    for _ in range(4):
        yield free[rng.random(free.size) < 0.3]


@cache
def removals(sample: Sample) -> tuple[Bools, ...]:
    """Distinct sets of channels that stay, with every channel that can go missing from at least one of them."""
    coupling = coupled(sample)
    least = 1 if sample.to_one else 2
    rng = np.random.default_rng(0)
    found: dict[bytes, Bools] = {}
    for seed in seeds(coupling):
        for _ in range(8 if coupling.outers else 3):
            alive = removable(coupling, seed, rng)
            if alive is not None and not alive.all() and narrowest(coupling, alive) >= least:
                found.setdefault(alive.tobytes(), alive)
                break
    return tuple(found.values())


def narrowest(coupling: Coupling, alive: Bools) -> int:
    """The smallest number of positions that an axis keeps."""
    return min(int(alive[coupling.channel_of[axis.ids]].sum()) for axis in coupling.axes.values())


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_removing_commutes_with_the_op(sample: Sample) -> None:
    coupling = coupled(sample)
    layouts = list(output_layouts(sample.program, coupling))
    for alive in removals(sample):
        whole = Run(sample.program, coupling, sample.tensors, alive, without=False).outputs()
        slim = Run(sample.program, coupling, sample.tensors, alive, without=True).outputs()
        alive_ids = alive[coupling.channel_of]
        expected = [dropped(tensor, layout, alive_ids) for tensor, layout in zip(whole, layouts, strict=True)]
        torch.testing.assert_close(slim, expected, equal_nan=True)


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_what_is_free_is_left_free_and_what_is_held_has_its_reason(sample: Sample) -> None:
    coupling = coupled(sample)
    gone = ~np.all([np.ones(coupling.n_channels, bool), *removals(sample)], axis=0)
    counts = {key: int(gone[np.unique(coupling.channel_of[axis.ids])].sum()) for key, axis in coupling.axes.items()}
    assert {key: count for key, count in counts.items() if count} == sample.counts
    reasons = {pin.reason for pin in coupling.pins}
    assert [reason for reason in reasons if "lost track" in reason or "failed" in reason] == []
    assert [reason for reason in reasons if not reason.startswith(tuple(sample.held))] == []
    assert [held for held in sample.held if not any(reason.startswith(held) for reason in reasons)] == []
