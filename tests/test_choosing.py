from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import surgery
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.proof.cost import cost
from tests.criteria_nets import NETS, images, loader, made


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
        ({"keep_ratio": 0.5, "params": 0.5}, "2 budgets were given: keep_ratio, params\n  -> give one of them"),
        ({"params": 0.5, "macs": 0.5, "size_bytes": 0.5}, "3 budgets were given: params, macs, size_bytes"),
        (
            {"params": 14},
            "params of at most 14 cannot be reached: with all that may go gone, 15 are left (4.2% of 355)",
        ),
        ({"macs": 0.1, "min_keep": 8}, "with all that may go gone, "),
        ({"uniform": True, "global_": True}, "uniform and global_ contradict each other"),
        ({"protect": ["9"]}, "protect names '9', which Sequential has not"),
        ({"importance": lambda m: [1.0]}, "the importance function returned a list"),
        ({"importance": lambda m: m.nothing}, "the importance function raised AttributeError"),
        ({"importance": "variance"}, "importance 'variance' looks at data, and none was given"),
        ({"importance": "variance", "data": []}, "the data is empty"),
        ({"importance": "wanda", "data": [torch.randn(2, 5)]}, "Sequential fails on item 0 of the data ([2, 5])"),
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


def cost_of(model: nn.Module, name: str, x: torch.Tensor) -> int:
    return int(getattr(cost(model, Inputs.of(x)), name))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    ("name", "settings"),
    [("params", {}), ("macs", {"global_": True}), ("size_bytes", {"round_to": 4}), ("macs", {"uniform": True})],
)
def test_a_budget_is_a_maximum_and_is_used(net: str, name: str, settings: dict[str, Any]) -> None:
    model, x = made(net), images(2)
    dense = cost_of(model, name, x)
    plan = surgery.choose(model, x, **{name: 0.5}, **settings)
    left = cost_of(plan.apply(model, x), name, x)
    assert left <= 0.5 * dense
    assert left >= (0.25 if "round_to" in settings or "uniform" in settings else 0.44) * dense


def test_nothing_goes_where_the_budget_is_what_there_is() -> None:
    dense = cost_of(mlp(), "params", X)
    assert surgery.choose(mlp(), X, params=dense).empty
    assert surgery.choose(mlp(), X, params=1.0).empty
    assert not surgery.choose(mlp(), X, params=dense - 1).empty


def test_a_budget_counts_what_folds_and_carriers_add() -> None:
    """Biases are made where there were none, and one channel stays to carry the others' constants."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.SiLU(),
        nn.Flatten(), nn.Linear(16 * 25, 3, bias=False),
    )  # fmt: skip
    x = torch.randn(2, 3, 5, 5)
    for share in (0.3, 0.5, 0.7):
        plan = surgery.choose(model, x, params=share)
        assert plan.folds or plan.carries
        assert cost_of(plan.apply(model, x), "params", x) <= share * cost_of(model, "params", x)


def test_one_ranking_over_all_groups_takes_more_where_less_is_lost() -> None:
    model = mlp()
    with torch.no_grad():
        model[0].weight[:12] *= 0.01
    plan = surgery.choose(model, X, keep_ratio=0.5, global_=True)
    kept = len(plan.axis("0.weight").keep), len(plan.axis("2.weight").keep)
    assert sum(kept) == 14
    assert kept == (4, 10)


def test_what_is_protected_keeps_its_shape_and_the_rest_gives_more() -> None:
    model = made("residual")
    x = images(2)
    dense = cost_of(model, "params", x)
    plan = surgery.choose(model, x, params=0.7, protect=["blocks.1.conv*", "bn"])
    slim = plan.apply(model, x)
    assert slim.blocks[1].conv1.weight.shape == model.blocks[1].conv1.weight.shape
    assert slim.blocks[1].conv2.weight.shape == model.blocks[1].conv2.weight.shape
    assert slim.bn.num_features == 8
    assert cost_of(slim, "params", x) <= 0.7 * dense


def test_what_an_importance_has_no_opinion_of_stays_whole_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)
    )
    slim = surgery.choose(model.eval(), X, importance="bn_scale", keep_ratio=0.25).apply(model, X)
    assert (slim[0].out_features, slim[3].out_features) == (4, 12)
    assert "importance bn_scale has no opinion of 3.weight: they stay whole" in caplog.text


def test_a_least_number_or_share_of_channels_stays() -> None:
    slim = surgery.choose(mlp(), X, keep_ratio=0.1, min_keep=5).apply(mlp(), X)
    assert (slim[0].out_features, slim[2].out_features) == (5, 5)
    slim = surgery.choose(mlp(), X, keep_ratio=0.1, min_keep=0.5, round_to=4, global_=True).apply(mlp(), X)
    assert (slim[0].out_features, slim[2].out_features) == (8, 8)


class Grouped(nn.Module):
    """Attention with two query heads for every key head, and a gated network behind."""

    def __init__(self, heads: int = 8, kv_heads: int = 4, width: int = 4) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.width = heads, kv_heads, width
        self.q, self.k, self.v = (nn.Linear(16, n * width, bias=False) for n in (heads, kv_heads, kv_heads))
        self.o = nn.Linear(heads * width, 16, bias=False)
        self.gate, self.up, self.down = nn.Linear(16, 48), nn.Linear(16, 48), nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, self.width).transpose(1, 2)
        k, v = (f(x).view(b, t, self.kv_heads, self.width).transpose(1, 2) for f in (self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).reshape(b, t, -1)
        y = x + self.o(y)
        out: torch.Tensor = self.down(F.silu(self.gate(y)) * self.up(y)).mean(1)
        return out


@pytest.mark.parametrize("importance", ["l2", "fpgm", "taylor", "hessian", "obdc", "wanda", "variance"])
def test_heads_of_grouped_queries_go_whole_by_every_importance(importance: str) -> None:
    torch.manual_seed(0)
    model, x = Grouped().eval(), torch.randn(2, 6, 16)
    data = [(torch.randn(n, 6, 16), torch.arange(n) % 5) for n in (5, 2)]
    plan = surgery.choose(model, x, params=0.6, importance=importance, data=data, loss=F.cross_entropy)
    slim = plan.apply(model, x)
    assert cost_of(slim, "params", x) <= 0.6 * cost_of(model, "params", x)
    rows = np.array(plan.axis("k.weight").keep).reshape(-1, 4)
    assert 0 < len(rows) < 4
    assert (rows % 4 == [0, 1, 2, 3]).all(), "key heads go whole"
    heads = {row // 4 for row in plan.axis("q.weight").keep}
    assert {head // 2 for head in heads} == {int(row[0]) // 4 for row in rows}


def test_constant_channels_go_first_by_variance_and_nothing_is_lost() -> None:
    """The bridge to exact removal: what never changes is folded, so that the outputs on the data stay as they were."""
    model = made("dense")
    with torch.no_grad():
        model[1].weight[::2] = 0
        model[3].weight[::3] = 0
    data = [x for x, _ in loader()]
    plan = surgery.choose(model, images(), importance="variance", data=data, params=0.55, global_=True)
    assert set(plan.axis("1.weight").keep) >= set(range(1, 16, 2))
    assert set(plan.axis("3.weight").keep) >= {row for row in range(12) if row % 3}
    torch.testing.assert_close(plan.apply(model)(data[0]), model(data[0]), rtol=1e-4, atol=1e-5)
