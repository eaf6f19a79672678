from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.testing import assert_close

from surgery.errors import InputError
from surgery.masks import bake, bake_, find_coats


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3)).eval()


X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


def assert_plain(model: nn.Module) -> None:
    assert not find_coats(model)
    for name in [*model.state_dict(), *dict(model.named_parameters())]:
        assert not name.endswith(("_orig", "_mask", "_g", "_v", "_u"))
        assert "parametrizations" not in name
    copy.deepcopy(model)


def test_prune_hooks_become_zeros_and_the_users_model_is_untouched() -> None:
    model = net()
    prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    prune.l1_unstructured(model[0], "bias", 0.5)
    before = model(X)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    names = set(model.state_dict())

    baked = bake(model)

    assert_plain(baked)
    assert isinstance(baked[0].weight, nn.Parameter)
    assert (baked[0].weight.flatten(1) == 0).all(1).sum() == 3
    assert (baked[0].bias == 0).sum() == 3
    assert_close(baked(X), before, rtol=0, atol=0)
    assert set(model.state_dict()) == names
    assert find_coats(model).by_kind == {"torch.nn.utils.prune": ("0.weight", "0.bias")}
    assert_close(model(X), before, rtol=0, atol=0)


def test_the_hooks_decide_not_the_tensor_of_the_last_call() -> None:
    model = net()
    prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    with torch.no_grad():
        model[0].weight_orig.mul_(3)
    baked = bake(model)
    assert_close(baked(X), model(X), rtol=0, atol=0)


def test_pruning_twice_is_one_mask() -> None:
    model = net()
    prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    prune.random_unstructured(model[0], "weight", 0.5)
    before = model(X)
    baked = bake(model)
    assert_plain(baked)
    assert_close(baked(X), before, rtol=0, atol=0)


def test_other_hooks_and_flags_survive() -> None:
    model = net().train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[0].note = "kept"
    calls = []
    model[0].register_forward_pre_hook(lambda module, args: calls.append("before"))
    prune.l1_unstructured(model[0], "weight", 0.5)
    model[0].register_forward_hook(lambda module, args, output: calls.append("after"))

    baked = bake(model)

    baked(X)
    assert calls == ["before", "after"]
    assert [module.training for module in baked] == [True, False, True, True]
    assert baked[0].note == "kept"
    assert not baked[0].weight.requires_grad
    assert baked[0].bias.requires_grad
    assert set(baked.state_dict()) == set(net().state_dict())


def test_half_precision_stays_half() -> None:
    model = net().to(torch.bfloat16)
    prune.l1_unstructured(model[0], "weight", 0.5)
    assert bake(model)[0].weight.dtype == torch.bfloat16


def test_an_optimizer_goes_on_with_the_baked_parameter() -> None:
    model = net()
    prune.l1_unstructured(model[0], "weight", 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    coats = bake_(model)
    assert str(coats) == "torch.nn.utils.prune: 0.weight"
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in model.parameters()}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


def test_ties_survive_under_equal_masks() -> None:
    model = Tied()
    mask = torch.rand(6, 6) > 0.5
    prune.custom_from_mask(model.a, "weight", mask)
    prune.custom_from_mask(model.b, "weight", mask.clone())
    before = model(X.reshape(-1, 6))
    baked = bake(model)
    assert baked.a.weight is baked.b.weight
    assert find_coats(model).names == ("a.weight", "b.weight")
    assert_close(baked(X.reshape(-1, 6)), before, rtol=0, atol=0)


@pytest.mark.parametrize("both", [True, False])
def test_ties_under_different_masks_come_apart(both: bool) -> None:
    model = Tied()
    prune.custom_from_mask(model.a, "weight", torch.rand(6, 6) > 0.5)
    if both:
        prune.custom_from_mask(model.b, "weight", torch.rand(6, 6) > 0.5)
    else:  # b goes on reading the whole tensor
        assert model.b.weight is model.a.weight_orig
    before = model(X.reshape(-1, 6))
    coats = bake_(model)
    assert model.a.weight is not model.b.weight
    assert coats.untied == (("b.weight",) if both else ("a.weight",))
    assert "shared before, apart now" in str(coats)
    assert_close(model(X.reshape(-1, 6)), before, rtol=0, atol=0)


def test_a_masked_lstm_keeps_its_flat_weights_in_step() -> None:
    model = nn.LSTM(6, 4)
    prune.ln_structured(model, "weight_hh_l0", 0.5, n=2, dim=0)
    before, _ = model(X.reshape(-1, 1, 6))
    baked = bake(model)
    assert any(tensor is baked.weight_hh_l0 for tensor in baked._flat_weights)
    assert_plain(baked)
    assert_close(baked(X.reshape(-1, 1, 6))[0], before, rtol=0, atol=0)


@pytest.mark.parametrize("transposed", [False, True])
def test_old_norms(transposed: bool) -> None:
    conv = nn.ConvTranspose2d(3, 3, 3) if transposed else nn.Conv2d(3, 3, 3)
    model = nn.Sequential(
        weight_norm(conv), spectral_norm(nn.Conv2d(3, 5, 3)), weight_norm(nn.Conv2d(5, 2, 1), dim=None)
    )
    model(X)
    model.eval()
    before = model(X)
    baked = bake(model)
    assert_plain(baked)
    assert_close(baked(X), before, rtol=0, atol=0)
    assert find_coats(model).by_kind == {"weight_norm": ("0.weight", "2.weight"), "spectral_norm": ("1.weight",)}
    # no hook of theirs is left behind that would look for weight_u in a state_dict
    baked.load_state_dict(copy.deepcopy(baked.state_dict()))


def test_a_mask_under_a_weight_norm_counts() -> None:
    layer = weight_norm(nn.Linear(6, 4))
    prune.custom_from_mask(layer, "weight_g", torch.tensor([[1], [0], [1], [0]]))
    layer(X.reshape(-1, 6))
    before = layer(X.reshape(-1, 6))
    baked = bake(layer)
    assert_plain(baked)
    assert_close(baked(X.reshape(-1, 6)), before, rtol=0, atol=0)
    assert (baked.weight == 0).all(1).tolist() == [False, True, False, True]


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def test_parametrizations() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.Conv2d(4, 5, 3), nn.Conv2d(5, 5, 1))
    parametrizations.spectral_norm(model[1])
    parametrize.register_parametrization(model[1], "bias", Doubled())
    parametrize.register_parametrization(model[2], "weight", Doubled())
    model.eval()
    before = model(X)
    baked = bake(model)
    assert_plain(baked)
    assert [type(module) for module in baked] == [nn.Conv2d] * 3
    assert all(isinstance(module.weight, nn.Parameter) and module.weight.requires_grad for module in baked)
    assert_close(baked(X), before, rtol=0, atol=0)
    # torch's own removal would have broken the user's model, whose class the copy shares
    assert_close(model(X), before, rtol=0, atol=0)
    assert find_coats(model).by_kind == {
        "weight_norm": ("0.weight",),
        "spectral_norm": ("1.weight",),
        "Doubled": ("1.bias", "2.weight"),
    }


def test_fake_sparsity_of_torch_ao() -> None:
    model = nn.Sequential(nn.Linear(8, 4))
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 4))
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    before = model(X)
    baked = bake(model)
    assert_plain(baked)
    assert (baked[0].weight == 0).sum() == 16
    assert_close(baked(X), before, rtol=0, atol=0)
    assert find_coats(model).by_kind == {"FakeSparsity": ("0.weight",)}


def test_a_parametrized_buffer_stays_a_buffer() -> None:
    model = nn.Sequential(nn.BatchNorm1d(6)).eval()
    model[0].running_mean.add_(1)
    parametrize.register_parametrization(model[0], "running_mean", Doubled())
    before = model(X.reshape(-1, 6))
    baked = bake(model)
    assert set(dict(baked.named_buffers())) == {"0.running_mean", "0.running_var", "0.num_batches_tracked"}
    assert_close(baked(X.reshape(-1, 6)), before, rtol=0, atol=0)


def test_a_plain_model_is_only_copied() -> None:
    model = net()
    baked = bake(model)
    assert baked is not model
    assert str(bake_(model)) == "every parameter is plain"
    assert_close(baked.state_dict(), model.state_dict())


def test_what_cannot_be_copied_is_refused() -> None:
    class Holder(nn.Linear):
        def __deepcopy__(self, memo: object) -> None:
            raise TypeError("cannot pickle '_thread.lock' object\nmore")

    with pytest.raises(InputError, match=r"cannot be copied: cannot pickle '_thread.lock' object\n  -> remove"):
        bake(Holder(2, 2))
