from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from surgery.deciding.blocks import Block, blocks_of, silencing
from surgery.deciding.parts import Zeros
from surgery.deciding.study import Study
from surgery.inputs import Inputs
from tests.depth_nets import IMAGES, WORDS, Basic, pictures, tokens
from tests.nets import lively


def found(model: nn.Module, example: Tensor) -> tuple[Block, ...]:
    return blocks_of(Study.of(model, Inputs.of(example)))


def test_the_blocks_of_a_transformer() -> None:
    blocks = found(tokens(depth=2), WORDS)
    assert [block.name for block in blocks] == ["blocks.0", "blocks.1"]
    layers = ("mix.weight", "mix.bias", "mlp.2.weight", "mlp.2.bias")
    assert blocks[0].writes == tuple(f"blocks.0.{name}" for name in layers)
    assert blocks[0].modules == ("blocks.0",)


def test_only_blocks_with_a_plain_shortcut_count() -> None:
    blocks = found(pictures(), IMAGES)
    assert [block.name for block in blocks] == ["stages.0.0", "stages.0.1", "stages.1.1", "stages.1.2"]
    assert blocks[1].writes == ("stages.0.1.bn2.weight", "stages.0.1.bn2.bias")


def test_channels_that_live_only_in_a_block() -> None:
    model = pictures()
    study = Study.of(model, Inputs.of(IMAGES))
    block = blocks_of(study)[1]
    inside = study.coupling.channel_of[study.coupling.axes["stages.0.1.conv1.weight", 0].ids]
    stream = study.coupling.channel_of[study.coupling.axes["stages.0.1.conv2.weight", 0].ids]
    assert block.channels[inside].all()
    assert not block.channels[stream].any()
    assert np.count_nonzero(block.channels & study.coupling.reported) == 6


def test_what_has_to_be_zero() -> None:
    study = Study.of(pictures(), Inputs.of(IMAGES))
    every = tuple(range(6))
    zeros = silencing(study, blocks_of(study)[:1])
    assert zeros == (Zeros("stages.0.0.bn2.weight", 0, every), Zeros("stages.0.0.bn2.bias", 0, every))


class Scaled(nn.Module):
    """A scale at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gamma = nn.Linear(6, 6), nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma.reshape(1, -1) * self.layer(x).relu()


class Gated(nn.Module):
    """A gate at the end, and no biases."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gate = nn.Linear(6, 6, bias=False), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x).sigmoid() * self.layer(x) + x


class Parallel(nn.Module):
    """Two branches at once."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.left(x).tanh() + self.right(x))


class Normed(nn.Module):
    """The answer is normed: without its branch it is no identity, and the layer goes all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.norm(x + self.layer(x))
        return answer


def test_scales_gates_parallel_branches_and_norms() -> None:
    model = lively(nn.Sequential(Scaled(), Gated(), Parallel(), Normed(), nn.Linear(6, 2)))
    assert [(block.writes, block.modules) for block in found(model, torch.randn(2, 6))] == [
        (("0.gamma",), ("0",)),
        (("1.layer.weight",), ("1",)),
        (("2.left.weight", "2.left.bias", "2.right.weight", "2.right.bias"), ("2",)),
        (("3.layer.weight", "3.layer.bias"), ("3.layer",)),
    ]


def test_a_stage_of_several_blocks_does_not_go_as_one() -> None:
    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Scaled(), Gated())

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.blocks(x)
            return answer

    blocks = found(lively(nn.Sequential(Stage(), nn.Linear(6, 2))), torch.randn(2, 6))
    assert [block.modules for block in blocks] == [("0.blocks.0",), ("0.blocks.1",)]
    assert not (blocks[0].channels & blocks[1].channels).any()


def test_a_norm_that_adds_to_its_input_is_no_block() -> None:
    class Response(nn.Module):
        """As in ConvNeXt V2: no weights but gains."""

        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.gain * (x * x.norm(dim=-1, keepdim=True))

    assert found(lively(nn.Sequential(Response(), nn.Linear(6, 2))), torch.randn(2, 6)) == ()


def test_weights_that_others_read_are_not_silenced() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.out = Basic(3, 3), nn.Conv2d(3, 3, 3, bias=False)
            self.block.conv2.weight = self.out.weight
            self.block.bn2 = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.out(self.block(x.relu()))
            return answer

    assert found(lively(Tied()), IMAGES) == ()
