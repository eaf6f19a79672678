"""torch-pruning's criteria score our groups as torch-pruning itself scores its own, where these are equal."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional as F

from surgery.deciding.criteria import Feed, groups_of
from surgery.deciding.importance import importance_scores
from surgery.deciding.study import Study
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.masks import bake
from tests.criteria_nets import NETS, images, loader, made

peer = tp.importance
DATA = loader()


def study_of(model: nn.Module, x: Tensor | None = None) -> Study:
    return Study.of(bake(model), Inputs.of(images() if x is None else x))


def theirs(model: nn.Module, criterion: Any) -> dict[str, Tensor | None]:
    """What torch-pruning's own graph and groups come to, by the root's name."""
    names = {module: name for name, module in model.named_modules()}
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=images())
    return {names[group[0].dep.target.module]: criterion(group) for group in graph.get_all_groups()}


def same(study: Study, scores: Any, wanted: dict[str, Tensor | None]) -> int:
    """How many groups were compared, of such as may go."""
    compared = 0
    for root, expected in wanted.items():
        channels = study.coupling.channel_of[study.coupling.axes[f"{root}.weight", 0].ids]
        if (study.coupling.pin_of[channels] >= 0).all():
            continue
        compared += 1
        if expected is None:
            assert np.isnan(scores[channels]).all()
        else:
            torch.testing.assert_close(
                torch.from_numpy(scores[channels]).float(), expected.detach()[: channels.size], rtol=1e-4, atol=1e-5
            )
    return compared


def all_samples() -> tuple[Tensor, Tensor]:
    x, y = zip(*DATA, strict=True)
    return torch.cat(x), torch.cat(y)


def with_gradients(model: nn.Module) -> nn.Module:
    x, y = all_samples()
    model = copy.deepcopy(model)
    F.cross_entropy(model(x), y).backward()
    return model


def with_squares(model: nn.Module) -> nn.Module:
    """As torch-pruning's Hessian criterion would leave it, if it kept more than the last sample."""
    model = copy.deepcopy(model)
    squares = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for x, y in zip(*all_samples(), strict=True):
        model.zero_grad()
        F.cross_entropy(model(x[None]), y[None]).backward()
        for own, parameter in zip(squares, model.parameters(), strict=True):
            own += parameter.grad**2
    for own, parameter in zip(squares, model.parameters(), strict=True):
        parameter.grad = own / len(all_samples()[0])
    return model


CRITERIA: dict[str, Callable[[], Any]] = {
    "l1": lambda: peer.MagnitudeImportance(p=1),
    "l2": lambda: peer.MagnitudeImportance(p=2, bias=True),
    "largest": lambda: peer.MagnitudeImportance(p=2, group_reduction="max", normalizer="sum"),
    "product": lambda: peer.MagnitudeImportance(p=2, group_reduction="prod", normalizer=None),
    "bn_scale": peer.BNScaleImportance,
    "lamp": peer.LAMPImportance,
    "fpgm": peer.FPGMImportance,
    "taylor": peer.TaylorImportance,
    "taylor of all": lambda: peer.TaylorImportance(multivariable=True, bias=True),
    "hessian": peer.HessianImportance,
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", CRITERIA)
def test_the_scores_are_those_of_torch_pruning(net: str, name: str) -> None:
    model = made(net)
    study = study_of(model)
    if name == "bn_scale" and net in ("plain", "dense"):
        with pytest.raises(InputError, match="'BNScaleImportance' scores no channel of Sequential that may go"):
            importance_scores(study, CRITERIA[name]())
        return
    prepared = with_gradients if name.startswith("taylor") else with_squares if name == "hessian" else copy.deepcopy
    scores = importance_scores(study, CRITERIA[name](), Feed(DATA, F.cross_entropy))
    expected = theirs(prepared(model), CRITERIA[name]())
    assert same(study, scores, expected) == {"residual": 5, "plain": 4, "depthwise": 3, "dense": 2}[net]


def test_obdc_has_the_fisher_matrix_that_torch_pruning_accumulates() -> None:
    """On layers without bias; with one its own formula fails."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(72, 10, bias=False), nn.ReLU(), nn.Linear(10, 5, bias=False),
    )  # fmt: skip
    study = study_of(model)
    scores = importance_scores(study, peer.OBDCImportance(num_classes=5), Feed(DATA, F.cross_entropy))

    reference = copy.deepcopy(model)
    criterion = peer.OBDCImportance(num_classes=5)
    for module in reference.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            criterion.modules.append(module)
            module.register_forward_pre_hook(criterion._save_input)
            module.register_full_backward_hook(criterion._save_grad_output)
    for x, y in DATA:
        F.cross_entropy(reference(x.requires_grad_()), y).backward()
        criterion.step()
    assert same(study, scores, theirs(reference, criterion)) == 3


def test_obdc_takes_biases_tokens_and_parts_of_layers() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (part.unflatten(-1, (3, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
            y: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            return y.mean(1)

    model, x, y = Attention(), torch.randn(4, 6, 12), torch.tensor([0, 1, 2, 3])
    study = study_of(model, x)
    scores = importance_scores(study, "obdc", Feed([(x, y)], F.cross_entropy))
    squares = torch.zeros(36)
    for one, label in zip(x, y, strict=True):
        found = torch.autograd.grad(F.cross_entropy(model(one[None]), label[None]), model.qkv.weight)[0]
        squares += (model.qkv.weight.detach() ** 2 * (found**2)).sum(1)
    values = scores[study.coupling.channel_of[study.coupling.axes["qkv.weight", 0].ids[24:]]]
    torch.testing.assert_close(
        torch.from_numpy(values).float(), squares[24:] / squares[24:].mean(), rtol=1e-3, atol=1e-4
    )


def test_taylor_by_name_counts_the_gains_of_batch_norms() -> None:
    """The class looks for the handler of GroupNorm where the layer is a BatchNorm, and never scores one."""
    model = made("residual")
    study = study_of(model)
    scores = importance_scores(study, "taylor", Feed(DATA, F.cross_entropy))
    reference = with_gradients(model)
    first, second = reference.blocks[0].conv1, reference.blocks[0].conv2
    bn = reference.blocks[0].bn1
    parts = [
        (first.weight * first.weight.grad).abs().flatten(1).sum(1),
        (bn.weight * bn.weight.grad).abs(),
        (second.weight * second.weight.grad).abs().transpose(0, 1).flatten(1).sum(1),
    ]
    expected = torch.stack(parts).sum(0).detach()
    channels = study.coupling.channel_of[study.coupling.axes["blocks.0.conv1.weight", 0].ids]
    torch.testing.assert_close(
        torch.from_numpy(scores[channels]).float(), expected / expected.mean(), rtol=1e-4, atol=1e-5
    )


def test_random_scores_are_those_of_a_seed_and_leave_the_generator_alone() -> None:
    study = study_of(made("dense"))
    before = torch.get_rng_state()
    one, again, other = (importance_scores(study, "random", Feed(seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other, equal_nan=True)


class Largest(tp.importance.Importance):
    """A user's own: by the items of a group, as torch-pruning documents them."""

    @torch.no_grad()
    def __call__(self, group: Any) -> Tensor:
        found = torch.zeros(len(group[0].idxs))
        for item, (dep, idxs) in zip(group.items, group, strict=True):
            if group._DG.is_out_channel_pruning_fn(dep.handler) and isinstance(dep.layer, nn.Linear | nn.Conv2d):
                largest = dep.layer.weight[idxs].abs().flatten(1).amax(1)
                found.scatter_reduce_(0, torch.tensor(item.root_idxs), largest, "amax")
        return found


def test_a_criterion_of_the_users_own_is_asked() -> None:
    model = made("dense")
    study = study_of(model)
    for given in (Largest(), Largest):
        scores = importance_scores(study, given)
        channels = study.coupling.channel_of[study.coupling.axes["1.weight", 0].ids]
        torch.testing.assert_close(
            torch.from_numpy(scores[channels]).float(), model[1].weight.detach().abs().amax(1), rtol=0, atol=0
        )


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda group: torch.ones(3), "gave the group of 1.weight [3]\n  -> return a tensor of one score per channel"),
        (lambda group: [1.0, 2.0], "gave the group of 1.weight list"),
        (lambda group: torch.tensor([1.0, float("inf")] * 8), "scores that are not finite"),
        (lambda group: group.nothing, "fails on the group of 1.weight: AttributeError"),
        (lambda group: group[0].dep.layer.weight.grad.sum(1), "if it reads gradients, pass data= and loss="),
        (lambda group: None, "scores no channel of Sequential that may go"),
    ],
)
def test_a_criterion_that_goes_wrong_is_told(answer: Callable[[Any], Any], message: str) -> None:
    class Wrong(tp.importance.Importance):
        def __call__(self, group: Any) -> Any:
            return answer(group)

    with pytest.raises(InputError, match=re.escape(message)):
        importance_scores(study_of(made("dense")), Wrong())


def test_weights_that_torch_pruning_has_no_layer_for_are_shown_as_linear_ones() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose1d(8, 12, 2, groups=2)
            self.first, self.second = nn.Parameter(torch.randn(12, 16)), nn.Parameter(torch.randn(16, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.up(x).transpose(1, 2) @ self.first) @ self.second

    model = Bare()
    study = study_of(model, torch.randn(2, 8, 5))
    scores = importance_scores(study, peer.MagnitudeImportance(p=2, normalizer=None, group_reduction="sum"))
    of, axes = study.coupling.channel_of, study.coupling.axes
    inner = (model.first**2).sum(0) + (model.second**2).sum(1)
    torch.testing.assert_close(torch.from_numpy(scores[of[axes["first", 1].ids]]).float(), inner.detach())
    kernel = (model.up.weight**2).unflatten(0, (2, 4)).transpose(1, 2).flatten(0, 1).flatten(1).sum(1)
    outer = kernel + (model.first**2).sum(1)
    torch.testing.assert_close(torch.from_numpy(scores[of[axes["first", 0].ids]]).float(), outer.detach())

    x = torch.randn(4, 8, 5)
    taylor = importance_scores(
        study, peer.TaylorImportance(normalizer=None), Feed([(x, torch.ones(4, 6, 3))], F.mse_loss)
    )
    F.mse_loss(model(x), torch.ones(4, 6, 3)).backward()
    assert model.first.grad is not None
    assert model.second.grad is not None
    lost = (model.first * model.first.grad).abs().sum(0) + (model.second * model.second.grad).abs().sum(1)
    torch.testing.assert_close(
        torch.from_numpy(taylor[of[axes["first", 1].ids]]).float(), lost.detach() / 2, rtol=1e-4, atol=1e-6
    )


def test_criteria_of_weights_leave_the_data_alone_and_others_get_gradients_where_there_is_a_loss() -> None:
    study = study_of(made("dense"))
    for criterion in (peer.MagnitudeImportance(), peer.FPGMImportance(), peer.RandomImportance(), Largest()):
        importance_scores(study, criterion, Feed(iter(())))

    class Steepest(tp.importance.Importance):
        @torch.no_grad()
        def __call__(self, group: Any) -> Tensor:
            dep, idxs = group[0]
            found: Tensor = dep.layer.weight.grad[idxs].abs().sum(1)
            return found

    model = with_gradients(made("dense"))
    scores = importance_scores(study, Steepest(), Feed(DATA, F.cross_entropy))
    channels = study.coupling.channel_of[study.coupling.axes["1.weight", 0].ids]
    torch.testing.assert_close(torch.from_numpy(scores[channels]).float(), model[1].weight.grad.abs().sum(1))


def test_a_criterion_that_accumulates_in_its_own_way_does_so_sample_by_sample() -> None:
    class Kept(peer.HessianImportance):
        def accumulate_grad(self, model: nn.Module) -> None:
            for parameter in model.parameters():
                self._accu_grad[parameter] = self._accu_grad.get(parameter, 0) + parameter.grad**2
                self._counter[parameter] = self._counter.get(parameter, 0) + 1

    study = study_of(made("residual"))
    feed = Feed(DATA, F.cross_entropy)
    np.testing.assert_allclose(
        importance_scores(study, Kept(), feed), importance_scores(study, "hessian", feed), rtol=1e-4, equal_nan=True
    )


def test_what_has_no_gradient_is_left_alone_and_what_loses_nothing_goes_first() -> None:
    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.deaf, self.a = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 10)
            self.b, self.c = nn.Linear(10, 12), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.deaf(self.stem(x).relu()).relu()
            y: Tensor = self.c(self.b(self.a(x).relu()).relu())
            return y

    model, x = Stem(), torch.randn(4, 6)
    with torch.no_grad():
        model.b.weight.zero_()
        model.b.bias.fill_(-1.0)  # nothing comes through: all gradients before it are 0
    study = study_of(model, x)
    scores = importance_scores(study, "taylor", Feed([(x, torch.tensor([0, 1, 2, 0]))], F.cross_entropy))
    of, axes = study.coupling.channel_of, study.coupling.axes
    assert np.isnan(scores[of[axes["stem.weight", 0].ids]]).all()
    assert (scores[of[axes["a.weight", 0].ids]] == 0).all()
    assert (scores[of[axes["b.weight", 0].ids]] == 0).all()


@pytest.mark.parametrize("name", ["fpgm", "l2"])
def test_what_reads_a_conv_group_counts_for_its_channels_alone(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU(), nn.Conv2d(8, 6, 1, groups=2), nn.Conv2d(6, 2, 1))
    study = study_of(model)
    criterion = peer.FPGMImportance() if name == "fpgm" else peer.MagnitudeImportance(normalizer=None)
    scores = importance_scores(study, criterion)
    channels = study.coupling.channel_of[study.coupling.axes["0.weight", 0].ids]
    if name == "l2":
        read = (model[2].weight ** 2).flatten(2).sum(2).unflatten(0, (2, 3)).sum(1).flatten()
        expected = ((model[0].weight ** 2).flatten(1).sum(1) + read).detach() / 2
        torch.testing.assert_close(torch.from_numpy(scores[channels]).float(), expected)
    assert np.isfinite(scores[channels]).all()


def test_positions_are_in_order_and_the_root_holds_every_channel_once() -> None:
    """Criteria sort positions in place, and size their answer by the first item."""
    for name in NETS:
        for scored in groups_of(study_of(made(name))):
            roots = [item.root_idxs for item in scored.group.items]
            assert sorted(roots[0]) == list(range(scored.channels.size))
            for item in scored.group.items:
                assert item.idxs == sorted(item.idxs)
                assert len(item.idxs) == len(item.root_idxs)


def test_gradients_and_frozen_flags_are_as_before() -> None:
    model = made("residual")
    model.conv.weight.requires_grad_(False)
    model.bn.weight.grad = torch.ones(8)
    study = study_of(model)
    importance_scores(study, "taylor", Feed(DATA, F.cross_entropy))
    assert all(parameter.grad is None for parameter in study.model.parameters())
    assert [name for name, p in study.model.named_parameters() if not p.requires_grad] == ["conv.weight"]
    assert torch.equal(model.bn.weight.grad, torch.ones(8))
