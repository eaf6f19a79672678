from __future__ import annotations

import torch
from torch import Tensor, nn

from surgery.cutting.depth import idle
from surgery.deciding.study import Study
from surgery.inputs import Inputs
from tests.depth_nets import IMAGES, WORDS, PreNorm, pictures, silence_, tokens
from tests.nets import lively


def paths(model: nn.Module, example: Tensor) -> tuple[str, ...]:
    return idle(Study.of(model, Inputs.of(example))).paths


def test_a_block_goes_where_all_that_it_adds_is_nothing() -> None:
    assert paths(tokens("blocks.1.mix", "blocks.1.mlp.2"), WORDS) == ("blocks.1",)


def test_one_of_its_two_parts_goes_with_its_norm() -> None:
    assert paths(tokens("blocks.1.mlp.2"), WORDS) == ("blocks.1.norm2", "blocks.1.mlp")
    assert paths(tokens("blocks.0.mix"), WORDS) == ("blocks.0.norm1", "blocks.0.mix")


def test_blocks_in_a_row_go_one_by_one() -> None:
    """Others find them by number, so the container stays."""
    assert paths(pictures("stages.0.0.bn2", "stages.0.1.bn2"), IMAGES) == ("stages.0.0", "stages.0.1")


def test_a_block_needs_an_input_that_is_not_negative_where_it_ends_in_a_relu() -> None:
    model = pictures("stages.0.0.bn2", rectified=False)
    spare = idle(Study.of(model, Inputs.of(IMAGES)))
    assert spare.paths == ()
    assert ("stages.0.0.bn2", "its zeros go into add_, which asks for their shape") in spare.refused


def test_a_shortcut_with_weights_is_no_identity() -> None:
    assert not any(path == "stages.1.0" for path in paths(pictures("stages.1.0.bn2"), IMAGES))


def test_a_branch_that_is_read_once_more_stays() -> None:
    class Shared(nn.Module):
        """The norm of the block is read by another layer, too."""

        def __init__(self) -> None:
            super().__init__()
            self.norm, self.mix, self.other = nn.LayerNorm(5), nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            normed = self.norm(x)
            return x + self.mix(normed) + self.other(normed)

    model = lively(Shared())
    silence_(model, "mix")
    assert paths(model, WORDS) == ("mix",)


def test_a_hook_inside_keeps_a_module() -> None:
    model = tokens("blocks.1.mix", "blocks.1.mlp.2")
    heard: list[Tensor] = []
    model.blocks[1].mlp.register_forward_hook(lambda module, args, output: heard.append(output))
    spare = idle(Study.of(model, Inputs.of(WORDS)))
    assert spare.paths == ()
    assert ("blocks.1", "a hook listens inside it") in spare.refused


def test_zeros_that_are_laid_out_anew_stay() -> None:
    class Windows(PreNorm):
        def forward(self, x: Tensor) -> Tensor:
            mixed = self.mix(self.norm1(x)).view(x.shape[0], -1).view(x.shape)
            return x * 2 + mixed

    model = lively(Windows(5))
    silence_(model, "mix")
    spare = idle(Study.of(model, Inputs.of(torch.randn(2, 7, 5))))
    assert spare.paths == ()
    assert spare.refused == (("mix", "its zeros go into view, which asks for their shape"),)
