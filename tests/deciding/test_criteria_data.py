"""What criteria see of the user's data: all of it, at every weight, whatever code uses it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surgery.deciding.criteria import Feed
from surgery.deciding.criteria.activations import Moments, watched
from surgery.deciding.importance import check_importance, importance_scores
from surgery.deciding.study import Study
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.masks import bake
from tests.criteria_nets import images, loader, made

DATA = loader()


def study_of(model: nn.Module, x: Tensor | None = None) -> Study:
    return Study.of(bake(model), Inputs.of(images() if x is None else x))


def scores_at(study: Study, scores: Any, name: str, dim: int = 0) -> Tensor:
    return torch.from_numpy(scores[study.coupling.channel_of[study.coupling.axes[name, dim].ids]]).float()


def test_moments_of_parts_are_those_of_the_whole() -> None:
    values = torch.randn(100, 3, dtype=torch.float64) * torch.tensor([1.0, 1e-3, 5.0]) + torch.tensor([0.0, 1e3, -7])
    moments = Moments()
    for part in values.split([1, 60, 39]):
        moments.add(part)
    torch.testing.assert_close(moments.variance, values.var(0, correction=0), rtol=1e-9, atol=0)
    torch.testing.assert_close(moments.norm, values.square().mean(0).sqrt(), rtol=1e-12, atol=0)


def test_a_constant_has_no_variance_however_it_rounds() -> None:
    moments = Moments()
    for count in (3, 7, 11):
        moments.add(torch.full((count, 1), 0.1, dtype=torch.float64))
    assert float(moments.variance) == 0.0


class Mixed(nn.Module):
    """A convolution, a depthwise one, a flatten; a module called twice, and a bare weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.deep = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6)
        self.first, self.twice = nn.Linear(6 * 16, 8), nn.Linear(8, 8)
        self.last = nn.Parameter(torch.randn(8, 5))

    def seen(self, x: Tensor) -> list[Tensor]:
        one = self.conv(x).relu()
        two = self.deep(one).relu()
        three = self.first(two.flatten(1)).relu()
        four = self.twice(three).relu()
        return [one, two, three, four, self.twice(four).relu()]

    def forward(self, x: Tensor) -> Tensor:
        return self.seen(x)[-1] @ self.last


def test_wanda_weighs_by_what_arrives_at_every_weight_over_all_data() -> None:
    model = Mixed().eval()
    study = study_of(model)
    scores = importance_scores(study, "wanda", Feed(DATA))
    with torch.no_grad():
        one, two, three, four, five = model.seen(torch.cat([x for x, _ in DATA]))
        rms = [value.square().mean((0, 2, 3)).sqrt() for value in (one, two)]
        assert len(rms[0]) == 6
        flat = two.flatten(1).square().mean(0).sqrt()
        twice = torch.cat([three, four]).square().mean(0).sqrt()
        deep = model.deep.weight.abs().flatten(1).sum(1) * rms[0]
        columns = (model.first.weight.abs().sum(0) * flat).view(6, 16).sum(1)
        torch.testing.assert_close(scores_at(study, scores, "conv.weight"), deep + columns, rtol=1e-4, atol=1e-4)
        # the module that is called twice ties what it reads with what it hands out
        inner = model.twice.weight.abs().sum(0) * twice * 2 + model.last.abs().sum(1) * five.square().mean(0).sqrt()
        torch.testing.assert_close(scores_at(study, scores, "twice.weight", 1), inner, rtol=1e-4, atol=1e-4)


def test_variance_is_that_of_every_place_over_all_data_and_0_for_a_constant() -> None:
    model = made("plain")
    with torch.no_grad():
        model[0].weight[2] = 0  # a constant, not 0, behind the activation
        model[0].bias[2] = 0.7
        model[8].weight[5] = 0
        model[8].bias[5] = -1.0
    study = study_of(model)
    scores = importance_scores(study, "variance", Feed(DATA))
    with torch.no_grad():
        x = torch.cat([x for x, _ in DATA])
        first, dense = model[:2](x), model[:10](x)
    expected = first.var((0, 2, 3), correction=0)
    torch.testing.assert_close(scores_at(study, scores, "0.weight"), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scores_at(study, scores, "8.weight"), dense.var(0, correction=0), rtol=1e-4, atol=1e-6)
    assert scores_at(study, scores, "0.weight")[2] == 0
    assert scores_at(study, scores, "8.weight")[5] == 0
    assert (scores_at(study, scores, "0.weight") == 0).sum() == 1


def test_queries_and_keys_count_by_what_writes_them() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0).eval()
    x = torch.randn(3, 5, 8)
    study = study_of(model, x)
    scores = importance_scores(study, "wanda", Feed([x]))
    rms = x.flatten(0, 1).square().mean(0).sqrt()
    written = (model.self_attn.in_proj_weight.detach().abs() @ rms).view(3, 8)
    found = scores_at(study, scores, "self_attn.in_proj_weight").view(3, 8)
    torch.testing.assert_close(found[0], written[0] + written[1], rtol=1e-4, atol=1e-5)
    assert not found.isnan().any()


@dataclass
class Answer:
    """What models of transformers return."""

    loss: Tensor | None
    logits: Tensor


class WithLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Answer:
        logits = self.b(self.a(x).relu())
        return Answer(None if labels is None else F.cross_entropy(logits, labels), logits)


def test_the_loss_is_the_models_own_or_a_function_of_output_and_targets() -> None:
    model, x, y = WithLoss(), torch.randn(7, 6), torch.arange(7) % 3
    study = Study.of(bake(model), Inputs.of((), {"x": x}))
    given = [{"x": x[:4], "labels": y[:4], "index": y[:4]}, {"x": x[4:], "labels": y[4:], "index": y[4:]}]
    own = importance_scores(study, "taylor", Feed(given))

    def loss(output: Answer, targets: Any) -> Tensor:
        return F.cross_entropy(output.logits, targets["labels"], reduction="none")

    np.testing.assert_allclose(importance_scores(study, "taylor", Feed(given, loss)), own, rtol=1e-5)
    bare = [({"x": x}, y)]
    np.testing.assert_allclose(
        importance_scores(study, "taylor", Feed(bare, lambda output, t: F.cross_entropy(output.logits, t))), own, 1e-4
    )


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (None, "there is no loss: none was given, and the model's output (Tensor) holds none\n  -> pass loss="),
        (lambda out, y: out.sum() * float("nan"), "the loss is nan on item 0 of the data"),
        (lambda out, y: out.sum() / 0 if len(out) == 3 else out.sum(), "on item 2 of the data"),
        (
            lambda out, y: F.cross_entropy(out, y[:-1]),
            "the loss fails on item 0 of the data: ValueError: ",
        ),
        (lambda out, y: 3.0, "the loss is a float\n  -> return a tensor of one number"),
        (lambda out, y: out.detach().sum(), "the loss does not rest on the weights"),
    ],
)
@pytest.mark.parametrize("importance", ["taylor", "obdc"])
def test_a_loss_that_goes_wrong_is_told(importance: str, loss: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        importance_scores(study_of(made("residual")), importance, Feed(DATA, loss))


def test_the_sample_is_named_where_they_are_taken_one_by_one() -> None:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        return out.sum() / (y != 2).sum()  # the labels of the first item: 0, 2, ...

    with pytest.raises(InputError, match=r"the loss is -?inf on sample 1 of item 0 of the data"):
        importance_scores(study_of(made("residual")), "hessian", Feed(DATA, loss))


def test_what_an_importance_cannot_be_or_lacks_is_told() -> None:
    for name in ("taylor", "hessian", "obdc", "wanda", "variance"):
        with pytest.raises(InputError, match=f"importance '{name}' looks at data, and none was given"):
            check_importance(name, None)
    with pytest.raises(InputError, match=re.escape("importance is a int\n  -> pass a name")):
        check_importance(3, None)


def test_a_model_whose_weights_cannot_be_watched_is_told() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(4, 8, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.cell(x)[0]
            return y.sum(-1)

    x = torch.randn(2, 3, 4)
    with pytest.raises(InputError, match="Recurrent uses none of its weights in a way that can be watched"):
        watched(study_of(Recurrent(), x), iter(()))
