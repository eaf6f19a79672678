from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import surgery
from surgery.cutting.cut import carry_, cut_, fold_, gathered
from surgery.cutting.repair import set_
from surgery.deciding.cuts import Cuts
from surgery.deciding.parts import AxisCut, Carry, Edit, Fold
from surgery.errors import PlanError
from tests.exactness import shrunk
from tests.nets import lively, zero_


def test_a_grouped_weight_is_gathered_group_by_group() -> None:
    weight = torch.arange(4 * 3, dtype=torch.float32).reshape(4, 3)  # two conv groups of two rows
    rows = AxisCut("w", 0, 4, (0, 1, 3))
    columns = AxisCut("w", 1, 6, (0, 2, 4, 5), conv_groups=2)  # columns 0, 2 of group 0; 1, 2 of group 1
    expected = torch.tensor([[0.0, 2.0], [3.0, 5.0], [10.0, 11.0]])
    torch.testing.assert_close(gathered(weight, [rows, columns]), expected)


def test_a_conv_group_that_goes_takes_its_rows_along() -> None:
    weight = torch.arange(6 * 2, dtype=torch.float32).reshape(6, 2)  # three conv groups of two rows
    rows = AxisCut("w", 0, 6, (0, 1, 4, 5))
    columns = AxisCut("w", 1, 6, (0, 1, 4, 5), conv_groups=3)
    torch.testing.assert_close(gathered(weight, [columns, rows]), weight[[0, 1, 4, 5]])


@pytest.mark.parametrize("conv_groups", [1, 2])
def test_a_carrier_takes_over_the_others_columns(conv_groups: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 6 // conv_groups, 3, 3, dtype=torch.float64)
    x = torch.zeros(1, 6, 5, 5, dtype=torch.float64)
    last = 6 - 1  # in the last conv group: positions last - 2 .. last are constants 2, 4, 1
    for position, value in zip(range(last - 2, last + 1), (2.0, 4.0, 1.0), strict=True):
        x[:, position] = value
    before = nn.functional.conv2d(x, weight, padding=1, groups=conv_groups)
    changed = weight.clone()
    carry_(changed, Carry("w", conv_groups, "out_in", onto=last - 1, take=(last - 2, last), ratio=(0.5, 0.25)))
    alone = torch.zeros_like(x)
    alone[:, last - 1] = 4.0
    torch.testing.assert_close(nn.functional.conv2d(alone, changed, padding=1, groups=conv_groups), before)


def test_a_carrier_of_a_transposed_convolution() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    x = torch.zeros(1, 4, 3, 3, dtype=torch.float64)
    x[:, 0], x[:, 2] = 2.0, 3.0
    before = nn.functional.conv_transpose2d(x, weight, stride=2)
    carry_(weight, Carry("w", 1, "in_out", onto=2, take=(0,), ratio=(2 / 3,)))
    x[:, 0] = 0
    torch.testing.assert_close(nn.functional.conv_transpose2d(x, weight, stride=2), before)


def test_a_fold_adds_to_a_bias_in_float64_or_makes_one() -> None:
    made = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3, bias=False))
    made[1].weight.requires_grad_(False)
    before = made[0].bias.detach().clone()
    fold_(made, Fold("0.bias", (1.0, -1.0)))
    torch.testing.assert_close(made[0].bias.detach(), before + torch.tensor([1.0, -1.0]))
    fold_(made, Fold("1.bias", (1.0, 2.0, 3.0)))
    assert isinstance(made[1].bias, nn.Parameter)
    assert not made[1].bias.requires_grad
    torch.testing.assert_close(made[1].bias, torch.tensor([1.0, 2.0, 3.0]))


def test_a_fold_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(PlanError, match="bias has 3 entries, the plan 2"):
        fold_(nn.Linear(2, 3), Fold("bias", (1.0, 2.0)))


def test_parameters_stay_the_same_objects_with_their_hooks_and_can_be_trained() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    seen: list[tuple[int, ...]] = []
    model[0].weight.register_hook(lambda grad: seen.append(tuple(grad.shape)))
    accumulated: list[tuple[int, ...]] = []
    model[0].weight.register_post_accumulate_grad_hook(lambda p: accumulated.append(tuple(p.grad.shape)))
    model(torch.randn(3, 4)).sum().backward()
    weight = model[0].weight
    places = (("0.weight", 0), ("0.bias", 0), ("2.weight", 1))
    cuts = Cuts(axes=tuple(AxisCut(name, dim, 6, (0, 2, 5)) for name, dim in places))
    cut_(model, cuts)
    assert model[0].weight is weight
    assert weight.grad is None
    model(torch.randn(3, 4)).sum().backward()
    assert seen == [(6, 4), (3, 4)]
    assert accumulated == [(6, 4), (3, 4)]
    assert (model[0].out_features, model[2].in_features) == (3, 3)


def test_tied_parameters_stay_tied() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    cut_(model, Cuts(axes=(AxisCut("a.weight", 0, 4, (1, 2), aliases=("a.weight", "b.weight")),)))
    assert model["a"].weight is model["b"].weight
    assert model["b"].out_features == 2


def test_edits_set_numbers_and_entries_of_tuples_and_refuse_others() -> None:
    model = nn.Linear(2, 2)
    model.width, model.sizes = 8, (3, 5)  # type: ignore[assignment]
    set_(model, Edit("", "width", 8, 6))
    set_(model, Edit("", "sizes", 5, 4, index=1))
    assert (model.width, model.sizes) == (6, (3, 4))
    with pytest.raises(PlanError, match="width is 6, the plan expects 7"):
        set_(model, Edit("", "width", 7, 5))
    with pytest.raises(PlanError, match=r"the model has no nowhere\.width"):
        set_(model, Edit("nowhere", "width", 7, 5))


def test_batch_norm_and_buffers_follow() -> None:
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.BatchNorm2d(6))
    twin = copy.deepcopy(model)
    keep = (1, 4)
    names = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    cut_(model, Cuts(axes=tuple(AxisCut(name, 0, 6, keep, aliases=(name,)) for name in names)))
    assert model[1].num_features == 2
    assert model[0].out_channels == 2
    x = torch.randn(2, 2, 3, 3)
    torch.testing.assert_close(model.eval()(x), twin.eval()(x)[:, list(keep)])


class Remembering(nn.Module):
    """Heads with a bias that is kept between calls, as LeViT's; the norm takes all tokens as one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm, self.out = nn.Linear(8, 36), nn.BatchNorm1d(12), nn.Linear(12, 8)
        self.bias = nn.Parameter(torch.randn(3, 5, generator=torch.Generator().manual_seed(2)))
        self.register_buffer("places", torch.arange(25).reshape(5, 5) % 5)
        self.bias_cache: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        if str(x.device) not in self.bias_cache:
            self.bias_cache[str(x.device)] = self.bias[:, self.places]
        y = ((q @ k.mT + self.bias_cache[str(x.device)]).softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.out(self.norm(y.flatten(0, 1)).reshape_as(y))  # type: ignore[no-any-return]


def test_what_a_module_keeps_of_its_weights_is_forgotten() -> None:
    net = lively(Remembering())
    x = torch.randn(2, 5, 8)
    plan = surgery.choose(net, x)
    assert plan.axis("bias").removed == 1
    net(x)
    for slim in (plan.apply(net), surgery.shrink(plan.mask(net), x).model):
        torch.testing.assert_close(slim(x), plan.mask(net)(x))
    zero_(net.out.weight, [0, 1, 2, 3], dim=1)
    assert shrunk(net, x, shapes=((1, 0), (3, 0))).model.bias.shape == (2, 5)


def test_a_cut_model_that_ran_before_forgets_what_it_kept() -> None:
    net = lively(Remembering())
    x = torch.randn(2, 5, 8)
    plan = surgery.choose(net, x)
    masked = plan.mask(net)
    expected = masked(x)
    assert masked.bias_cache
    torch.testing.assert_close(cut_(masked, plan)(x), expected)
