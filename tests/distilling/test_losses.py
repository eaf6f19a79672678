"""The three distances, against what the papers say of them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from surgery.distilling.losses import feature_error, soft_targets, squared_error


def logits(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_targets_are_t_squared_times_the_divergence_written_out(temperature: float) -> None:
    student, teacher = logits(6, 5), logits(6, 5, seed=1)
    p, q = (torch.softmax(one / temperature, 1) for one in (teacher, student))
    written = temperature**2 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(soft_targets(student, teacher, temperature=temperature, dim=1), written)


def test_the_gradient_of_soft_targets_has_the_size_of_that_of_logits_whatever_the_temperature() -> None:
    """Hinton, Vinyals, Dean 2015, equation 4: for high T and logits of mean 0 it tends to (z - v) / N."""
    student, teacher = (one - one.mean(1, keepdim=True) for one in (logits(1, 5), logits(1, 5, seed=1)))
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(soft_targets(student, teacher, temperature=1e6, dim=1), student)
    torch.testing.assert_close(gradient, (student - teacher).detach() / 5, rtol=1e-3, atol=1e-6)


def test_positions_that_do_not_count_change_nothing() -> None:
    student, teacher = logits(2, 3, 5), logits(2, 3, 5, seed=1)
    keep = torch.tensor([[True, True, False], [True, False, False]])
    spoilt = torch.where(keep[..., None], student, 1e9)
    found = soft_targets(spoilt, teacher, temperature=2.0, dim=2, keep=keep)
    torch.testing.assert_close(found, soft_targets(student[keep], teacher[keep], temperature=2.0, dim=1))
    found = squared_error(spoilt, teacher, keep=keep)
    torch.testing.assert_close(found, F.mse_loss(student[keep], teacher[keep]))


def test_a_batch_in_which_nothing_counts_costs_nothing_and_has_a_gradient() -> None:
    student = logits(2, 3, 5).requires_grad_()
    keep = torch.zeros(2, 3, dtype=torch.bool)
    loss = soft_targets(student, logits(2, 3, 5, seed=1), temperature=2.0, dim=2, keep=keep)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert student.grad.eq(0).all()


def test_classes_that_both_rule_out_add_nothing() -> None:
    student, teacher = logits(4, 5), logits(4, 5, seed=1)
    barred_student, barred = student.clone(), teacher.clone()
    barred_student[:, 2] = barred[:, 2] = -torch.inf
    barred_student.requires_grad_()
    left = [0, 1, 3, 4]
    loss = soft_targets(barred_student, barred, temperature=3.0, dim=1)
    torch.testing.assert_close(loss, soft_targets(student[:, left], teacher[:, left], temperature=3.0, dim=1))
    loss.backward()
    assert barred_student.grad is not None
    assert barred_student.grad.isfinite().all()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_halves_are_compared_in_float32(half: torch.dtype) -> None:
    student, teacher = logits(4, 5, dtype=half), logits(4, 5, seed=1, dtype=half)
    for found in (soft_targets(student, teacher, temperature=4.0, dim=1), feature_error(student, teacher)):
        assert found.dtype == torch.float32
    wide = soft_targets(student.float(), teacher.float(), temperature=4.0, dim=1)
    torch.testing.assert_close(soft_targets(student, teacher, temperature=4.0, dim=1), wide, rtol=0, atol=0)


def test_a_feature_error_is_one_for_zeros_whatever_the_scale() -> None:
    teacher = logits(4, 5)
    for scale in (1e-6, 1.0, 1e6):
        torch.testing.assert_close(feature_error(torch.zeros(4, 5, dtype=torch.float64), scale * teacher).item(), 1.0)
    assert feature_error(torch.ones(3), torch.zeros(3)).isfinite()
