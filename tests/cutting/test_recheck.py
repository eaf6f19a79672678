from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import surgery
from surgery.cutting.recheck import recheck
from surgery.deciding.study import Study
from surgery.inputs import Inputs
from tests.exactness import shrunk
from tests.nets import lively, zero_

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Sized(nn.Module):
    """Splits by an attribute, and scales by another that happens to be equal."""

    def __init__(self, *, scale_too: bool = False, literal: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.width, self.scale_too, self.literal = 8, scale_too, literal
        self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        width = 8 if self.literal else self.width
        first, second = torch.split(F.relu(self.a(x)), (width, width), 1)
        scale = self.width**-0.5 if self.scale_too else 1.0
        return self.b(torch.cat([second, first], 1) * scale)


def masked(model: Sized) -> Sized:
    with torch.no_grad():
        model.a.weight[:2] = 0
        model.a.weight[10:12] = 0
    return model


def test_a_size_that_an_attribute_holds_is_set() -> None:
    result = surgery.shrink(masked(Sized()), X)
    assert result.plan.axis("a.weight").removed == 4
    assert result.model.width == 6
    assert [(e.attribute, e.old, e.new) for e in result.plan.edits] == [("width", 8, 6)]


def test_a_literal_size_keeps_its_group_and_says_so() -> None:
    result = surgery.shrink(masked(Sized(literal=True)), X, keep_class=True)
    assert result.plan.empty
    assert "the code at" in result.plan.explain("a.weight", 0)
    assert "cannot run narrower" in result.plan.explain("a.weight", 0)


def test_a_scale_that_would_follow_the_attribute_is_noticed() -> None:
    """Setting `width` makes the split right and the scale wrong: every scalar argument is compared, not shapes only."""
    model = masked(Sized(scale_too=True))
    result = surgery.shrink(model, X, prove=False, keep_class=True)
    assert result.plan.empty
    torch.testing.assert_close(result.model(X), model(X))
    written = surgery.shrink(model, X, prove=False)
    assert written.kind == "class"
    assert written.plan.rewrites
    torch.testing.assert_close(written.model(X), model(X))


@pytest.mark.parametrize("wrong", ["order", "width", "scale"])
def test_a_slim_model_that_is_not_as_planned_is_a_mismatch(wrong: str) -> None:
    model = masked(Sized(scale_too=True)).eval()
    study = Study.of(model, Inputs.of(X))
    done = surgery.shrink(masked(Sized()), X)
    alive = torch.ones(study.coupling.n_channels, dtype=torch.bool).numpy()
    keep = set(done.plan.axis("a.weight").keep)
    channels = study.coupling.channel_of[study.coupling.axes["a.weight", 0].ids]
    alive[[c for i, c in enumerate(channels) if i not in keep]] = False
    slim = copy.deepcopy(done.model)
    assert recheck(study.program, study.coupling, alive, done.plan, _scaled(slim, 8**-0.5), study.inputs) is None
    if wrong == "order":  # other channels arrive at the consumer
        slim.forward = lambda x: slim.b(  # type: ignore[method-assign]
            torch.cat(list(torch.split(F.relu(slim.a(x)), (6, 6), 1)), 1) * 8**-0.5
        )
    elif wrong == "width":
        slim.width = 5
    else:
        slim.scale_too = True
    found = recheck(study.program, study.coupling, alive, done.plan, slim, study.inputs)
    assert found is not None


def _scaled(slim: Sized, scale: float) -> nn.Module:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = slim.a, slim.b

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, second = torch.split(F.relu(self.a(x)), (6, 6), 1)
            return self.b(torch.cat([second, first], 1) * scale)

    return Scaled()


class Biased(nn.Module):
    """Attention with a bias for each head that a net without biases makes of fixed coordinates, as in Swin v2."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 48), nn.Linear(16, 8)
        self.first, self.last = nn.Linear(2, 6), nn.Linear(6, 4, bias=False)
        self.register_buffer("places", torch.randn(5, 5, 2, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.last(self.first(self.places).relu()).permute(2, 0, 1)
        return self.out(((q @ k.mT + bias).softmax(-1) @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def test_a_bias_that_a_fold_makes_belongs_to_heads() -> None:
    net = lively(Biased())
    zero_(net.first.weight, [1, 4])
    with torch.no_grad():
        net.first.bias[[1, 4]] = 0.7  # constants behind the ReLU
    zero_(net.out.weight, range(4, 8), dim=1)
    result = shrunk(net, torch.randn(2, 5, 8), shapes=((1, 0), (3, 0)))
    assert result.model.last.bias.shape == (3,)
    assert result.model.first.weight.shape == (4, 2)


class Across(nn.Module):
    """Channels attend to channels, head by head, as in DaViT."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        y = ((k.mT @ v).softmax(-1) @ q.mT).mT
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def test_one_head_is_left_of_channels_that_attend_to_channels() -> None:
    net = lively(Across())
    zero_(net.out.weight, range(4), dim=1)
    result = shrunk(net, torch.randn(2, 5, 8), shapes=((1, 0), (3, 0)))
    assert result.model.qkv.weight.shape == (12, 8)
