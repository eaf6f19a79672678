from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.testing import assert_close

from surgery.errors import InputError
from surgery.masks import bake, merge_state_dict


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(6, 6, 3), nn.BatchNorm2d(6)).eval()


def assert_merges_like_baking(model: nn.Module) -> None:
    merged = merge_state_dict(model.state_dict())
    assert_close(merged, dict(bake(model).state_dict()), rtol=0, atol=0)
    fresh = net()
    fresh.load_state_dict(merged)


def test_prune() -> None:
    model = net()
    prune.ln_structured(model[0], "weight", 0.5, n=2, dim=0)
    prune.l1_unstructured(model[0], "bias", 0.5)
    assert_merges_like_baking(model)
    assert list(merge_state_dict(model.state_dict())) == list(net().state_dict())


def test_weight_norm_old_and_new() -> None:
    model = net()
    weight_norm(model[0])
    parametrizations.weight_norm(model[1], dim=1)
    assert_merges_like_baking(model)
    model = net()
    weight_norm(model[0], dim=None)
    prune.random_structured(model[0], "weight_v", 0.5, dim=0)
    assert_merges_like_baking_with_prune_inside(model)


def assert_merges_like_baking_with_prune_inside(model: nn.Module) -> None:
    baked = bake(model)
    assert_close(merge_state_dict(model.state_dict())["0.weight"], baked[0].weight.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1), (4, 5)])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_of_every_shape(shape: tuple[int, int], dim: int | None) -> None:
    model = nn.Sequential(weight_norm(nn.Linear(shape[1], shape[0]), dim=dim))
    assert_close(merge_state_dict(model.state_dict())["0.weight"], bake(model)[0].weight.detach(), rtol=0, atol=0)


def test_a_saved_mask_under_a_parametrization() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", (torch.rand(6, 3, 3, 3) > 0.5).float())

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * self.mask

    model = net()
    parametrize.register_parametrization(model[0], "weight", Masked())
    assert_merges_like_baking(model)


def test_all_else_passes_through() -> None:
    state: dict[str, Any] = {"a_g": torch.ones(3, 3), "a_v": torch.ones(3, 3), "x_mask": torch.ones(1), "n": 3}
    assert merge_state_dict(state) == state
    assert merge_state_dict({"w_orig": torch.ones(2), "w": torch.zeros(1)}).keys() == {"w_orig", "w"}


def test_a_coat_that_the_model_wears_itself_is_kept() -> None:
    model = net()
    weight_norm(model[0])
    parametrizations.weight_norm(model[1])
    assert merge_state_dict(model.state_dict(), keep=model.state_dict()).keys() == model.state_dict().keys()


def test_prefixes_are_stripped_only_when_asked() -> None:
    model = nn.ModuleDict({"module": net()})
    prune.ln_structured(model["module"][0], "weight", 0.5, n=2, dim=0)
    state = model.state_dict()
    assert all(name.startswith("module.") for name in merge_state_dict(state))
    assert set(merge_state_dict(state, strip_prefix="module.")) == set(net().state_dict())


def saved_by_torch_ao() -> dict[str, Any]:
    model = net()
    sparsifier = WeightNormSparsifier()
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    return model.state_dict()


@pytest.mark.parametrize(
    ("state", "settings", "message"),
    [
        (
            {"module.a": torch.ones(1), "b": torch.ones(1)},
            {"strip_prefix": "module."},
            "1 of 2 names do not start with 'module.', the first is 'b'\n  -> strip a prefix that all names share",
        ),
        (
            {"a.weight_orig": torch.ones(3, 2), "a.weight_mask": torch.ones(2, 3)},
            {},
            "the mask of 'a.weight' has the shape [2, 3], its tensor [3, 2]\n"
            "  -> save the state_dict again: the two belong to different models",
        ),
        (
            {"w": torch.ones(2), "w_orig": torch.ones(2), "w_mask": torch.ones(2)},
            {},
            "the state_dict holds both 'w' and 'w_orig'\n  -> remove one: both mean 'w'",
        ),
        (
            spectral_norm(nn.Linear(2, 2)).state_dict(),
            {},
            "'weight' was saved under spectral_norm\n  -> put spectral_norm on the model first",
        ),
        (
            saved_by_torch_ao(),
            {},
            "'0.weight' was saved under a parametrization whose mask was not saved (torch.ao.pruning leaves it out)\n"
            "  -> call the sparsifier's squash_mask() before saving, or give the masks apart as keep masks",
        ),
        (
            parametrizations.spectral_norm(nn.Linear(2, 2)).state_dict(),
            {},
            "'weight' was saved under a parametrization of unknown kind, with 0._u, 0._v, original\n"
            "  -> call torch.nn.utils.parametrize.remove_parametrizations before saving, "
            "or put the same one on the model",
        ),
    ],
)
def test_refusals(state: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        merge_state_dict(state, **settings)
    assert str(caught.value) == message
