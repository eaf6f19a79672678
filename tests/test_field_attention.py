"""Attention blocks that users of other tools stumble over: exact here and smaller by the count, or named."""

from __future__ import annotations

import pytest
import torch

from tests import attention_models as models
from tests import nets
from tests.exactness import chosen, parameters, shrunk

IMAGE = nets.image(3, 8)
TOKENS = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(3))
EVEN = ((1, 0), (3, 0), (2, 4))
FLAT = ((1, 0), (3, 0))


def deafen_(layer: torch.nn.Module, columns: range) -> None:
    """Zero the columns that read some channels."""
    nets.zero_(layer.weight, columns, dim=1)


def test_yolov10_attention() -> None:
    """A head takes q, k and v of its own widths, and its channels of the depthwise convolution. Others never end."""
    net = nets.lively(models.YoloAttention())
    deafen_(net.proj, range(4, 8))
    result = shrunk(net, IMAGE, shapes=EVEN)
    assert result.params_before - result.params_after == 8 * 13 + 4 * 10 + 4 * 12
    assert result.model.num_heads == 2
    assert result.model.pe.groups == 8
    assert result.model.scale == net.scale
    _, slim = chosen(nets.lively(models.YoloAttention()), IMAGE, shapes=EVEN)
    assert parameters(slim) < 0.5 * parameters(net)


@pytest.mark.parametrize("how", ["index", "unbind", "chunk"])
def test_vit_qkv_in_one_layer(how: str) -> None:
    """Others: IndexError, or a wrong view even with hints."""
    net = nets.lively(models.VitBlock(how))
    deafen_(net.proj, range(4, 8))
    deafen_(net.fc2, range(8))
    result = shrunk(net, IMAGE, shapes=FLAT)
    assert result.params_before - result.params_after == 4 * (3 * 13 + 12) + 8 * (13 + 12)
    _, slim = chosen(nets.lively(models.VitBlock(how)), IMAGE, shapes=FLAT)
    assert parameters(slim) < 0.7 * parameters(net)


def test_bert_with_a_literal_view() -> None:
    """Others run, with heads mixed. The code insists on 3 heads of 4, and gets 2 written into it."""
    net = nets.lively(models.Literal())
    deafen_(net.out, range(4, 8))
    deafen_(net.down, range(8))
    result = shrunk(net, TOKENS, shapes=FLAT)
    assert result.params_before - result.params_after == 4 * (3 * 7 + 6) + 8 * (7 + 6)
    assert "the code of one module runs with numbers in the place of sizes that it insists on, as in forward:" in str(
        result
    )
    longer = torch.randn(3, 12, 6)
    with torch.no_grad():
        torch.testing.assert_close(result.model(longer), net(longer), rtol=1e-5, atol=1e-5)
    whole = shrunk(net, TOKENS, shapes=FLAT, keep_class=True)
    assert whole.params_before - whole.params_after == 8 * (7 + 6)
    assert "cannot run narrower" in whole.plan.explain("q.weight", 4)


def test_restormer() -> None:
    """Heads with their temperature, gate and value of the MLP together; others: IndexError, over-pruned."""
    net = nets.lively(models.Restormer())
    deafen_(net.proj, range(4, 8))
    deafen_(net.out, range(4))
    result = shrunk(net, IMAGE, shapes=EVEN)
    heads, gated = 3 * 4 * (13 + 10) + 4 * 12 + 1, 4 * (2 * (13 + 10) + 12)
    assert result.params_before - result.params_after == heads + gated
    _, slim = chosen(nets.lively(models.Restormer()), IMAGE, shapes=EVEN)
    assert parameters(slim) < 0.5 * parameters(net)


def test_swin_patch_merging() -> None:
    """What the LayerNorm averages over stays, with that reason; what comes after it goes. Others: shape error."""
    plan, slim = chosen(nets.lively(models.Merging()), IMAGE, shapes=EVEN)
    assert slim.embed.out_channels == 6
    assert plan.explain("embed.weight", 0) == (
        "embed.weight[0] (dim 0) stays: pinned: layer_norm averages over this axis (norm)"
    )
    assert slim.reduction.out_features == 6


def test_gate_and_up_in_one_layer() -> None:
    """Half of each half; others remove 89 % when asked for 50 %."""
    _, slim = chosen(nets.lively(models.GateUp()), TOKENS, shapes=FLAT)
    assert (slim.gate_up.out_features, slim.down.in_features) == (10, 5)
