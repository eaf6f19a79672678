from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import surgery
from surgery.errors import InputError


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 3))


X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("ratio", "widths"), [(1.0, (16, 12)), (0.5, (8, 6)), (0.3, (5, 4)), (0.01, (1, 1))])
def test_a_ratio_is_kept_of_every_group(ratio: float, widths: tuple[int, int]) -> None:
    model = mlp()
    slim = surgery.choose(model, X, keep_ratio=ratio).apply(model, X)
    assert (slim[0].out_features, slim[2].out_features) == widths
    assert slim[4].out_features == 3


def test_the_lowest_norms_go() -> None:
    model = mlp()
    plan = surgery.choose(model, X, keep_ratio=0.5, importance="l1")
    norms = model[0].weight.abs().sum(1)
    assert set(plan.axis("0.weight").keep) == set(norms.topk(8).indices.tolist())


def test_a_function_of_the_model_may_score() -> None:
    model = mlp()

    def scores(given: nn.Module) -> dict[str, torch.Tensor]:
        return {"0.weight": torch.arange(16.0), "2.weight": -torch.arange(12.0)}

    plan = surgery.choose(model, X, importance=scores)
    assert plan.axis("0.weight").keep == tuple(range(8, 16))
    assert plan.axis("2.weight").keep == tuple(range(6))


@pytest.mark.parametrize(("round_to", "width"), [(4, 8), (8, 8), (3, 9), (16, 16), (64, 16)])
def test_widths_are_multiples(round_to: int, width: int) -> None:
    model = mlp()
    slim = surgery.choose(model, X, keep_ratio=0.45, round_to=round_to).apply(model, X)
    assert slim[0].out_features == width


def test_carriers_count_as_staying_when_widths_are_rounded() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 4, 3, padding=1))
    x = torch.randn(1, 3, 8, 8)
    plan = surgery.choose(model, x, round_to=8)
    assert len(plan.carries) == 1
    assert len(plan.axis("0.weight").keep) == 16
    assert surgery.shrink(plan.mask(model), x, round_to=8).params_after == sum(
        p.numel() for p in plan.apply(model, x).parameters()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_ratio": 0.0}, "keep_ratio is 0.0"),
        ({"keep_ratio": 1.5}, "keep_ratio is 1.5"),
        ({"importance": "magic"}, "unknown importance 'magic'"),
        ({"round_to": 0}, "round_to is 0"),
        ({"importance": lambda m: {"nope": [1.0]}}, "importance scored 'nope'"),
        ({"importance": lambda m: {"0.weight": [1.0]}}, "scores of shape [1]"),
        ({"importance": lambda m: {"0.weight": torch.full((16,), float("nan"))}}, "not finite"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        surgery.choose(mlp(), X, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "x"), [(nn.Linear(1, 8), torch.randn(4, 1)), (nn.Conv2d(1, 8, 3), torch.randn(2, 1, 5, 5))]
)
def test_a_layer_that_reads_a_single_channel_is_scored_and_masked(first: nn.Module, x: torch.Tensor) -> None:
    last = nn.Linear(8, 2) if isinstance(first, nn.Linear) else nn.Conv2d(8, 2, 1)
    model = nn.Sequential(first, nn.ReLU(), last)
    plan = surgery.choose(model, x)
    norms = first.weight.flatten(1).norm(dim=1)
    assert set(plan.axis("0.weight").keep) == set(norms.topk(4).indices.tolist())
    masked = plan.mask(model)
    gone = sorted(set(range(8)) - set(plan.axis("0.weight").keep))
    assert not masked[0].weight[gone].any()
    assert masked[2].weight.all()
