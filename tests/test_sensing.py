"""`surgery.sensitivity`, end to end: what it measures, that the model is left alone, and that it chooses well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from surgery.demo.digits import Digits, load_digits
from surgery.demo.net import DigitNet
from surgery.demo.training import accuracy, scores, train_
from surgery.errors import InputError
from surgery.proof.cost import macs
from surgery.sensing import Interrupted
from surgery.sensitivities import Curve
from tests.attention_models import VitBlock
from tests.nets import lively
from tests.quantizing.nets import Convnet, pictures
from tests.targeting.stand_in import StandIn, stand_in

assert stand_in  # a fixture

X, Y = pictures(48), torch.arange(48) % 4
BATCHES = list(zip(X.split(16), Y.split(16), strict=True))


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Digits]:
    torch.manual_seed(0)
    digits, net = load_digits(), DigitNet(16, 32)
    train_(net, digits, epochs=4, learning_rate=0.01, seed=0, what="training")
    return net, digits


@pytest.mark.parametrize("measured", ["evaluate", "loss", "error"])
def test_every_point_is_that_of_the_masked_model(measured: str) -> None:
    model = lively(Convnet())

    def evaluate(net: nn.Module) -> float:
        assert not net.training
        return float(net(X).square().mean())

    def value(net: nn.Module) -> float:
        with torch.no_grad():
            if measured == "evaluate":
                return evaluate(net)
            if measured == "loss":
                return float(F.cross_entropy(net(X), Y))
            wanted, found = model(X).double(), net(X).double()
            return float((wanted - found).norm() / (wanted - wanted.mean()).norm())

    given: dict[str, dict[str, Any]] = {
        "evaluate": {"evaluate": evaluate},
        "loss": {"data": BATCHES, "loss": F.cross_entropy},
        "error": {"data": X},
    }
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = surgery.sensitivity(model.train(), X[:2], ratios=(0.5, 0.25), **given[measured])
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.eval()
    assert (found.measured, found.ratios, found.model) == (measured, (0.25, 0.5), "Convnet")
    assert found.samples == (0 if measured == "evaluate" else 48)
    assert found.dense == pytest.approx(value(model), abs=1e-6)
    assert [curve.name for curve in found.curves] == ["stem.weight"]
    curve = found.curves[-1]
    assert [(point.ratio, point.removed) for point in curve.points] == [(0.25, 4), (0.5, 8)]
    for point in curve.points:
        plan_like = surgery.choose(model, X[:2], keep_ratio=1 - point.ratio)
        assert point.value == pytest.approx(value(plan_like.mask(model)), rel=1e-4)


def test_the_lowest_go_first_and_what_is_protected_is_not_measured() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    x = torch.randn(20, 6)
    found = surgery.sensitivity(model, x, data=x, protect=["0"], importance="l1")
    assert [curve.name for curve in found.curves] == ["2.weight"]
    norms = model[2].weight.abs().sum(1)
    assert list(found.curves[0].order) == norms.argsort().tolist()
    assert found.importance == "l1"
    plan = surgery.choose(model, x, keep_ratio=0.8, importance=found, global_=True)
    assert model[0].weight.shape[0] == len(plan.axis("0.weight").keep), "what was not measured stays whole"
    assert set(plan.axis("2.weight").keep) == set(norms.topk(10).indices.tolist()), "a fifth of 12 goes"


class Branches(nn.Module):
    """Two hidden layers side by side; what reads the first nearly ignores it, however large its weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.ignored, self.needed = nn.Linear(6, 32), nn.Linear(6, 32)
        self.reads_ignored, self.reads_needed = nn.Linear(32, 4), nn.Linear(32, 4)
        with torch.no_grad():
            self.reads_ignored.weight *= 1e-4

    def forward(self, x: Tensor) -> Tensor:
        return self.reads_ignored(torch.relu(self.ignored(x))) + self.reads_needed(torch.relu(self.needed(x)))


@pytest.mark.parametrize("measured", ["error", "loss"])
def test_a_group_that_its_reader_nearly_ignores_is_given_up_first(measured: str) -> None:
    torch.manual_seed(0)
    model, x = Branches().eval(), torch.randn(64, 6)
    wanted = model(x).detach()
    data: Any = x if measured == "error" else [(x, wanted)]
    found = surgery.sensitivity(model, x[:2], data=data, loss=None if measured == "error" else F.mse_loss)
    assert found.measured == measured
    curves = {curve.name: curve for curve in found.curves}
    ignored, needed = (found.rises(curves[f"{name}.weight"]) for name in ("ignored", "needed"))
    assert ignored[-1] < 0.01 * needed[0]
    plan = surgery.choose(model, x[:2], keep_ratio=0.6, importance=found, global_=True)
    assert [len(plan.axis(f"{name}.weight").keep) for name in ("ignored", "needed")] == [7, 32]
    alike = surgery.choose(model, x[:2], keep_ratio=0.6, global_=True)
    assert len(alike.axis("ignored.weight").keep) > 12, "norms over their mean do not tell"


def test_heads_go_whole() -> None:
    model, x = lively(VitBlock("unbind", 24)), torch.randn(4, 3, 8, 8)
    found = surgery.sensitivity(model, x[:2], data=x, ratios=(0.4, 0.7))
    heads = next(curve for curve in found.curves if curve.name == "qkv.weight")
    assert heads.channels == 24
    assert [point.removed for point in heads.points] == [8, 16]
    assert [place // 8 for place in heads.order] == sorted((place // 8 for place in heads.order), key=heads_in(heads))
    plan = surgery.choose(model, x[:2], keep_ratio=0.6, importance=found)
    assert plan.axis("proj.weight", 1).removed == 8


def heads_in(curve: Curve) -> Any:
    """The place at which the head of a position comes first."""
    return [place // 8 for place in curve.order].index


def test_on_a_trained_net_it_loses_less_than_norms_that_are_cut_alike(trained: tuple[nn.Module, Digits]) -> None:
    net, digits = trained
    x = digits.pictures[:2]
    data = [(digits.pictures[:400], digits.labels[:400])]
    found = surgery.sensitivity(net, x, data=data, loss=F.cross_entropy)
    right = {}
    for name, settings in {"sensitivity": {"importance": found, "global_": True}, "l2": {}}.items():
        slim = surgery.choose(net, x, macs=0.9, **settings).apply(net)
        right[name] = accuracy(scores(slim, digits.test_pictures), digits.test_labels)
    assert right["sensitivity"] > right["l2"] + 0.1
    again = surgery.choose(net, x, macs=0.9, importance=surgery.Sensitivity.from_json(found.to_json()), global_=True)
    assert again == surgery.choose(net, x, macs=0.9, importance=found, global_=True)


def test_an_importance_over_a_generator_leaves_samples_to_measure_on() -> None:
    found = surgery.sensitivity(
        lively(Convnet()), X[:2], data=iter(BATCHES), loss=F.cross_entropy, importance="taylor", samples=20
    )
    assert (found.samples, found.importance) == (20, "taylor")


def chain() -> nn.Module:
    return lively(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)))


ROWS = torch.randn(40, 4, generator=torch.Generator().manual_seed(3))


def test_groups_are_measured_one_at_a_time() -> None:
    model = chain()
    found = surgery.sensitivity(model, ROWS[:2], evaluate=lambda net: float(net(ROWS).square().sum()), ratios=(0.5,))
    assert [curve.name for curve in found.curves] == ["0.weight", "2.weight"]
    for curve, other in zip(found.curves, ("4.weight", "0.weight"), strict=True):
        masked = surgery.choose(model, ROWS[:2], protect=[other]).mask(model)
        assert curve.points[0].value == pytest.approx(float(masked(ROWS).detach().square().sum()), rel=1e-5)


def test_a_measure_by_which_cuts_are_better_is_told() -> None:
    found = surgery.sensitivity(chain(), ROWS[:2], evaluate=lambda net: -float(net(ROWS).square().sum()))
    assert found.notes == (
        "evaluate returned more for most cuts than for the whole model, which counts as better: is that meant?",
    )
    assert found.notes[0] in str(found)


def test_what_cannot_go_alone_is_told() -> None:
    model = lively(VitBlock("unbind", 24))
    found = surgery.sensitivity(model, torch.randn(2, 3, 8, 8), data=torch.randn(4, 3, 8, 8), ratios=(0.25,))
    assert found.notes == ("not measured, for no such share can go while all others stay: qkv.weight",)
    assert [curve.name for curve in found.curves] == ["fc1.weight"]


def test_a_point_that_is_no_number_counts_as_the_worst() -> None:
    values = iter([1.0, 2.0, float("inf"), 1.5, 4.0])  # the dense model, then two groups at two ratios

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum() * 0 + next(values)

    found = surgery.sensitivity(chain(), ROWS[:2], data=[ROWS], loss=loss, ratios=(0.25, 0.5))
    assert [[point.value for point in curve.points] for curve in found.curves] == [[2.0, None], [1.5, 4.0]]
    assert [found.rises(curve) for curve in found.curves] == [(1.0, 3.0), (0.5, 3.0)]
    assert surgery.Sensitivity.from_json(found.to_json()) == found
    assert "none" in found.table()


def test_ctrl_c_keeps_whole_groups() -> None:
    calls: list[bool] = []

    def evaluate(net: nn.Module) -> float:
        calls.append(net.training)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return float(net(ROWS).sum())

    with pytest.raises(Interrupted) as stopped:
        surgery.sensitivity(chain(), ROWS[:2], evaluate=evaluate)
    found = stopped.value.sensitivity
    assert found.interrupted
    assert [curve.name for curve in found.curves] == ["0.weight"]
    assert str(found).endswith("interrupted: the groups above are those that were measured")
    plan = surgery.choose(chain(), ROWS[:2], importance=found, global_=True, keep_ratio=0.75)
    assert len(plan.axis("2.weight").keep) == 8, "what was not measured stays"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "there is nothing to measure the model by"),
        ({"data": X, "ratios": ()}, "ratios is empty"),
        ({"data": X, "ratios": (0.5, 1.0)}, "ratios is 0.5, 1"),
        ({"data": X, "ratios": 0.5}, "ratios is 0.5"),
        ({"data": X, "ratios": ("half",)}, "ratios is ('half',)"),
        ({"data": X, "samples": 0}, "samples is 0"),
        ({"data": []}, "the data is empty"),
        ({"data": X[0]}, "item 0 of the data: x has shape [3, 12, 12], the example [2, 3, 12, 12]"),
        ({"data": [torch.randn(2, 4, 12, 12)], "loss": F.cross_entropy}, "Convnet fails on item 0 of the data"),
        ({"data": BATCHES, "loss": lambda out, y: out.mean() * float("nan")}, "the loss of the dense model is nan"),
        ({"data": BATCHES, "loss": lambda out: out}, "the loss fails on item 0 of the data"),
        ({"evaluate": lambda net: float("nan")}, "evaluate returned NaN for the dense model"),
        ({"evaluate": lambda net: net.nothing}, "evaluate raised AttributeError"),
        ({"data": X, "protect": ["*"]}, "no channel may go"),
        ({"data": X, "importance": "l3"}, "unknown importance 'l3'"),
        ({"data": X, "importance": "taylor"}, "there is no loss"),
    ],
)
def test_what_cannot_be_measured_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as raised:
        surgery.sensitivity(lively(Convnet()), X[:2], **given)
    assert told in raised.value.fact
    assert raised.value.way_out


class Given:
    """Scores, and whether those of different groups are comparable."""

    def __init__(self, scores: dict[str, Tensor], comparable: bool) -> None:
        self.scores, self.comparable = scores, comparable

    def __call__(self, net: nn.Module) -> dict[str, Tensor]:
        return self.scores


def test_scores_say_that_they_are_comparable_by_an_attribute() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    x, low = torch.randn(4, 6), torch.arange(1.0, 9.0)
    given = [Given({"0.weight:0": low, "2.weight": 100 * low}, flag) for flag in (True, False)]
    found = [surgery.choose(model, x, keep_ratio=0.75, importance=one, global_=True) for one in given]
    assert [len(plan.axis("0.weight").keep) for plan in found] == [4, 6]
    assert [len(plan.axis("2.weight").keep) for plan in found] == [8, 6]


@pytest.mark.parametrize("comparable", [True, False])
def test_a_latency_is_paid_for_by_the_group_that_costs_least(stand_in: StandIn, comparable: bool) -> None:
    stand_in.takes = lambda net, inputs: macs(net, inputs) / 1e6
    low = torch.arange(1.0, 33.0)
    scores_of = Given({"ignored.weight": 1e-4 * low, "needed.weight": low}, comparable)
    model, x = Branches().eval(), torch.randn(64, 6)
    plan = surgery.choose(model, x, latency=0.6, importance=scores_of)
    assert plan.aim is not None
    assert plan.aim.reached
    kept = [len(plan.axis(f"{name}.weight").keep) for name in ("ignored", "needed")]
    assert kept == [8, 32] if comparable else min(kept) > 12


def test_positions_without_a_comparable_score_stay() -> None:
    def importance(net: nn.Module) -> dict[str, Any]:
        return {"0.weight": np.array([1.0, np.nan, 0.5, np.nan, 2.0, 3.0])}

    importance.comparable = True  # type: ignore[attr-defined]
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    plan = surgery.choose(model, torch.randn(2, 4), keep_ratio=0.5, importance=importance)
    assert plan.axis("0.weight").keep == (1, 3, 5)
