"""The nets of the headline table: full-size, dense, with random weights; how each is called, and masked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

import surgery
from benchmarks.full_size import dense_net
from benchmarks.prepared import prepare_
from surgery.inputs import Inputs


@dataclass(frozen=True)
class Sizes:
    """Height and width of images, length of texts."""

    image: int = 224
    tokens: int = 128


Mask = Callable[[nn.Module, Inputs, int], nn.Module]
"""A dense net, its inputs and the multiple that widths are rounded to: the same net with zeros in it."""


def every_group(dense: nn.Module, example: Inputs, round_to: int) -> nn.Module:
    """Half of every group, the channels of the lowest norm."""
    plan = surgery.choose(dense, example.args, example.kwargs, keep_ratio=0.5, round_to=round_to)
    return plan.mask(dense)


def inside_blocks(dense: nn.Module, example: Inputs, round_to: int) -> nn.Module:
    """Of a torchvision ResNet, the same half between the two convolutions of each block: the stream stays whole."""
    from torchvision.models.resnet import BasicBlock

    halved, masked = every_group(dense, example, round_to), copy.deepcopy(dense)
    with torch.no_grad():
        for path, block in masked.named_modules():
            if isinstance(block, BasicBlock):
                rows = halved.get_submodule(f"{path}.conv1").weight.flatten(1)  # type: ignore[operator]
                block.conv1.weight[(rows == 0).all(1)] = 0
    return masked


@dataclass(frozen=True)
class Net:
    """A line of the table.

    Attributes:
        name: As in the table and on the command line; unique.
        build: Makes the dense net.
        called: The call that is timed, of batch 1.
        mask: What puts the zeros in.
    """

    name: str
    build: Callable[[Sizes], nn.Module]
    called: Callable[[Sizes], Inputs]
    mask: Mask = every_group

    def dense(self, sizes: Sizes) -> nn.Module:
        """The same random weights every time, in eval mode."""
        torch.manual_seed(0)
        return self.build(sizes).eval()


def image(sizes: Sizes) -> Inputs:
    """One image."""
    return Inputs.of(torch.randn(1, 3, sizes.image, sizes.image, generator=torch.Generator().manual_seed(0)))


def text(sizes: Sizes) -> Inputs:
    """One sequence of tokens, none of them padding."""
    drawn = torch.randint(5, 1000, (1, sizes.tokens), generator=torch.Generator().manual_seed(0))
    return Inputs((), {"input_ids": drawn, "attention_mask": torch.ones_like(drawn)})


def _torchvision(name: str, sizes: Sizes) -> nn.Module:
    return dense_net(name)


def _vit(sizes: Sizes) -> nn.Module:
    import timm

    return prepare_(timm.create_model("vit_small_patch16_224", img_size=sizes.image))


def _bert(sizes: Sizes) -> nn.Module:
    from transformers import BertConfig, BertModel

    return prepare_(BertModel(BertConfig()))


LLAMA: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "use_cache": False,
}
"""Of 56 M parameters."""


def _llama(sizes: Sizes) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**LLAMA))


LISTED = (
    Net("ResNet-18", partial(_torchvision, "resnet18"), image),
    Net("ResNet-18, inner channels only", partial(_torchvision, "resnet18"), image, inside_blocks),
    Net("ResNet-50", partial(_torchvision, "resnet50"), image),
    Net("MobileNet v2", partial(_torchvision, "mobilenet_v2"), image),
    Net("EfficientNet-B0", partial(_torchvision, "efficientnet_b0"), image),
    Net("VGG-16", partial(_torchvision, "vgg16_bn"), image),
    Net("DenseNet-121", partial(_torchvision, "densenet121"), image),
    Net("ViT-S/16", _vit, image),
    Net("BERT-base", _bert, text),
    Net("Llama, 56 M", _llama, text),
)
NETS = {net.name: net for net in LISTED}
