"""The net and its training: real digits, masks that stay in force."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from surgery.demo.digits import load_digits
from surgery.demo.net import DigitNet
from surgery.demo.training import accuracy, mask_half_, scores, train_


def test_the_split_is_fixed_and_no_picture_is_in_both_parts() -> None:
    digits, again = load_digits(), load_digits()
    assert len(digits.pictures) + len(digits.test_pictures) == 1797
    assert len(digits.test_pictures) == len(digits.test_labels) == 450
    torch.testing.assert_close(digits.test_pictures, again.test_pictures, rtol=0, atol=0)
    assert set(digits.test_labels.tolist()) == set(range(10))
    learnt = {picture.numpy().tobytes() for picture in digits.pictures}
    assert not learnt & {picture.numpy().tobytes() for picture in digits.test_pictures}
    assert 0 <= float(digits.pictures.min()) < float(digits.pictures.max()) <= 1


@pytest.mark.parametrize("size", [8, 13, 40])
def test_the_net_takes_pictures_of_any_size(size: int) -> None:
    assert DigitNet(8, 16)(torch.rand(2, 1, size, size)).shape == (2, 10)


def test_training_learns_and_masks_stay_in_force() -> None:
    digits = load_digits()
    model = DigitNet(8, 16)
    train_(model, digits, epochs=3, learning_rate=1e-2, seed=0, what="training")
    learnt = accuracy(scores(model, digits.test_pictures), digits.test_labels)
    assert learnt > 0.5
    mask_half_(model)
    zero = {name: _zero_filters(module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert all(int(rows.sum()) == len(rows) // 2 for rows in zero.values())
    train_(model, digits, epochs=1, learning_rate=1e-2, seed=1, what="training")
    assert not model.training
    scores(model, digits.test_pictures)
    for name, rows in zero.items():
        torch.testing.assert_close(_zero_filters(model.get_submodule(name)), rows)


def test_the_same_seed_trains_the_same_net() -> None:
    digits = load_digits()
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(DigitNet(8, 8))
        train_(nets[-1], digits, epochs=1, learning_rate=1e-2, seed=0, what="training")
    torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), rtol=0, atol=0)


def test_accuracy_is_a_share() -> None:
    answer = torch.eye(10)[[3, 4, 5, 6]]
    assert accuracy(answer, torch.tensor([3, 4, 0, 0])) == 0.5


def _zero_filters(module: nn.Module) -> torch.Tensor:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return (weight.detach().flatten(1) == 0).all(1)
