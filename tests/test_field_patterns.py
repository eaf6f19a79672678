"""What users of other tools report, pattern by pattern: each is exact here and really gets smaller.

Half of every group is chosen, masked and shrunk; what is left is counted out by width. Carriers (channels kept so that
padded convolutions stay exact at the border) come on top.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from tests import nets, pattern_nets
from tests.exactness import chosen, parameters, shrunk

X = nets.image(3, 8)
EVEN = ((1, 0), (3, 0), (2, 4))
"""Shapes `(batch, grow)` that stay divisible by 4."""
FLAT = ((1, 0), (3, 0))


def conv(i: int, o: int, k: int = 1, *, bias: bool = True) -> int:
    """Parameters of a convolution."""
    return i * o * k * k + o * bias


def widths(model: nn.Module) -> dict[str, tuple[int, int]]:
    """`(inputs, outputs)` of every convolution and linear layer; its weight must agree."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            found[name] = (module.in_channels, module.out_channels)
            assert tuple(module.weight.shape[:2]) == (module.out_channels, module.in_channels // module.groups)
        elif isinstance(module, nn.ConvTranspose2d):
            found[name] = (module.in_channels, module.out_channels)
            assert tuple(module.weight.shape[:2]) == (module.in_channels, module.out_channels // module.groups)
        elif isinstance(module, nn.Linear):
            found[name] = (module.in_features, module.out_features)
    return found


def carriers(plan: surgery.Plan, name: str, dim: int = 0) -> int:
    """How many channels that a weight writes along `dim` were kept as carriers only."""
    axis = plan.axis(name, dim)
    return sum(code >= 0 and plan.reasons[code].startswith("carrier") for code in axis.why)


@pytest.mark.parametrize("how", ["chunk", "split"])
def test_c2f(how: str) -> None:
    """YOLOv8: both halves, and every bottleneck, go on into one concatenation."""
    _, slim = chosen(nets.lively(pattern_nets.C2f(how)), X)
    w = widths(slim)
    half = w["cv1"][1] // 2
    assert 4 <= half <= 6
    assert w["cv2"] == (4 * half, 5)
    assert all(w[f"m.{i}.cv1"][0] == w[f"m.{i}.cv2"][1] == half and w[f"m.{i}.cv1"][1] <= 5 for i in range(2))
    if how == "split":
        assert slim.c == half, "the attribute that the code splits by"


def test_c2f_with_halves_that_want_different_widths() -> None:
    """`split((c, c))` has one number for both halves: they stay equal; `chunk` halves as well."""
    for how in ("chunk", "split"):
        net = nets.lively(pattern_nets.C2f(how))
        first = [0, 1, 2, 3, 4]
        nets.zero_rows_(net, cv1=first)
        with torch.no_grad():
            net.cv1.bias[first] = 0
        slim = shrunk(net, X).model
        assert slim.cv1.out_channels == 8 + 8, "the other half lives on"
        nets.zero_rows_(net, cv1=[*first, 8, 9])
        with torch.no_grad():
            net.cv1.bias[[8, 9]] = 0
            for m in net.m:
                m.cv2.weight[:2] = m.cv2.bias[:2] = 0
        slim = shrunk(net, X).model
        assert slim.cv1.out_channels == 6 + 6, how
        assert slim.cv2.in_channels == 4 * 6


def test_elan() -> None:
    """YOLOv9: chunk, chained convolutions, a concatenation of 2 + n."""
    _, slim = chosen(nets.lively(pattern_nets.Elan()), X)
    w = widths(slim)
    half = w["cv1"][1] // 2
    assert half <= 5
    assert w["cv2.0"][1] <= 4
    assert w["cv3.0"][1] == 5
    assert w["cv4"] == (2 * half + w["cv2.0"][1] + 5, 6)


@pytest.mark.parametrize("kind", ["view", "module", "function"])
def test_channel_shuffle(kind: str) -> None:
    """ShuffleNet's view, transpose, view, and torch's own, between grouped convolutions. Others: wrong by 11 %."""
    _, slim = chosen(nets.lively(pattern_nets.Shuffled(kind)), X)
    assert widths(slim) == {"stem": (3, 6), "first": (6, 9), "second": (9, 6), "head": (6, 4)}
    assert slim.first.groups == slim.second.groups == 3
    assert parameters(slim) == conv(3, 6) + (9 * 2 + 9) + (6 * 3 * 9 + 6) + conv(6, 4)


@pytest.mark.parametrize("kind", ["view", "module", "function"])
def test_channel_shuffle_with_the_same_places_dead_in_each_group(kind: str) -> None:
    """Positions 0, 2, 4 of each of the 3 groups of 6: after the shuffle one row of three in each of the next groups."""
    net = nets.lively(pattern_nets.Shuffled(kind))
    dead = [6 * g + c for g in range(3) for c in (0, 2, 4)]
    nets.zero_rows_(net, first=dead)
    with torch.no_grad():
        net.first.bias[dead] = -1.0
    assert widths(shrunk(net, X).model)["first"] == (12, 9)


@pytest.mark.parametrize("kind", ["view", "module", "function"])
def test_channel_shuffle_with_different_places_dead_in_each_group_is_exact_and_explained(kind: str) -> None:
    """After the shuffle they arrive in another order than before: what cannot be kept in step stays."""
    net = nets.lively(pattern_nets.Shuffled(kind))
    dead = [0, 2, 4, 7, 9, 11, 12, 15, 16]
    nets.zero_rows_(net, first=dead)
    with torch.no_grad():
        net.first.bias[dead] = -1.0
    result = shrunk(net, X)
    (group,) = (group for group in result.plan.groups if group.name == "first.weight")
    assert group.stranded
    assert sum(count for _, count in group.blockers) == group.stranded


def test_pixel_shuffle_and_unshuffle() -> None:
    """6 channels become 24 and back: the 4 that belong together go together."""
    plan, slim = chosen(nets.lively(pattern_nets.Pixels()), X, shapes=EVEN)
    first = slim.first.out_channels
    assert first == 3 + carriers(plan, "first.weight")
    assert widths(slim) == {"first": (3, first), "inner": (4 * first, 16), "last": (4, 4)}


def test_grouped_convolution_after_cat() -> None:
    """8 + 4 channels into 2 conv groups of 6: the boundary lies inside the first branch."""
    net = nets.lively(pattern_nets.GroupedAfterCat())
    _, slim = chosen(net, X)
    w = widths(slim)
    assert w["left"][1] + w["right"][1] == w["grouped"][0] <= 8
    assert w["grouped"][1] == 8
    dead = {"left": [0, 1, 6], "right": [2]}  # two of the first six, two of the last six
    for name, rows in dead.items():
        nets.zero_rows_(net, **{name: rows})
        with torch.no_grad():
            net.get_submodule(name).bias[rows] = -1.0
    slim = shrunk(net, X).model
    assert widths(slim)["grouped"] == (8, 16)
    assert torch.equal(slim.grouped.weight[:8], net.grouped.weight[:8, [2, 3, 4, 5]])
    assert torch.equal(slim.grouped.weight[8:], net.grouped.weight[8:, [1, 2, 3, 5]])


def test_depthwise_convolution_with_a_multiplier() -> None:
    """8 -> 16: a channel goes with both that are made of it, or with one of two in every group."""
    _, slim = chosen(nets.lively(pattern_nets.Multiplied()), X)
    assert widths(slim) == {"before": (3, 4), "depthwise": (4, 8), "after": (8, 4)}
    assert slim.depthwise.groups == 4
    one_of_two = nets.zero_rows_(nets.lively(pattern_nets.Multiplied()), depthwise=[0, 3, 4, 7, 9, 11, 12, 15])
    slim = shrunk(one_of_two, X).model
    assert widths(slim) == {"before": (3, 8), "depthwise": (8, 8), "after": (8, 4)}
    assert slim.depthwise.groups == 8


def test_grouped_convolution_with_different_places_dead_in_each_group() -> None:
    _, slim = chosen(nets.lively(nets.Grouped()), X)
    assert widths(slim) == {"before": (3, 6), "grouped": (6, 9), "after": (9, 4)}


def test_partial_convolution() -> None:
    """FasterNet: `split([d//4, 3d//4])` by two attributes, one part convolved, `cat`, a shortcut over everything."""
    plan, slim = chosen(nets.lively(pattern_nets.Partial()), X)
    w = widths(slim)
    convolved = w["partial"][0]
    assert convolved in (2, 3)
    untouched = w["stem"][1] - convolved
    assert untouched == 6
    assert w["up"][1] == w["down"][0] == 12
    assert (slim.dim_conv, slim.dim_untouched) == (convolved, untouched)
    assert {edit.attribute for edit in plan.edits} == {"dim_conv", "dim_untouched"}


def test_a_mask_times_channels() -> None:
    """(B, 1, H, W) times 32 channels: the mask is no channel. Others: the whole path becomes untouchable, silently."""
    mask = (torch.rand(2, 1, 8, 8) > 0.4).float()
    _, slim = chosen(nets.lively(pattern_nets.MaskTimes()), (X, mask))
    assert parameters(slim) == conv(3, 16, 3) + conv(16, 3, 3) + conv(3, 4)


def test_linear_view_transposed_convolution_by_attribute() -> None:
    """Linear -> view(-1, self.width, 4, 4) -> ConvTranspose: 16 rows of the Linear are one channel."""
    plan, slim = chosen(nets.lively(pattern_nets.Decoder("attribute")), torch.randn(2, 10), shapes=FLAT)
    assert slim.width == 32
    up = slim.up.out_channels
    assert up == 6 + carriers(plan, "up.weight", 1)
    assert parameters(slim) == (10 + 1) * 32 * 16 + (32 * up * 16 + up) + conv(up, 3, 3)


def test_linear_view_transposed_convolution_by_a_literal_says_why_it_stays() -> None:
    """`view(b, 64, 4, 4)`: the model's own code runs narrower with another number in it, and the report says so."""
    net = nets.lively(pattern_nets.Decoder("literal"))
    dead = torch.arange(32 * 16)
    nets.zero_rows_(net, fc=dead.tolist())
    with torch.no_grad():
        net.fc.bias[dead] = 0
    written = shrunk(net, torch.randn(2, 10), shapes=FLAT)
    assert written.model.fc.weight.shape == (512, 10)
    assert "as in forward: `64` is 32, was 64 (keep_class=True leaves it alone)" in str(written)
    result = shrunk(net, torch.randn(2, 10), shapes=FLAT, keep_class=True)
    assert result.model.fc.out_features == 1024
    why = result.plan.explain("fc.weight", 0)
    assert "cannot run narrower" in why
    assert "nets.py:" in why
    by_attribute = nets.lively(pattern_nets.Decoder("attribute"))
    by_attribute.load_state_dict(net.state_dict())
    assert shrunk(by_attribute, torch.randn(2, 10), shapes=FLAT).model.fc.out_features == 512


def test_focus() -> None:
    """Four strided slices in space, one after the other over channels: a channel goes from all four."""
    plan, slim = chosen(nets.lively(pattern_nets.Focus()), X, shapes=EVEN)
    stem = slim.stem.out_channels
    assert stem == 3 + carriers(plan, "stem.weight")
    assert widths(slim) == {"stem": (3, stem), "conv": (4 * stem, 5), "head": (5, 4)}


def test_all_parameters_frozen() -> None:
    """Nothing asks for gradients: others silently remove nothing."""
    _, slim = chosen(nets.lively(nets.Residual()).requires_grad_(requires_grad=False), X)
    _, trained = chosen(nets.lively(nets.Residual()), X)
    assert parameters(slim) == parameters(trained) < 0.5 * 4303
    assert not any(p.requires_grad for p in slim.parameters())


def test_a_stem_under_no_grad() -> None:
    plan, slim = chosen(nets.lively(pattern_nets.NoGradStem()), X)
    stem = 6 + carriers(plan, "stem.weight")
    assert widths(slim) == {"stem": (3, stem), "conv": (stem, 5), "head": (5, 4)}


class Autocast(pattern_nets.NoGradStem):
    """As above, and the second layer under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.stem(x).relu()
            with torch.autocast("cpu", enabled=False):
                x = self.conv(x).relu()
        return self.head(x)  # type: ignore[no-any-return]


def test_regions_inside_regions() -> None:
    net = Autocast()
    net.load_state_dict(nets.lively(pattern_nets.NoGradStem()).state_dict())
    _, slim = chosen(net.eval(), X)
    assert slim.conv.out_channels == 5


def frozen_of_torchvision(width: int) -> nn.Module:
    from torchvision.ops import FrozenBatchNorm2d

    norm: nn.Module = FrozenBatchNorm2d(width)
    norm.load_state_dict(pattern_nets.FrozenNorm(width).state_dict())
    return norm


@pytest.mark.parametrize("norm", [frozen_of_torchvision, pattern_nets.FrozenNorm], ids=["torchvision", "by hand"])
def test_frozen_batch_norm(norm: Callable[[int], nn.Module]) -> None:
    """Four buffers, no parameters: they are cut with their channels. Others: size mismatch."""
    plan, slim = chosen(nets.lively(pattern_nets.Normed(norm)), X)
    left = 6 + carriers(plan, "conv1.weight")
    assert {name: tuple(b.shape) for name, b in slim.norm.named_buffers()} == dict.fromkeys(
        ("weight", "bias", "running_mean", "running_var"), (left,)
    )
    assert parameters(slim) == conv(3, left, 3, bias=False) + conv(left, 3, 3) + conv(3, 4)


@pytest.mark.parametrize("new", [False, True], ids=["old", "parametrization"])
def test_weight_norm(new: bool) -> None:
    """The row length and direction become one plain weight, which is cut."""
    net = nets.lively(pattern_nets.Normed(nn.BatchNorm2d))
    norm: Any = nn.utils.parametrizations.weight_norm if new else nn.utils.weight_norm
    for name in ("conv1", "conv2", "head"):
        norm(net.get_submodule(name))
    plan, slim = chosen(net, X)
    left = 6 + carriers(plan, "conv1.weight")
    assert widths(slim) == {"conv1": (3, left), "conv2": (left, 3), "head": (3, 4)}
    assert type(slim.conv1) is nn.Conv2d


@pytest.mark.parametrize("track", [True, False], ids=["running statistics", "own statistics"])
def test_instance_norm(track: bool) -> None:
    """Each channel on its own; with running statistics it is a BatchNorm in eval mode. Others: errors."""

    def norm(width: int) -> nn.Module:
        return nn.InstanceNorm2d(width, affine=True, track_running_stats=track)

    plan, slim = chosen(nets.lively(pattern_nets.Normed(norm)), X)
    left = 6 + carriers(plan, "conv1.weight")
    assert slim.norm.num_features == left
    assert parameters(slim) == conv(3, left, 3, bias=False) + 2 * left + conv(left, 3, 3) + conv(3, 4)


def test_two_convolutions_that_share_one_weight() -> None:
    """The weight is cut once, on both sides, and stays one tensor."""
    _, slim = chosen(nets.lively(pattern_nets.TiedConvolutions()), X)
    assert slim.conv1.weight is slim.conv2.weight
    assert parameters(slim) == conv(3, 4) + conv(4, 4, 3) + 4 + conv(4, 4)


def test_two_linear_layers_that_share_one_weight() -> None:
    _, slim = chosen(nets.lively(pattern_nets.TiedLinears()), (torch.randn(2, 6), torch.randn(2, 6)), shapes=FLAT)
    assert slim.first.weight is slim.second.weight
    assert parameters(slim) == 6 * 6 + 6 + 6 + (6 * 4 + 4)


def test_a_write_to_a_shared_weight_must_suit_all_its_readers() -> None:
    """A carrier is a write to a weight: a shared one is left alone, and the channel stays with that reason."""
    net = nets.lively(pattern_nets.TiedConvolutions())
    dead = [0, 1, 2]
    nets.zero_rows_(net, stem=dead, conv1=dead)
    with torch.no_grad():
        net.stem.bias[dead] = 0.5
        net.conv1.bias[dead] = 0.5
        net.conv2.bias[dead] = 0.5
    result = shrunk(net, X)
    assert result.model.stem.out_channels == 8
    assert "its weight is shared" in result.plan.explain("stem.weight", 0)
