"""What other tools do to a zeroed checkpoint, and what we owe: one test per kind of net, with parameters counted out.

The nets are as large as those on which they were measured: 973, 869 and 253 parameters. The biases and shifts of the
zeroed channels are not zero; others lose them, or keep them for thousands of parameters and one fixed resolution.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import surgery
from benchmarks import peers_lines
from benchmarks.judging import over_largest
from benchmarks.peers_lines import DEAD
from surgery.inputs import Inputs
from tests import nets
from tests.exactness import assert_exact, fingerprint, parameters, shrunk

TOKENS = ((1, 0), (3, 0))
"""Batches to try where there is no space to grow in."""


def largest_difference(masked: nn.Module, slim: nn.Module, size: int) -> float:
    """max|slim - masked| / max|masked| in float32: the figure that the other tools were measured by."""
    x = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(11))
    return over_largest(masked, slim, [Inputs.of(x)])


@pytest.mark.parametrize(("sign", "after"), [(-1.0, 573), (1.0, 573 + 100)], ids=["constants of 0", "carrier"])
def test_padded_convolutions_with_bias(sign: float, after: int) -> None:
    """973 -> 573, and one carrier (100 parameters) where the dead still say something; others: 2613, or 3.0e-1."""
    net = peers_lines.padded(sign)
    assert parameters(net) == 973
    result = shrunk(net, nets.image())
    assert (result.params_before, result.params_after, parameters(result.model)) == (973, after, after)
    assert len(result.plan.carries) == (sign > 0)
    assert not result.plan.folds
    for size in (5, 9, 16):
        assert largest_difference(net, result.model, size) <= 1e-6
    assert result.model.conv1.out_channels == result.model.conv2.in_channels == 4 + (sign > 0)


@pytest.mark.parametrize(("sign", "after"), [(-1.0, 465), (1.0, 465 + 101)], ids=["constants of 0", "carrier"])
def test_convolutions_with_batch_norm(sign: float, after: int) -> None:
    """869 -> 465, and one carrier (101 parameters) at most; others: 2493, or 2.2e-2."""
    net = peers_lines.normed(sign)
    assert parameters(net) == 869
    result = shrunk(net, nets.image())
    assert parameters(result.model) == after
    for size in (5, 9, 16):
        assert largest_difference(net, result.model, size) <= 1e-6
    assert result.model.norm1.num_features == 4 + (sign > 0)


def test_residual_net_with_masks_made_layer_by_layer() -> None:
    """Exact, and what the layers disagree about is explained; others: 3.3e-1, 4.0e-1."""
    net = peers_lines.residual()
    result = shrunk(net, nets.image())
    stream, inner_a, inner_b = (group for group in result.plan.groups if group.channels in (12, 10, 14))
    # 0 and 2 are zeroed in all three layers that write the stream. Others are constant where it is padded, and stay
    # because a later layer writes to them: one of those carries what 0 and 2 said over the border
    assert (stream.removed, inner_a.removed) == (2, 5)
    assert inner_b.removed in (6, 7)
    assert 4 <= stream.stranded <= 7
    assert sum(count for _, count in stream.blockers) == stream.stranded
    assert dict(stream.keep_alive)
    text = str(result)
    assert f"stranded: {stream.stranded} zeroed channels of stem.weight stay" in text
    assert "it varies with the input" in text
    assert result.plan.explain("stem.weight", 0).startswith("stem.weight[0] (dim 0) is removed")
    assert result.plan.explain("stem.weight", 6).startswith("stem.weight[6] (dim 0) stays: alive")


def test_a_live_filter_whose_weights_sum_to_zero_is_untouched() -> None:
    """Tests for zero are `all == 0`, never a sum; others: 6.5e-1."""
    net = peers_lines.summed()
    assert net.conv1.weight[2].sum() == 0
    assert not net.conv2.weight[:, 5].sum((1, 2)).any()
    result = shrunk(net, nets.image())
    assert result.plan.empty
    assert parameters(result.model) == 973


def test_mlp_with_gelu() -> None:
    """8 of 16 hidden units go, 8 + 5 parameters each, and their GELU(bias) into the next bias; others: 8.8e-1."""
    net = peers_lines.gelu()
    result = shrunk(net, torch.randn(2, 7), shapes=TOKENS)
    assert parameters(result.model) == 213 - 8 * 13
    assert len(result.plan.folds) == 1


@pytest.mark.parametrize("bias", [False, True], ids=["a bias is made", "a bias is there"])
def test_depthwise_block(bias: bool) -> None:
    """253 -> 157 (and 8 for the bias that takes up what the removed channels said); others: 2261, or 7.7e-2."""
    net = peers_lines.depthwise(bias)
    before = 253 + 8 * bias
    result = shrunk(net, nets.image())
    assert parameters(net) == before
    assert parameters(result.model) == 157 + 8
    assert result.model.depthwise.groups == result.model.depthwise.in_channels == 4


def test_depthwise_block_whose_depthwise_weights_live() -> None:
    """A constant other than 0 that meets the border of its own padded kernel stays, and says so."""
    net = nets.zero_rows_(nets.lively(nets.Depthwise()), expand=DEAD)
    with torch.no_grad():
        shift = net.norm1.running_mean * net.norm1.weight * (net.norm1.running_var + net.norm1.eps).rsqrt()
        net.norm1.bias[DEAD] = shift[DEAD] + torch.tensor([0.5, -0.5, 0.5, -0.5])
    result = shrunk(net, nets.image())
    assert parameters(result.model) == 253 - 2 * 24 + 8
    (group,) = (group for group in result.plan.groups if group.stranded)
    assert group.stranded == 2
    why = result.plan.explain("expand.weight", 1)
    assert why.startswith("expand.weight[1] (dim 0) stays: ")
    assert "depthwise's border" in why or "project reads it, and it varies with the input" in why
    assert result.plan.explain("expand.weight", 3).startswith("expand.weight[3] (dim 0) is removed")


def test_channels_of_which_only_the_readers_columns_are_zero() -> None:
    """Nobody looks at them, whatever they hold; not seen by any other tool."""
    net = peers_lines.columns()
    result = shrunk(net, nets.image())
    assert parameters(result.model) == 573
    assert not result.plan.carries
    assert torch.equal(result.model.conv1.weight, net.conv1.weight[[0, 2, 5, 7]])


def test_channels_that_only_dead_channels_read() -> None:
    """Nobody looks at 4 of the 8 in the middle; what was only for them goes with them, though all its weights live."""
    net = nets.lively(nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 4, 1)))
    nets.zero_(net[2].weight, DEAD, dim=1)
    alive = [0, 2, 5, 7]
    with torch.no_grad():
        for row in alive:
            net[1].weight[row, [1, 4]] = 0  # of 6 inputs, 1 and 4 are for the dead alone
    result = shrunk(net, nets.image())
    assert parameters(result.model) == (4 * 27 + 4) + (4 * 4 * 9 + 4) + (4 * 4 + 4)
    assert result.plan.axis("0.weight").keep == (0, 2, 3, 5)


def test_dead_dims_in_a_layer_norm_stream_are_pinned_with_the_reason() -> None:
    """LayerNorm averages over them: they stay, explained; the inner width goes. Others: 3.0e-1."""
    net = peers_lines.layer_norm()
    result = shrunk(net, torch.randn(2, 3, 6), shapes=TOKENS)
    assert parameters(net) == 696
    assert parameters(result.model) == 696 - 10 * (12 + 1 + 12)
    assert result.plan.explain("embed.weight", 0) == (
        "embed.weight[0] (dim 0) stays: pinned: layer_norm averages over this axis (norm)"
    )


@pytest.mark.parametrize("padding", [0, 1])
def test_grouped_convolution_with_dead_channels_in_different_places_of_each_group(padding: int) -> None:
    """Each conv group keeps its own positions, inputs and outputs; others: 2.8e-1 to 4.7e-1, or a crash."""
    net = peers_lines.grouped(padding)
    result = shrunk(net, nets.image())
    # 12 -> 6 inputs, 15 -> 9 outputs: two of 4 and three of 5 a group
    assert parameters(result.model) == (6 * 3 + 6) + (9 * 2 * 9 + 9) + (4 * 9 + 4)
    grouped = result.model.grouped
    assert (grouped.groups, grouped.in_channels, grouped.out_channels) == (3, 6, 9)
    kept = torch.tensor([2, 3, 0, 3, 1, 2]).reshape(3, 2)  # per group
    rows = torch.tensor([1, 3, 4, 5, 7, 9, 10, 11, 12]).reshape(3, 3)
    for g in range(3):
        assert torch.equal(grouped.weight[3 * g : 3 * g + 3], net.grouped.weight[rows[g]][:, kept[g]])


def test_lstm() -> None:
    """Dead hidden units, dead inputs, dead readers; others crash."""
    net = peers_lines.lstm()
    result = shrunk(net, torch.randn(2, 7, 5), shapes=TOKENS)
    slim = result.model
    assert (slim.inner.out_features, slim.lstm.input_size, slim.lstm.hidden_size) == (5, 5, 4)
    assert (slim.up.in_features, slim.up.out_features) == (4, 7)


@pytest.mark.parametrize(
    "net",
    [nets.PaddedPair, nets.NormPair, nets.Depthwise, nets.Residual, lambda: nets.Grouped(1)],
    ids=["padded", "norm", "depthwise", "residual", "grouped"],
)
def test_the_proof_agrees_with_ours(net: type[nn.Module]) -> None:
    """The whole road with the package's own proof: it passes, and puts nothing back."""
    dense = nets.lively(net())
    example = nets.image()
    masked = surgery.choose(dense, example).mask(dense)
    before = fingerprint(masked)
    result = surgery.shrink(masked, example)
    assert fingerprint(masked) == before
    assert result.proof is not None
    assert result.proof.passed
    assert not result.notes
    assert result.params_after < 0.7 * result.params_before
    assert_exact(masked, result.plan, result.model, example)
