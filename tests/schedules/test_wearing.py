from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import surgery
from surgery.errors import InputError
from surgery.schedules.wearing import early_values, products, share_masked


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))


def test_the_smallest_weights_of_all_layers_together_are_masked():
    model = surgery.sparsify_(net(), 0.5)
    masks, weights = surgery.keep_masks(model), dict(net().named_parameters())
    values = torch.cat([weights[name].abs().flatten() for name in masks])
    kept = torch.cat([masks[name].flatten() for name in masks])
    assert sorted(masks) == ["0.weight", "4.weight"]
    assert int(kept.sum()) == kept.numel() - round(0.5 * kept.numel())
    assert values[kept].min() >= values[~kept].max()


def test_the_same_share_of_each_layer_where_asked():
    masks = surgery.keep_masks(surgery.sparsify_(net(), 0.25, surgery.Unstructured(global_=False)))
    for mask in masks.values():
        assert int((~mask).sum()) == round(0.25 * mask.numel())


def test_masks_only_get_tighter_and_count_what_is_masked_already():
    model = net()
    prune.random_unstructured(model[4], "weight", amount=0.3)
    theirs = surgery.keep_masks(model)["4.weight"]
    surgery.sparsify_(model, 0.6)
    assert share_masked(products(model)) == pytest.approx(0.6, abs=1e-3)
    assert not surgery.keep_masks(model)["4.weight"][~theirs].any()
    before = surgery.keep_masks(model)
    surgery.sparsify_(model, 0.2)
    torch.testing.assert_close(surgery.keep_masks(model), before)


def test_the_same_parameter_trains_on_and_what_is_masked_does_not_come_back():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    surgery.sparsify_(model, 0.5)
    masked = ~surgery.keep_masks(model)["4.weight"]
    for _ in range(3):
        model(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    model(torch.randn(4, 3, 8, 8))
    assert not model[4].weight[masked].any()
    assert not torch.equal(model[4].weight[~masked], net()[4].weight[~masked])


def test_what_is_drawn_at_random_is_the_seeds():
    masks = [
        surgery.keep_masks(surgery.sparsify_(net(), 0.5, surgery.Unstructured("random", seed=seed)))
        for seed in (0, 0, 1)
    ]
    torch.testing.assert_close(masks[0], masks[1])
    assert not torch.equal(masks[0]["4.weight"], masks[2]["4.weight"])


def test_norms_tables_and_shared_weights_stay():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.inner, self.norm = nn.Embedding(9, 6), nn.Linear(6, 6), nn.LayerNorm(6)
            self.head = nn.Linear(6, 9, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x):
            return self.head(self.norm(self.inner(self.table(x))))

    assert sorted(surgery.keep_masks(surgery.sparsify_(Tied(), 0.5))) == ["inner.weight"]


@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers_and_attention_wear_masks_and_are_shrunk_exactly(batch_first):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(6, 8, batch_first=batch_first)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)

        def forward(self, x):
            y = self.lstm(x)[0]
            return self.attention(y, y, y, need_weights=False)[0]

    torch.manual_seed(0)
    model = surgery.sparsify_(Both().eval(), 0.4)
    assert sorted(surgery.keep_masks(model)) == [
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "lstm.weight_hh_l0",
        "lstm.weight_ih_l0",
    ]
    x = torch.randn(3, 4, 6)
    result = surgery.shrink(model, x)
    torch.testing.assert_close(result.model(x), model(x))
    assert result.proof.passed


def test_a_module_that_is_called_twice_wears_one_mask():
    layer = nn.Linear(6, 6)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    surgery.sparsify_(model, 0.5)
    assert int((~surgery.keep_masks(model)["0.weight"]).sum()) == 18
    surgery.wear_(model, {"0": torch.tensor([False] + [True] * 5)})
    assert not surgery.keep_masks(model)["0.weight"][0].any()


def test_names_to_protect_stay_and_unknown_ones_are_refused():
    model = surgery.sparsify_(net(), 0.5, surgery.Unstructured(protect="4"))
    assert list(surgery.keep_masks(model)) == ["0.weight"]
    with pytest.raises(InputError, match="protect names 'head'"):
        surgery.sparsify_(net(), 0.5, surgery.Unstructured(protect=("head",)))


def test_what_cannot_be_masked_is_refused():
    with pytest.raises(InputError, match="Sequential has no weight"):
        surgery.sparsify_(nn.Sequential(nn.ReLU()), 0.5)
    with pytest.raises(InputError, match=r"amount is 1\.0"):
        surgery.sparsify_(net(), 1.0)
    broken = net()
    with torch.no_grad():
        broken[4].weight[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"4\.weight holds NaN"):
        surgery.sparsify_(broken, 0.5)


def test_a_mask_found_once_is_worn_by_another_net():
    masks = surgery.keep_masks(surgery.sparsify_(net(), 0.5))
    fresh = surgery.wear_(net(), masks)
    torch.testing.assert_close(surgery.keep_masks(fresh), masks)
    surgery.wear_(fresh, {"0": torch.tensor([False] + [True] * 7)})
    assert not surgery.keep_masks(fresh)["0.weight"][0].any()
    assert int((~surgery.keep_masks(fresh)["0.weight"][1:]).sum()) == int((~masks["0.weight"][1:]).sum())


def test_a_plan_is_worn_as_it_masks():
    model, x = net(), torch.randn(2, 3, 8, 8)
    plan = surgery.choose(model, x, keep_ratio=0.5)
    torch.testing.assert_close(surgery.wear_(net(), plan)(x), plan.mask(model)(x))


def test_masks_that_do_not_fit_are_refused_and_nothing_is_put_on():
    model = net()
    keep = torch.ones(8, 3, 3, 3)
    with pytest.raises(InputError, match=r"the keep mask of '4' has the shape \[2\]"):
        surgery.wear_(model, {"0": keep, "4": torch.ones(2)})
    with pytest.raises(InputError, match="names 'conv'"):
        surgery.wear_(model, {"0": keep, "conv": keep})
    assert surgery.keep_masks(model) == {}
    plan = surgery.choose(net(), torch.randn(2, 3, 8, 8), keep_ratio=0.5)
    with pytest.raises(InputError, match=r"the plan masks 0\.weight of \[8, 3, 3, 3\]"):
        surgery.wear_(nn.Sequential(nn.Conv2d(3, 4, 3)), plan)


def test_a_mask_on_a_weight_that_modules_share_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with pytest.raises(InputError, match=r"0\.weight and 1\.weight are one parameter"):
        surgery.wear_(model, {"0": torch.ones(4)})


def test_rewinding_puts_weights_and_statistics_back_and_leaves_masks():
    model = net()
    early = early_values(model)
    for _ in range(3):
        model.train()(torch.randn(4, 3, 8, 8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    surgery.sparsify_(model, 0.5)
    masks = surgery.keep_masks(model)
    surgery.rewind_(model, early)
    torch.testing.assert_close(surgery.keep_masks(model), masks)
    torch.testing.assert_close(model[4].weight, net()[4].weight * masks["4.weight"])
    torch.testing.assert_close(model[1].running_mean, torch.zeros(8))
    torch.testing.assert_close(early_values(model), early)


def test_early_values_that_do_not_fit_are_refused():
    model = surgery.sparsify_(net(), 0.5)
    before = early_values(model)
    with pytest.raises(InputError, match=r"the early values have no '4\.bias'"):
        surgery.rewind_(model, {name: value + 1 for name, value in before.items() if name != "4.bias"})
    with pytest.raises(InputError, match=r"4\.bias is \[5\], its early value \[2\]"):
        surgery.rewind_(model, before | {"4.bias": torch.ones(2)})
    torch.testing.assert_close(early_values(model), before)
