"""Real nets of many families, random but lively: masked by a plan, layer by layer, or where they are read; then shrunk.

Every BatchNorm has a mean of N(0, 0.3) and a variance of U(0.5, 1.5), every bias is random, and weights are rescaled
layer by layer until the outputs really depend on the input: an error has somewhere to show.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

import surgery
from tests.exactness import assert_exact, assert_plain, fingerprint

SHAPES = ((1, 0), (3, 32))
"""Batch 1 at the example's resolution, batch 3 at another one."""
HEALTHY = 3e-4
"""Of a net with half of its channels gone; the dense one is at 1e-2 and above."""


def scrambled(model: nn.Module, example: Tensor) -> nn.Module:
    """Random statistics and biases; weights scaled so that every layer's output differs by 1 from image to image."""
    generator = torch.Generator().manual_seed(0)

    def normal(tensor: Tensor, std: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)

    def rescale(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        bias = module.bias if module.bias is not None else out.new_zeros(module.weight.shape[0])
        shape = (1, -1, *[1] * (out.dim() - 2)) if isinstance(module, nn.Conv2d) else (-1,)
        linear = out - bias.reshape(shape)
        scale = 1 / (linear - linear.mean(0, keepdim=True)).std().clamp_min(1e-6)
        module.weight.mul_(scale)
        return linear * scale + bias.reshape(shape)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                normal(parameter, 0.1)
        for module in model.modules():
            if isinstance(module, _NormBase) and module.running_mean is not None and module.running_var is not None:
                normal(module.running_mean, 0.3)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        hooks = [layer.register_forward_hook(rescale) for layer in layers]
        model.eval()(torch.randn(8, *example.shape[1:], generator=generator))
        for hook in hooks:
            hook.remove()
    return model


def torchvision_net(name: str, **settings: Any) -> nn.Module:
    from torchvision import models

    net: nn.Module = models.get_model(name, weights=None, num_classes=10, **settings)
    return net


def timm_net(name: str) -> nn.Module:
    import timm

    net: nn.Module = timm.create_model(name, num_classes=10)
    return net


def small_densenet() -> nn.Module:
    from torchvision.models import DenseNet

    net: nn.Module = DenseNet(16, (3, 3, 3), 32, num_classes=10)
    return net


def transformers_resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=16, hidden_sizes=[32, 48, 64], depths=[2, 2, 2], num_labels=10)
    net: nn.Module = ResNetForImageClassification(config)
    return net


slow = partial(pytest.param, marks=pytest.mark.slow)

NETS = [
    # name, factory, what is left of the parameters at half of the channels
    pytest.param(partial(torchvision_net, "resnet18"), 0.27, id="resnet18"),
    pytest.param(small_densenet, 0.31, id="densenet"),
    slow(partial(torchvision_net, "mobilenet_v3_small"), 0.29, id="mobilenet_v3_small"),
    slow(partial(torchvision_net, "shufflenet_v2_x0_5"), 0.45, id="shufflenet_v2"),
    slow(partial(torchvision_net, "regnet_y_400mf"), 0.37, id="regnet_y"),
    slow(partial(torchvision_net, "squeezenet1_1"), 0.29, id="squeezenet"),
    slow(partial(timm_net, "efficientnet_lite0"), 0.29, id="efficientnet_lite"),
    slow(partial(timm_net, "convnext_atto"), 0.6, id="convnext"),
    slow(partial(timm_net, "repvgg_a0"), 0.3, id="repvgg"),
    slow(partial(timm_net, "fasternet_t0"), 0.29, id="fasternet"),
    slow(partial(timm_net, "hrnet_w18_small"), 0.33, id="hrnet"),
    slow(partial(timm_net, "dla34"), 0.3, id="dla"),
    slow(transformers_resnet, 0.35, id="transformers resnet"),
]
RANDOM = [p for p in NETS if p.id in ("densenet", "mobilenet_v3_small", "regnet_y", "transformers resnet", "fasternet")]


@pytest.fixture
def example() -> Tensor:
    return torch.randn(2, 3, 64, 64)


@pytest.mark.parametrize(("make", "share"), NETS)
def test_half_of_every_group_chosen_masked_and_shrunk(
    make: Callable[[], nn.Module], share: float, example: Tensor, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    net = scrambled(make(), example)
    plan = surgery.choose(net, example)
    masked = plan.mask(net)
    before = fingerprint(masked)
    result = surgery.shrink(masked, example, prove=False)
    assert fingerprint(masked) == before
    assert {(a.name, a.dim): a.keep for a in result.plan.axes} == {(a.name, a.dim): a.keep for a in plan.axes}
    assert result.params_after < share * result.params_before
    for group in plan.groups:
        assert group.channels - group.removed >= group.channels / 2
    assert_plain(masked, result.model)
    assert_exact(masked, result.plan, result.model, example, shapes=SHAPES, healthy=HEALTHY)
    if request.node.get_closest_marker("slow"):
        proven = surgery.shrink(masked, example)
        assert proven.proof is not None
        assert proven.proof.passed
        assert not proven.notes
        for name in ("slim.onnx", "slim.pt"):
            assert surgery.export(proven.model, tmp_path / name, example).parity.passed


def test_real_nets_of_six_families_are_here() -> None:
    assert len(NETS) >= 6


@pytest.mark.slow
@pytest.mark.parametrize(("make", "share"), RANDOM)
def test_masks_made_layer_by_layer(make: Callable[[], nn.Module], share: float, example: Tensor) -> None:
    """Half of each layer's filters, whatever the next layer does: exact, and what disagrees is explained."""
    net = scrambled(make(), example)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and len(module.weight) > 10:
                rows = torch.randperm(len(module.weight), generator=generator)[: len(module.weight) // 2]
                module.weight[rows] = 0
    result = surgery.shrink(net, example, prove=False)
    assert result.params_after < 0.9 * result.params_before
    stranded = [group for group in result.plan.groups if group.stranded]
    assert bool(stranded) is (make is not small_densenet), "a concatenation never disagrees, a sum does"
    for group in stranded:
        assert sum(count for _, count in group.blockers) == group.stranded
    assert_exact(net, result.plan, result.model, example, shapes=SHAPES, healthy=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "share"), RANDOM)
def test_columns_zeroed_instead_of_rows(make: Callable[[], nn.Module], share: float, example: Tensor) -> None:
    """Where nobody looks at a channel it can go, whatever it holds; no fold and no carrier is asked for."""
    net = scrambled(make(), example)
    plan = surgery.choose(net, example)
    tensors = dict(net.named_parameters())
    with torch.no_grad():
        for axis in plan.axes:
            if axis.dim == 1 and axis.removed:
                gone = sorted(set(range(axis.size)) - set(axis.keep))
                weight = tensors[axis.name]
                if axis.conv_groups == 1:
                    weight.index_fill_(1, torch.tensor(gone), 0)
                else:
                    width = axis.size // axis.conv_groups
                    by_group = weight.unflatten(0, (axis.conv_groups, -1))
                    for position in gone:
                        by_group[position // width, :, position % width] = 0
    result = surgery.shrink(net, example, prove=False)
    assert result.params_after <= 1.02 * surgery.shrink(plan.mask(net), example, prove=False).params_after
    assert_exact(net, result.plan, result.model, example, shapes=SHAPES, healthy=1e-5)
