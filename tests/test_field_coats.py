"""Masks come in many coats: shrink sees the same zeros in each, gives the same slim model, leaves the coat alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import parametrize, prune

import surgery
from surgery.sources.weights import load_checkpoint_, load_weights_
from tests import nets
from tests.exactness import assert_exact, assert_plain, fingerprint, parameters, shrunk

DEAD = [1, 3, 4, 6]
AFTER = 573


def dense() -> nets.PaddedPair:
    """973 parameters. Dead channels of conv1 say nothing (their bias dies in the ReLU), so 573 are left."""
    net = nets.lively(nets.PaddedPair())
    with torch.no_grad():
        net.conv1.bias[DEAD] = -net.conv1.bias[DEAD].abs() - 0.1
    return net


def zeroed() -> nets.PaddedPair:
    return nets.zero_rows_(dense(), conv1=DEAD)


def row_mask() -> Tensor:
    mask = torch.ones(8, 3, 3, 3)
    mask[DEAD] = 0
    return mask


def hooked() -> nets.PaddedPair:
    net = dense()
    prune.custom_from_mask(net.conv1, "weight", row_mask())
    return net


def hooked_and_called() -> nets.PaddedPair:
    """After a forward with gradients, `weight` is no leaf: `copy.deepcopy` refuses the model."""
    net = hooked()
    net(nets.image()).sum().backward()
    with pytest.raises(RuntimeError, match="Only Tensors created explicitly"):
        copy.deepcopy(net)
    return net


def hook_removed() -> nets.PaddedPair:
    net = hooked()
    prune.remove(net.conv1, "weight")
    return net


def masked_twice() -> nets.PaddedPair:
    """Lightning's ModelPruning prunes again and again: masks add up in one container."""
    net = dense()
    for dead in (DEAD[:2], DEAD[2:]):
        mask = torch.ones(8, 3, 3, 3)
        mask[dead] = 0
        prune.custom_from_mask(net.conv1, "weight", mask)
    return net


def structured() -> nets.PaddedPair:
    """`ln_structured` takes the filters of the lowest norm: make those the dead ones."""
    net = dense()
    with torch.no_grad():
        net.conv1.weight[DEAD] *= 1e-3
    prune.ln_structured(net.conv1, "weight", amount=4, n=2, dim=0)
    prune.l1_unstructured(net.head, "weight", amount=0.3)  # scattered zeros beside it: nothing to remove there
    with torch.no_grad():
        net.head.weight_mask.fill_(1)
    return net


class Masked(nn.Module):
    """A parametrization of the user's own."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def parametrized() -> nets.PaddedPair:
    net = dense()
    parametrize.register_parametrization(net.conv1, "weight", Masked(row_mask()))
    return net


def fake_sparsity() -> nets.PaddedPair:
    net = dense()
    sparsifier = WeightNormSparsifier(sparsity_level=0.5)
    sparsifier.prepare(net, [{"tensor_fqn": "conv1.weight"}])
    net.conv1.parametrizations.weight[0].mask.copy_(row_mask())
    return net


COATS: dict[str, Callable[[], nets.PaddedPair]] = {
    "plain zeros": zeroed,
    "prune, hooks in place": hooked,
    "prune, after a backward": hooked_and_called,
    "prune, removed": hook_removed,
    "prune, twice": masked_twice,
    "prune, ln_structured": structured,
    "parametrization": parametrized,
    "torch.ao FakeSparsity": fake_sparsity,
}


@pytest.mark.parametrize("coat", COATS.values(), ids=COATS)
def test_every_coat_gives_the_same_slim_model(coat: Callable[[], nets.PaddedPair]) -> None:
    net = coat()
    result = shrunk(net, nets.image())
    assert parameters(result.model) == AFTER
    expected = surgery.shrink(zeroed(), nets.image(), prove=False).model.state_dict()
    got = result.model.state_dict()
    assert sorted(got) == sorted(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=0)
    assert not result.model.conv1._forward_pre_hooks
    with torch.no_grad():
        torch.testing.assert_close(result.model(nets.image()), net(nets.image()), rtol=1e-5, atol=1e-5)


def test_the_report_says_what_was_baked() -> None:
    result = surgery.shrink(hooked(), nets.image(), prove=False)
    assert "note: baked: torch.nn.utils.prune: conv1.weight" in str(result)
    assert surgery.shrink(zeroed(), nets.image(), prove=False).notes == ()


def test_in_place_the_coat_is_taken_off_and_the_model_itself_is_cut() -> None:
    net = hooked()
    reference = surgery.shrink(hooked(), nets.image(), prove=False).model.state_dict()
    original = net.conv1.weight_orig
    result = surgery.shrink(net, nets.image(), inplace=True)
    assert result.model is net
    assert net.conv1.weight is original, "an optimizer goes on with the same parameter"
    assert parameters(net) == AFTER
    for name, tensor in reference.items():
        torch.testing.assert_close(net.state_dict()[name], tensor, rtol=0, atol=0)


def load_bare(path: Path) -> nets.PaddedPair:
    net = dense()
    load_checkpoint_(net, path)
    return net


def save_pt(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def save_safetensors(state: dict[str, Tensor], path: Path) -> Path:
    save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


@pytest.mark.parametrize("write", [save_pt, save_safetensors], ids=["pt", "safetensors"])
@pytest.mark.parametrize("coat", [zeroed, hooked, parametrized, masked_twice])
def test_checkpoints_in_any_coat(
    tmp_path: Path, coat: Callable[[], nets.PaddedPair], write: Callable[[dict[str, Tensor], Path], Path]
) -> None:
    """`weight_orig` and `weight_mask` in a bare state_dict, as Lightning and Catalyst save them; and plain ones."""
    path = write(dict(coat().state_dict()), tmp_path / "checkpoint")
    net = load_bare(path)
    assert parameters(shrunk(net, nets.image()).model) == AFTER


def test_a_bare_state_dict() -> None:
    net = dense()
    state = hooked().state_dict()
    assert {"conv1.weight_orig", "conv1.weight_mask"} <= set(state)
    load_weights_(net, state)
    assert parameters(shrunk(net, nets.image()).model) == AFTER


ROWS = torch.tensor([i not in DEAD for i in range(8)])


@pytest.mark.parametrize(
    "masks",
    [
        {"conv1.weight": row_mask().bool()},
        {"conv1.weight": row_mask()},
        {"conv1": ROWS},
        {"conv1.weight": ROWS},
    ],
    ids=["full shape", "of zeros and ones", "by module", "one entry a row"],
)
def test_a_dict_of_keep_masks(masks: dict[str, Tensor]) -> None:
    assert parameters(shrunk(dense(), nets.image(), keep_masks=masks).model) == AFTER


def test_a_file_of_keep_masks(tmp_path: Path) -> None:
    save_file({"conv1.weight": row_mask().to(torch.uint8)}, tmp_path / "masks.safetensors")
    masks = load_file(tmp_path / "masks.safetensors")
    assert parameters(shrunk(dense(), nets.image(), keep_masks=masks).model) == AFTER


def test_keep_masks_are_understood_by_analyze_too() -> None:
    analysis = surgery.analyze(dense(), nets.image(), keep_masks={"conv1": ROWS})
    assert analysis.dead == 4
    assert surgery.analyze(dense(), nets.image()).dead == 0


@pytest.mark.parametrize("new", [False, True], ids=["old", "parametrization"])
def test_weight_norm_with_gains_of_zero(new: bool) -> None:
    """A gain of 0 is a zero row; what is left is a plain weight, as it is computed."""
    net = dense()
    norm: Any = nn.utils.parametrizations.weight_norm if new else nn.utils.weight_norm
    norm(net.conv1)
    norm(net.conv2)
    with torch.no_grad():
        (net.conv1.parametrizations.weight.original0 if new else net.conv1.weight_g)[DEAD] = 0
    result = shrunk(net, nets.image())
    assert parameters(result.model) == AFTER
    assert type(result.model.conv2) is nn.Conv2d


def test_subnormals_are_counted_not_removed_and_flushed_only_if_asked() -> None:
    """Filters left at 1e-40: they are no zeros, slow everything down, and fake a speed-up."""
    net = dense()
    with torch.no_grad():
        net.conv1.weight[DEAD] = 1e-40
    result = surgery.shrink(net, nets.image(), prove=False)
    assert result.plan.empty
    (note,) = result.notes
    assert note == (
        f"{4 * 27} subnormal weights (conv1.weight) slow kernels down and are not zeros; "
        "flush_subnormals=True sets them to zero"
    )
    before = fingerprint(net)
    flushed = surgery.shrink(net, nets.image(), prove=False, flush_subnormals=True)
    assert fingerprint(net) == before
    assert flushed.notes == (f"{4 * 27} subnormal weights were set to zero",)
    assert_plain(net, flushed.model)
    assert parameters(flushed.model) == AFTER
    assert_exact(zeroed(), flushed.plan, flushed.model, nets.image())
