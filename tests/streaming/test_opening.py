"""A plan from files is the plan of the loaded model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.errors import InputError
from surgery.streaming.shards import Place
from tests.streaming.sharded import NETS, Encoder, assert_same, bert, bert_with_head, hollow, lively, llama, sharded

SETTINGS: tuple[dict[str, Any], ...] = (
    {"importance": "l1", "size_bytes": 0.9},
    {"importance": "l1", "macs": 0.9, "round_to": 2},
    {"importance": "fpgm", "global_": True},
    {"importance": "lamp"},
    {"importance": "random", "protect": ["*1*"]},
)


@pytest.mark.parametrize("name", sorted(NETS.keys() - {"graph"}))
def test_the_plan_is_that_of_the_loaded_model(name: str, tmp_path: Path) -> None:
    check_same(name, tmp_path, ({},))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_however_it_is_chosen(name: str, tmp_path: Path) -> None:
    check_same(name, tmp_path, SETTINGS)


def test_a_budget_and_what_takes_groups_as_a_whole(tmp_path: Path) -> None:
    check_same("residual", tmp_path, SETTINGS)


def check_same(name: str, place: Path, several: tuple[dict[str, Any], ...]) -> None:
    net = NETS[name]
    real = lively(net.make)
    assert sharded(real, place, size_bytes=600) > 2
    for settings in several:
        expected = surgery.choose(real, net.args, net.kwargs, **settings)
        plan = surgery.choose(hollow(net.make), net.args, net.kwargs, checkpoint=place, **settings)
        assert_same(plan, expected)
        assert settings or not expected.empty


@pytest.mark.parametrize("name", ["llama", "residual"])
def test_it_masks_and_cuts_the_loaded_model(name: str, tmp_path: Path) -> None:
    net = NETS[name]
    real = lively(net.make)
    sharded(real, tmp_path)
    plan = surgery.choose(hollow(net.make), net.args, net.kwargs, checkpoint=tmp_path)
    read = surgery.Plan.from_json(plan.to_json())
    slim = read.apply(real, net.args, net.kwargs)
    assert surgery.verify(read.mask(real), slim, net.args, net.kwargs).passed
    assert sum(p.numel() for p in slim.parameters()) < 0.8 * sum(p.numel() for p in real.parameters())


def test_a_graph_takes_a_batch_of_one_as_before(tmp_path: Path) -> None:
    real = lively(Encoder)
    sharded(real, tmp_path)
    plan = surgery.choose(hollow(Encoder), torch.randn(2, 5, 16), checkpoint=tmp_path)
    assert plan.graph is not None
    assert plan.graph.ones is None  # found with the weights, when it is applied
    x = torch.randn(1, 5, 16)
    torch.testing.assert_close(plan.apply(real)(x), plan.mask(real)(x))


def test_half_precision_is_the_checkpoints(tmp_path: Path) -> None:
    """The model on the meta device is in float32; what is asked in bytes is half of what it would be there."""
    real = lively(Refusing, torch.bfloat16)
    sharded(real, tmp_path)
    size = 0.6 * surgery_size(real)
    plan = surgery.choose(hollow(Refusing), X, checkpoint=tmp_path, size_bytes=size)
    assert_same(plan, surgery.choose(real, X.bfloat16(), size_bytes=size))
    assert surgery_size(plan.apply(real)) <= size


def surgery_size(model: nn.Module) -> int:
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


def test_float_inputs_follow_the_precision(tmp_path: Path) -> None:
    net = NETS["vit"]
    real = lively(net.make, torch.bfloat16)
    sharded(real, tmp_path)
    plan = surgery.choose(hollow(net.make), net.args, checkpoint=tmp_path)
    assert_same(plan, surgery.choose(real, net.args.bfloat16()))


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights(tied: bool, tmp_path: Path) -> None:
    real = lively(lambda: llama(tied=tied))
    sharded(real, tmp_path)
    plan = surgery.choose(hollow(lambda: llama(tied=tied)), (), NETS["llama"].kwargs, checkpoint=tmp_path)
    assert_same(plan, surgery.choose(real, (), NETS["llama"].kwargs))


def test_the_base_of_a_model_with_a_head(tmp_path: Path) -> None:
    whole = lively(bert_with_head)
    sharded(whole, tmp_path)
    base: Any = bert()
    base.load_state_dict(whole.bert.state_dict(), strict=False)  # type: ignore[union-attr, operator]
    with torch.no_grad():
        base.pooler.dense.weight.zero_()
    (tmp_path / "with_pooler").mkdir()
    sharded(base, tmp_path / "with_pooler", prefix="bert.")
    kwargs = NETS["bert"].kwargs
    expected = surgery.choose(base, (), kwargs)
    assert_same(surgery.choose(hollow(bert), (), kwargs, checkpoint=tmp_path / "with_pooler"), expected)
    with pytest.raises(InputError, match=r"2 names missing: pooler\.dense"):
        surgery.choose(hollow(bert), (), kwargs, checkpoint=tmp_path)  # its weights lack the pooler


def test_what_is_of_the_head_is_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole: Any = lively(bert_with_head)
    sharded(whole, tmp_path)

    def make() -> nn.Module:
        base: Any = bert()
        base.pooler = None
        return base  # type: ignore[no-any-return]

    real = make()
    real.load_state_dict(whole.bert.state_dict())
    kwargs = NETS["bert"].kwargs
    with caplog.at_level(logging.WARNING, "surgery"):
        plan = surgery.choose(hollow(make), (), kwargs, checkpoint=tmp_path)
    assert_same(plan, surgery.choose(real, (), kwargs))
    assert "left aside: cls." in caplog.text
    assert "bert.'" in caplog.text


def test_a_function_scores_weights_as_they_are_read(tmp_path: Path) -> None:
    net = NETS["residual"]
    real = lively(net.make)
    sharded(real, tmp_path)

    def largest(model: nn.Module) -> dict[str, Tensor]:
        return {
            f"{path}.weight": module.weight.abs().amax((1, 2, 3))
            for path, module in model.named_modules()
            if isinstance(module, nn.Conv2d)
        }

    plan = surgery.choose(hollow(net.make), net.args, checkpoint=tmp_path, importance=largest)
    assert_same(plan, surgery.choose(real, net.args, importance=largest))


def test_no_more_than_one_tensor_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the numbers that were read, those of one tensor are there at a time (and pieces of what is computed of it)."""
    net = NETS["llama"]
    sharded(lively(net.make), tmp_path)
    alive: list[Tensor] = []
    most = [0]
    read = Place.read

    def watched(place: Place) -> Tensor:
        made = read(place)
        alive.append(made.untyped_storage()._weak_ref())  # type: ignore[arg-type]
        held = [one for one in alive if not torch.UntypedStorage._expired(one)]
        most[0] = max(most[0], len(held))
        return made

    monkeypatch.setattr(Place, "read", watched)
    surgery.choose(hollow(net.make), net.args, net.kwargs, checkpoint=tmp_path)
    assert len(alive) > 100
    assert most[0] == 1


class Refusing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        return y


X = torch.ones(1, 4)


@pytest.mark.parametrize(
    ("make", "settings", "told"),
    [
        (lambda: hollow(Refusing), {}, "no weights to choose by"),
        (Refusing, {"checkpoint": "."}, "holds its weights, and checkpoint= names others"),
        (lambda: hollow(Refusing), {"checkpoint": ".", "importance": "taylor"}, "importance 'taylor' needs a model"),
        (lambda: hollow(Refusing), {"checkpoint": ".", "importance": "wanda", "data": [X]}, "needs a model that runs"),
        (lambda: hollow(Refusing), {"checkpoint": ".", "data": [X]}, "data= needs a model that runs"),
        (
            lambda: nn.utils.parametrizations.weight_norm(hollow(lambda: nn.Linear(4, 2))),
            {"checkpoint": "."},
            "wears masks or norms",
        ),
    ],
)
def test_what_cannot_be_done(make: Any, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        surgery.choose(make(), X, **settings)


def test_pruning_wants_the_weights() -> None:
    with pytest.raises(InputError, match="prune computes with the weights"):
        surgery.prune(hollow(Refusing), X, checkpoint=".")


def test_uniform_compares_outputs(tmp_path: Path) -> None:
    net = NETS["llama"]
    sharded(lively(net.make), tmp_path)
    with pytest.raises(InputError, match="uniform compares the outputs"):
        surgery.choose(hollow(net.make), (), net.kwargs, checkpoint=tmp_path, uniform=True)
    net = NETS["residual"]
    (tmp_path / "other").mkdir()
    sharded(real := lively(net.make), tmp_path / "other")
    plan = surgery.choose(hollow(net.make), net.args, checkpoint=tmp_path / "other", uniform=True)
    assert_same(plan, surgery.choose(real, net.args, uniform=True))


def test_nan_is_named(tmp_path: Path) -> None:
    real = lively(Refusing)
    with torch.no_grad():
        real.b.weight[0, 1] = torch.nan  # type: ignore[union-attr, index, operator]
    sharded(real, tmp_path)
    with pytest.raises(InputError, match=r"b\.weight \(1 NaN\)"):
        surgery.choose(hollow(Refusing), X, checkpoint=tmp_path)
