"""Small slim nets of five families, as they are exported: pruned by half, proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import surgery
from benchmarks import torchvision_cpu
from tests.nets import lively

TORCHVISION = torchvision_cpu.DECLARED  # must exist before torchvision is imported, and as long as tests run
LIBRARIES = ("timm", "torchvision", "transformers")
"""Where the classes of these nets are."""


@dataclass(frozen=True)
class Family:
    """How a net is built, and inputs of it at any batch."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int], dict[str, Tensor]]


def resnet() -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, (1, 1, 1, 1), channels=(8, 16, 16, 24), stem_width=8, num_classes=10)


def mobilenet() -> nn.Module:
    from torchvision.models import MobileNetV2

    return MobileNetV2(num_classes=10, width_mult=0.25, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]])


def vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=10)


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return BertModel(BertConfig(vocab_size=50, **sizes))


def decoder() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, use_cache=False, **sizes, **heads))


def image(batch: int) -> dict[str, Tensor]:
    return {"x": torch.randn(batch, 3, 32, 32)}


def padded(side: str) -> Callable[[int], dict[str, Tensor]]:
    def inputs(batch: int) -> dict[str, Tensor]:
        mask = torch.ones(batch, 8, dtype=torch.long)
        mask[1::2, slice(0, 3) if side == "left" else slice(-3, None)] = 0
        return {"input_ids": torch.randint(0, 50, (batch, 8)), "attention_mask": mask}

    return inputs


FAMILIES = {
    "resnet": Family(resnet, image),
    "mobilenet": Family(mobilenet, image),
    "vit": Family(vit, image),
    "bert": Family(bert, padded("right")),
    "decoder": Family(decoder, padded("left")),
}


def fresh(name: str) -> nn.Module:
    """The net before the cut, always the same."""
    torch.manual_seed(0)
    return lively(FAMILIES[name].build())


@cache
def slim(name: str) -> Any:
    """The `Result` of pruning it by half."""
    net, example = fresh(name), FAMILIES[name].inputs(2)
    plan = surgery.choose(net, (), example, keep_ratio=0.5)
    result = surgery.shrink(plan.mask(net), (), example)
    assert result.params_after < 0.8 * result.params_before
    return result
