from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.testing import assert_close

from surgery.errors import InputError
from surgery.masks import apply_keep_masks_


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)
        self.head.weight = self.fc.weight


KEEP = torch.tensor([True, False, True, False])


@pytest.mark.parametrize("name", ["conv1", "conv1.weight"])
@pytest.mark.parametrize("mask", [KEEP, KEEP.int(), KEEP.float(), KEEP[:, None, None, None].expand(4, 3, 3, 3)])
def test_true_stays(name: str, mask: torch.Tensor) -> None:
    net = Net()
    before = net.conv1.weight.detach().clone()
    bias = net.conv1.bias.detach().clone()
    apply_keep_masks_(net, {name: mask})
    assert_close(net.conv1.weight[KEEP], before[KEEP], rtol=0, atol=0)
    assert (net.conv1.weight[~KEEP] == 0).all()
    assert_close(net.conv1.bias, bias, rtol=0, atol=0)
    assert net.conv1.weight.requires_grad


def test_a_masked_value_may_be_nan() -> None:
    net = Net()
    with torch.no_grad():
        net.conv1.weight[1] = torch.nan
    apply_keep_masks_(net, {"conv1": KEEP})
    assert net.conv1.weight.isfinite().all()


def test_a_bias_can_be_masked() -> None:
    net = Net()
    apply_keep_masks_(net, {"conv1.bias": KEEP})
    assert (net.conv1.bias == 0).tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            {"conv2": KEEP},
            "a keep mask names 'conv2', which is neither a parameter nor a module of the model\n"
            "  -> did you mean 'conv1'?",
        ),
        (
            {"zzz": KEEP},
            "a keep mask names 'zzz', which is neither a parameter nor a module of the model\n"
            "  -> use the names of model.named_parameters()",
        ),
        ({"relu": KEEP}, "the module 'relu' (ReLU) has no weight to mask\n  -> name a parameter"),
        (
            {"conv1": torch.ones(3, dtype=torch.bool)},
            "the keep mask of 'conv1' has the shape [3], its parameter [4, 3, 3, 3]\n"
            "  -> give it the shape [4, 3, 3, 3], or [4] for one entry per output channel (dim 0)",
        ),
        (
            {"conv1.bias": torch.ones(4, 1, dtype=torch.bool)},
            "the keep mask of 'conv1.bias' has the shape [4, 1], its parameter [4]\n  -> give it the shape [4]",
        ),
        (
            {"conv1": torch.tensor([1.0, 0.5, 0.0, 1.0])},
            "the keep mask of 'conv1' holds 0.5\n  -> a keep mask is bool, or 0 and 1; True stays",
        ),
        ({"conv1": [1, 0, 1, 0]}, "the keep mask of 'conv1' is a list\n  -> pass a bool tensor, True stays"),
        (
            {"fc": KEEP, "head": ~KEEP},
            "the keep masks of 'fc' and 'head' differ, but both are one shared parameter\n  -> give one mask for it",
        ),
    ],
)
def test_refusals_write_nothing(masks: dict[str, Any], message: str) -> None:
    net = Net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(InputError) as caught:
        apply_keep_masks_(net, {"conv1.weight": KEEP} | masks if "conv1" not in masks else masks)
    assert str(caught.value) == message
    assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_equal_masks_of_a_shared_parameter_are_one() -> None:
    net = Net()
    apply_keep_masks_(net, {"fc": KEEP, "head.weight": KEEP})
    assert (net.head.weight[~KEEP] == 0).all()
    assert net.head.weight is net.fc.weight


def test_a_masked_parameter_is_baked_first() -> None:
    net = Net()
    prune.l1_unstructured(net.conv1, "weight", 0.5)
    with pytest.raises(InputError, match=r"'conv1.weight' already wears a mask or a parametrization\n  -> bake"):
        apply_keep_masks_(net, {"conv1": KEEP})
