"""How far a student is from its teacher: in soft targets, in numbers, and in features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

HALVES = (torch.float16, torch.bfloat16)


def soft_targets(
    student: Tensor, teacher: Tensor, *, temperature: float, dim: int, keep: Tensor | None = None
) -> Tensor:
    """student, teacher [..., classes, ...] -> a number: T² · KL(teacher ∥ student) of both softened by T.

    The mean over the positions that count. Multiplied by T², its gradients are as large as those of hard targets,
    whatever the temperature (Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2).
    Half precision is raised to float32. Classes that the teacher rules out (minus infinity) add nothing.

    Args:
        student, teacher: Logits.
        temperature: T.
        dim: Where the classes lie.
        keep: Bool, of the shape without the classes: the positions that count; None for all.
    """
    mine, wanted = _wide(student), _wide(teacher)
    probabilities = torch.softmax(wanted / temperature, dim)
    each = F.kl_div(torch.log_softmax(mine / temperature, dim), probabilities.to(mine.dtype), reduction="none")
    return temperature**2 * _mean(each.masked_fill(probabilities == 0, 0.0).sum(dim), keep)


def squared_error(student: Tensor, teacher: Tensor, *, keep: Tensor | None = None) -> Tensor:
    """student, teacher [...] -> the mean squared difference, over the positions that count (of the first dims)."""
    mine = _wide(student)
    each = F.mse_loss(mine, _wide(teacher).to(mine.dtype), reduction="none")
    return _mean(each if keep is None or keep.dim() == each.dim() else each.flatten(keep.dim()).mean(-1), keep)


def feature_error(student: Tensor, teacher: Tensor) -> Tensor:
    """student, teacher [...] -> the mean squared difference over the teacher's mean square.

    The distance of FitNets (Romero et al. 2015), without their regressor, and of one size for layers of any scale:
    1 for features that are as wrong as zeros.
    """
    wanted = _wide(teacher)
    size = wanted.square().mean().clamp_min(torch.finfo(wanted.dtype).tiny)
    return squared_error(student, teacher) / size.to(_wide(student).dtype)


def _mean(each: Tensor, keep: Tensor | None) -> Tensor:
    if keep is None:
        return each.mean()
    keep = keep.to(each.device)
    return each.masked_fill(~keep, 0.0).sum() / keep.sum().clamp_min(1)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in HALVES else tensor
