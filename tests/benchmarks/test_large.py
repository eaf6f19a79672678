"""The benchmark of full-size transformers: what it masks, what it measures, what it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import surgery
from benchmarks import large
from tests.nets import Residual

FACTS = {
    "machine": "a machine, torch 2.13.0",
    "nets": {
        "A": [
            {"coupling_ms": 3.0, "up_to_cut_s": 1.0, "shrink_s": 2.0, "memory": 0.2, "peer_s": 9.0},
            {"coupling_ms": 5.0, "up_to_cut_s": 1.2, "shrink_s": 2.2, "memory": 0.4, "peer_s": 8.0},
            {"coupling_ms": 4.0, "up_to_cut_s": 1.1, "shrink_s": 2.1, "memory": 0.3, "peer_s": 7.0},
        ],
        "B": [{"coupling_ms": 3.0, "up_to_cut_s": 1.0, "shrink_s": 2.0, "memory": 0.2, "peer_failed": "KeyError: 3"}],
    },
}


def test_medians_and_failures_are_told() -> None:
    text = large.table(FACTS)
    assert "| A | 4 ms | 1.1 s | 2.1 s | 8.0 s | 0.30 of its weights |" in text
    assert "| B | 3 ms | 1.0 s | 2.0 s | fails: KeyError | 0.20 of its weights |" in text


def test_every_call_is_timed_and_goes_through() -> None:
    x = torch.randn(2, 3, 8, 8)
    with large.timed("surgery.deciding.study.couple") as seconds:
        result = surgery.shrink(Residual(), x, prove=False)
    assert len(seconds) == 1
    assert seconds[0] > 0
    surgery.shrink(Residual(), x, prove=False)
    assert len(seconds) == 1
    assert isinstance(result.model, Residual)


def test_half_of_the_heads_and_neurons_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.o_proj, self.down_proj, self.up = nn.Linear(8, 6), nn.Linear(4, 6), nn.Linear(4, 4)

    monkeypatch.setitem(large.NETS, "small", (Net, "o_proj", "down_proj", 4))
    net, args, kwargs = large.masked("small")
    assert not net.o_proj.weight.view(6, 4, 2)[:, ::2].any()
    assert net.o_proj.weight.view(6, 4, 2)[:, 1::2].all()
    assert net.down_proj.weight.any(0).tolist() == [False, True, False, True]
    assert net.up.weight.all()
    assert args == ()
    assert kwargs["input_ids"].shape == (1, large.TOKENS)
