from __future__ import annotations

import torch
from torch import nn

import surgery

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
ROWS = list(zip(X.split(8), (torch.arange(24) % 3).split(8), strict=True))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


def test_masks_are_told_for_what_they_are():
    fitted = surgery.fit(net(), ROWS, nn.functional.cross_entropy, schedule=surgery.OneShot(0.5))
    assert "note: masks hold 50.0% of the weights at zero: no faster, smaller only when compressed" in str(fitted)
    assert fitted.result is None
    assert surgery.fit(net(), ROWS, nn.functional.cross_entropy).notes == ()


def test_what_was_cut_is_a_result_also_after_going_on_from_a_checkpoint(tmp_path):
    schedule = surgery.Iterative(0.6, 2, how=surgery.Structured())
    whole = surgery.fit(net(), ROWS, nn.functional.cross_entropy, schedule=schedule, checkpoints=tmp_path / "runs")
    again = surgery.fit(
        net(), ROWS, nn.functional.cross_entropy, schedule=schedule, checkpoints=tmp_path / "runs", resume=True
    )
    assert again.resumed_at == len(whole.losses)
    assert again.result.plans == whole.result.plans
    assert again.result.proof == whole.result.proof
    assert again.changes == whole.changes
    surgery.save(again.result, tmp_path / "slim")
    loaded = surgery.load(tmp_path / "slim", net)
    torch.testing.assert_close(loaded.eval()(X), whole.model.eval()(X), rtol=0, atol=0)
