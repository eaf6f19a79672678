from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import surgery
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.targeting import clock
from surgery.targeting.aiming import measured_again
from tests.targeting.stand_in import StandIn, by_macs, stand_in

assert stand_in  # a fixture


class Residual(nn.Module):
    """A stream of 32 channels through two blocks, and a stage of 64."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.one, self.two = nn.Conv2d(32, 64, 3, padding=1), nn.Conv2d(64, 32, 3, padding=1)
        self.three, self.four = nn.Conv2d(32, 64, 1), nn.Conv2d(64, 32, 1)
        self.down = nn.Conv2d(32, 64, 3, padding=1, stride=2)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.two(self.one(x).relu())
        x = x + self.four(self.three(x).relu())
        out: Tensor = self.head(self.down(x).relu().mean((2, 3)))
        return out


IMAGE = torch.randn(2, 3, 12, 12)
DENSE_MS = by_macs(Residual(), Inputs.of(IMAGE))


@pytest.mark.parametrize("target", [0.8, 0.5, "30%", "6.5ms", "3000us", 6.5])
@pytest.mark.parametrize("global_", [None, True, False])
def test_the_slim_model_takes_what_was_asked_for(stand_in: StandIn, target: float | str, global_: bool | None) -> None:
    net = Residual()
    plan = surgery.choose(net, IMAGE, latency=target, global_=global_)
    aim = plan.aim
    assert aim is not None
    assert aim.reached, str(aim)
    slim = plan.apply(net)
    assert by_macs(slim, Inputs.of(IMAGE)) == pytest.approx(aim.target_ms, rel=0.05)
    assert surgery.verify(plan.mask(net), slim, IMAGE).passed
    assert surgery.Plan.from_json(plan.to_json()) == plan
    assert "within 5 % of it" in str(plan)


def test_widths_suit_the_kernels_and_only_where_that_will_do(stand_in: StandIn) -> None:
    net = Residual()
    slim = surgery.choose(net, IMAGE, latency=0.6).apply(net)
    assert all(layer.out_channels % 8 == 0 for layer in slim.children() if isinstance(layer, nn.Conv2d))
    aim = surgery.choose(Residual(), IMAGE, latency=0.04).aim  # all groups at 8 channels take more than that
    assert aim is not None
    assert aim.reached, str(aim)
    with pytest.raises(InputError, match="cannot be reached"):
        surgery.choose(Residual(), IMAGE, latency=0.04, round_to=8)


class TwoBranches(nn.Module):
    """Two hidden layers of the same weights, one of which is run on a hundred times as many pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.near_out = nn.Conv2d(3, 64, 1, bias=False), nn.Conv2d(64, 4, 1, bias=False)
        self.far, self.far_out = nn.Conv2d(3, 64, 1, bias=False), nn.Conv2d(64, 4, 1, bias=False)
        self.far.weight, self.far_out.weight = (
            nn.Parameter(w.clone()) for w in (self.near.weight, self.near_out.weight)
        )

    def forward(self, x: Tensor) -> Tensor:
        big = self.near_out(self.near(x).relu()).mean((2, 3))
        small = self.far_out(self.far(nn.functional.avg_pool2d(x, 10)).relu()).mean((2, 3))
        out: Tensor = big + small
        return out


def test_what_costs_more_time_for_the_same_worth_goes_first(stand_in: StandIn) -> None:
    net, image = TwoBranches(), torch.randn(1, 3, 40, 40)
    slim = surgery.choose(net, image, latency=0.6, round_to=1).apply(net)
    assert slim.near.out_channels < 44
    assert slim.far.out_channels == 64


def test_what_takes_no_less_time_for_being_narrow_is_left_alone(stand_in: StandIn) -> None:
    def takes(model: nn.Module, inputs: Inputs) -> float:  # kernels that do not care how wide `one` is
        assert isinstance(model, Residual)
        return 1.0 + model.three.out_channels / 64 + model.down.out_channels / 64

    stand_in.takes = takes
    net = Residual()
    slim = surgery.choose(net, IMAGE, latency=0.6).apply(net)
    assert slim.one.out_channels == 64
    assert slim.stem.out_channels == 32
    assert slim.three.out_channels < 64
    assert slim.down.out_channels < 64


def test_a_target_that_is_corrected_where_the_table_was_wrong(stand_in: StandIn) -> None:
    """Latency falls with the product of widths and in steps, of which a table of single groups knows nothing."""

    def takes(model: nn.Module, inputs: Inputs) -> float:
        assert isinstance(model, Residual)
        one, stem, down = (-(-m.out_channels // 8) * 8 for m in (model.one, model.stem, model.down))
        return 0.2 + (one * stem) ** 1.5 / 1e5 + (stem * down) ** 1.5 / 1e5

    stand_in.takes = takes
    aim = surgery.choose(Residual(), IMAGE, latency=0.45).aim
    assert aim is not None
    assert aim.reached, str(aim)


def test_measurements_that_scatter_by_a_percent_do_not_matter(stand_in: StandIn) -> None:
    stand_in.noise = lambda call: 1.0 + 0.01 * (-1) ** call
    net = Residual()
    plan = surgery.choose(net, IMAGE, latency=0.5)
    assert by_macs(plan.apply(net), Inputs.of(IMAGE)) == pytest.approx(0.5 * DENSE_MS, rel=0.05)


def test_what_cannot_be_had_is_explained(stand_in: StandIn) -> None:
    stand_in.takes = lambda model, inputs: 1.0 if by_macs(model, inputs) < 0.7 * DENSE_MS else 3.0  # nothing between
    aim = surgery.choose(Residual(), IMAGE, latency=0.6).aim
    assert aim is not None
    assert not aim.reached
    assert "nothing nearer was found" in aim.note
    assert "33.3%" in aim.note
    assert "below" in str(aim) or "above" in str(aim)


@pytest.mark.parametrize("target", [0.01, "1us", "0.001ms"])
def test_what_cannot_be_reached_is_refused_with_the_best_that_can(stand_in: StandIn, target: float | str) -> None:
    with pytest.raises(InputError) as caught:
        surgery.choose(Residual(), IMAGE, latency=target, min_keep=0.25)
    assert re.search(
        r"cannot be reached in eager: with all that may go gone, [\d.]+ ms are left \(\d+\.\d%", str(caught.value)
    )


def test_a_model_that_is_fast_enough_stays_whole(stand_in: StandIn) -> None:
    plan = surgery.choose(Residual(), IMAGE, latency="1s")
    assert plan.empty
    assert plan.aim is not None
    assert "as fast" in plan.aim.note


def test_models_that_the_runtime_refuses_are_left_out_of_the_table(stand_in: StandIn) -> None:
    stand_in.refuses = lambda model: model.three.out_channels == 64 and model.one.out_channels == 8
    aim = surgery.choose(Residual(), IMAGE, latency=0.5).aim
    assert aim is not None
    assert aim.reached


def test_a_slim_model_that_the_runtime_refuses_is_passed_over(stand_in: StandIn) -> None:
    net = Residual()
    first = surgery.choose(net, IMAGE, latency=0.5, importance=worths).apply(net)
    widths = [tuple(weight.shape) for weight in first.parameters()]
    stand_in.refuses = lambda model: [tuple(weight.shape) for weight in model.parameters()] == widths
    aim = surgery.choose(Residual(), IMAGE, latency=0.5, importance=worths).aim
    assert aim is not None
    assert aim.reached, str(aim)


def worths(model: nn.Module) -> dict[str, Tensor]:
    """Scores that do not depend on how the model was drawn."""
    return {f"{name}.weight": 1 + torch.arange(layer.weight.shape[0]) for name, layer in model.named_children()}


def test_where_all_that_come_near_are_refused_the_reason_is_told(stand_in: StandIn) -> None:
    stand_in.refuses = lambda model: 0.2 < by_macs(model, Inputs.of(IMAGE)) / DENSE_MS < 0.45
    aim = surgery.choose(Residual(), IMAGE, latency=0.3).aim
    assert aim is not None
    assert not aim.reached
    assert "more could not be timed in eager" in aim.note
    stand_in.refuses = lambda model: by_macs(model, Inputs.of(IMAGE)) < 0.99 * DENSE_MS
    with pytest.raises(InputError, match="no narrower model can be timed in eager\n  -> choose another runtime"):
        surgery.choose(Residual(), torch.randn(2, 3, 13, 13), latency=0.3)


def test_the_narrowest_that_can_be_timed_is_where_the_search_ends(stand_in: StandIn) -> None:
    stand_in.refuses = lambda model: model.stem.out_channels == 1
    aim = surgery.choose(Residual(), IMAGE, latency=0.5, round_to=1).aim
    assert aim is not None
    assert aim.reached, str(aim)


@pytest.mark.parametrize("scored", [(), ("stem", "one")])
def test_channels_that_score_nothing_go_only_as_far_as_the_latency_asks(
    stand_in: StandIn, scored: tuple[str, ...]
) -> None:
    def importance(model: nn.Module) -> dict[str, Tensor]:
        return {name: scores * any(map(name.startswith, scored)) for name, scores in worths(model).items()}

    aim = surgery.choose(Residual(), IMAGE, latency=0.5, importance=importance).aim
    assert aim is not None
    assert aim.reached, str(aim)


def test_of_two_misses_the_smaller_is_handed_over(stand_in: StandIn) -> None:
    def takes(model: nn.Module, inputs: Inputs) -> float:  # odd widths are a lot slower
        odd = any(layer.out_channels % 8 for layer in model.children() if isinstance(layer, nn.Conv2d))
        by = by_macs(model, inputs) / DENSE_MS
        return 1.0 if by > 0.99 else 0.1 if by < (0.03 if odd else 0.1) else 0.9 if odd else 0.7

    stand_in.takes = takes
    aim = surgery.choose(Residual(), IMAGE, latency=0.6).aim
    assert aim is not None
    assert aim.share == 0.7, str(aim)


def test_uniform_widths_have_readings_of_their_own(stand_in: StandIn) -> None:
    surgery.choose(Residual(), IMAGE, latency=0.5, global_=False)
    plain, stand_in.table[:] = list(stand_in.table), []
    surgery.choose(Residual(), IMAGE, latency=0.5, uniform=True)
    assert len(stand_in.table) == len(plain)


def test_a_table_is_measured_once_for_all_importances_of_a_call(stand_in: StandIn) -> None:
    surgery.choose(Residual(), IMAGE, latency=0.5)
    whole, stand_in.table[:] = list(stand_in.table), []
    surgery.choose(Residual(), IMAGE, latency=0.5, importance="l1")
    assert len(whole) > 8
    assert not stand_in.table
    surgery.choose(Residual(), torch.randn(2, 3, 14, 14), latency=0.5)  # another call: nothing is known of it
    assert len(stand_in.table) >= 8


def test_ctrl_c_loses_only_what_was_being_measured(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "AT_ONCE", 2)
    stand_in.stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        surgery.choose(Residual(), IMAGE, latency=0.5)
    before, stand_in.stop_after = list(stand_in.table), None
    surgery.choose(Residual(), IMAGE, latency=0.5)
    assert len(before) >= 6
    assert len(stand_in.table) == len(set(stand_in.table)) > len(before)  # each once


class Block(nn.Module):
    """`x + f(x)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(width, 64, 3, padding=1), nn.Conv2d(64, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(self.up(x).relu())
        return out


class Deep(nn.Module):
    """Four blocks, of which the third adds least."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 5)
        self.blocks = nn.Sequential(*(Block(16) for _ in range(4)))
        nn.init.uniform_(self.blocks[2].down.weight, -1e-3, 1e-3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.stem(x).relu()).mean((2, 3)))
        return out


@pytest.mark.parametrize("global_", [None, False])
def test_whole_blocks_go_first_and_widths_make_up_the_rest(stand_in: StandIn, global_: bool | None) -> None:
    net = Deep()
    plan = surgery.choose(net, IMAGE, latency=0.4, depth=1, global_=global_)
    assert [bypass.module for bypass in plan.bypasses] == ["blocks.2"]
    assert plan.aim is not None
    assert plan.aim.reached, str(plan.aim)
    slim = plan.apply(net, IMAGE)
    taken = by_macs(slim, Inputs.of(IMAGE)) / by_macs(net, Inputs.of(IMAGE))  # beside the net with all its blocks
    assert taken == pytest.approx(0.4, rel=0.05)


def test_where_the_blocks_are_enough_no_channel_goes(stand_in: StandIn) -> None:
    net = Deep()
    plan = surgery.choose(net, IMAGE, latency=0.8, depth=2)
    assert plan.removed_channels == 0
    assert len(plan.bypasses) == 2
    assert plan.aim is not None
    assert "without these blocks it is as fast" in plan.aim.note
    assert plan.apply(net, IMAGE).blocks[0].up.out_channels == 64


def test_prune_measures_the_model_that_it_hands_back(stand_in: StandIn) -> None:
    data = [torch.randn(16, 3, 12, 12) for _ in range(3)]
    result = surgery.prune(Residual(), IMAGE, data=data, latency=0.5, runtime="eager", threads=1)
    aim = result.plan.aim
    assert aim is not None
    assert aim.reached
    assert aim.slim_ms == pytest.approx(by_macs(result.model, Inputs.of(IMAGE)))
    assert "latency 0.5" in str(result)
    assert result.proof is not None
    assert result.proof.passed


def test_prune_says_that_what_was_dead_before_went_too(stand_in: StandIn) -> None:
    net = Residual()
    for layer in (net.one, net.three):
        prune.ln_structured(layer, "weight", 0.5, 2, 0)  # with live biases: constants, which go exactly
    aim = surgery.prune(net, IMAGE, data=[torch.randn(16, 3, 12, 12)], latency=0.95).plan.aim
    assert aim is not None
    assert not aim.reached
    assert aim.off < 0
    assert "channels more than were chosen did nothing, and went, too" in str(aim)


def test_an_aim_is_measured_again_with_the_same_words(stand_in: StandIn) -> None:
    net = Residual()
    plan = surgery.choose(net, IMAGE, latency=0.5, threads=2)
    assert plan.aim is not None
    again = measured_again(plan.aim, net, net, Inputs.of(IMAGE))
    assert again.threads == 2
    assert again.share == 1
    assert not again.reached
    assert "100% above" in str(again)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"latency": 0}, "latency is 0"),
        ({"latency": "12 parsecs"}, "write it as '0.5', '50%', '3500000' or '3.5MS', '3.5S'"),
        ({"latency": 0.5, "macs": 0.5}, "2 budgets were given: macs, latency"),
        ({"latency": 0.5, "runtime": "abacus"}, "abacus"),
        ({"latency": 0.5, "runtime": "cudagraphs"}, "is measured on cuda only"),
        ({"latency": 0.5, "threads": 0}, "threads is 0"),
    ],
)
def test_bad_targets_are_told_before_anything_is_measured(
    stand_in: StandIn, asked: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        surgery.choose(Residual(), IMAGE, **asked)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert not stand_in.calls
