"""The teacher's share of a loss, for any model and any loop."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForTokenClassification

import surgery
from surgery.errors import InputError
from tests.nets import lively

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
Y = torch.tensor([0, 2, 1, 2])


def net(width: int = 8, classes: int = 3, seed: int = 0) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, classes))
    lively(layers, seed)
    return layers.train()


def state(model: nn.Module) -> dict[str, Any]:
    flags = {name: module.training for name, module in model.named_modules()}
    grads = {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()}
    hooks = [len(module._forward_hooks) for module in model.modules()]
    return {"flags": flags, "grads": grads, "hooks": hooks}


def test_the_loss_is_as_the_paper_says() -> None:
    teacher, student = net(seed=1), net(width=5)
    outputs = student(X)
    task = F.cross_entropy(outputs, Y)
    t = 3.0
    soft = F.kl_div(F.log_softmax(outputs / t, 1), F.softmax(teacher.eval()(X) / t, 1), reduction="batchmean").detach()
    teacher.train()  # it is asked in eval mode, whatever it is in
    with_labels = surgery.Distillation(teacher, temperature=t, weight=0.7)(outputs, (X,), task_loss=task, targets=Y)
    torch.testing.assert_close(with_labels, 0.3 * task + 0.7 * t**2 * soft)
    alone = surgery.Distillation(teacher, temperature=t, weight=0.7)(outputs, (X,))
    torch.testing.assert_close(alone.detach(), t**2 * soft)
    numbers = surgery.Distillation(teacher, weight=1.0, kind="values")(outputs, (X,), task_loss=task * torch.inf)
    torch.testing.assert_close(numbers.detach(), F.mse_loss(outputs, teacher.eval()(X)).detach())


def test_the_teacher_is_left_as_it_is_and_only_the_student_learns() -> None:
    teacher, student = net(seed=1), net()
    before, weights = state(teacher), copy.deepcopy(teacher.state_dict())
    distillation = surgery.Distillation(teacher, features=["0", "1"])
    with distillation.watching(student):
        distillation(student(X), (X,), targets=Y).backward()
    assert state(teacher) == before
    torch.testing.assert_close(teacher.state_dict(), weights, rtol=0, atol=0)
    assert all(p.grad is not None for p in student.parameters())
    assert state(student)["hooks"] == [0] * 5


def test_no_hook_is_left_after_an_error() -> None:
    teacher, student = net(seed=1), net()
    distillation = surgery.Distillation(teacher, features=["0"])
    with pytest.raises(RuntimeError, match="mat1"), distillation.watching(student):
        student(torch.rand(4, 5))
    with pytest.raises(InputError, match="fails on the student's inputs"), distillation.watching(student):
        distillation(student(X), (torch.rand(4, 5),))
    for model in (teacher, student):
        assert not any(state(model)["hooks"])
    assert teacher.training


def test_features_draw_the_student_to_the_teacher() -> None:
    dense = net(seed=1).eval()
    plan = surgery.choose(dense, X, keep_ratio=0.5)
    student = lively(plan.apply(dense, X), seed=2)
    distillation = surgery.Distillation(dense, weight=0.0, features=["0"], plan=plan)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    found = []
    for _ in range(60):
        with distillation.watching(student):
            loss = distillation(student(X), (X,), task_loss=torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < 0.01 * found[0]
    kept = list(plan.axis("0.weight").keep)
    torch.testing.assert_close(student[0](X), dense[0](X)[:, kept], rtol=0.2, atol=0.3)


def test_in_float64_and_in_autocast() -> None:
    teacher, student = net(seed=1), net().double()
    distillation = surgery.Distillation(teacher, features=["0"])
    with distillation.watching(student):
        loss = distillation(student(X.double()), (X.double(),), targets=Y)
    assert loss.dtype == torch.float64
    student = net()
    with distillation.watching(student), torch.autocast("cpu", torch.bfloat16):
        loss = distillation(student(X), (X,), targets=Y)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())


def test_padding_does_not_count() -> None:
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=4
    )
    teacher, student = (BertForTokenClassification(config).eval() for _ in range(2))
    ids, labels = torch.randint(0, 20, (2, 5)), torch.randint(0, 4, (2, 5))
    attended = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    labels[attended == 0] = -100
    labels[0, 0] = -100
    kwargs = {"input_ids": ids, "attention_mask": attended, "labels": labels}
    outputs = student(**kwargs)
    found = surgery.Distillation(teacher, temperature=2.0)(outputs, (), kwargs)
    keep = labels != -100
    mine, wanted = outputs.logits[keep] / 2, teacher(**kwargs).logits[keep] / 2
    torch.testing.assert_close(found, 4 * F.kl_div(mine.log_softmax(1), wanted.softmax(1), reduction="batchmean"))


def test_a_task_loss_of_the_teachers_own_kind_of_output() -> None:
    """A tuple in training, a tensor in eval mode, as Inception hands them out."""

    class Aux(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            return (self.layer(x), self.layer(-x)) if self.training else self.layer(x)

    teacher, student = Aux().train(), Aux().train()
    loss = surgery.Distillation(teacher)(student(X), (X,), targets=Y)
    torch.testing.assert_close(loss, surgery.Distillation(teacher)(student.layer(X), (X,), targets=Y))


def loss_of(teacher: nn.Module, student: nn.Module, **settings: Any) -> Tensor:
    distillation = surgery.Distillation(teacher, **settings)
    with distillation.watching(student):
        return distillation(student(X), (X,), targets=Y)


def test_a_teacher_elsewhere_is_copied_to_the_students_device() -> None:
    teacher = net(seed=1)
    distillation = surgery.Distillation(teacher)
    assert distillation.prepare("cpu").teacher is teacher
    distillation.prepare("meta")  # the one other device that is always there
    assert {p.device.type for p in distillation.teacher.parameters()} == {"meta"}
    assert {p.device.type for p in teacher.parameters()} == {"cpu"}


def refused(teacher: Any, student: nn.Module, said: str, **settings: Any) -> None:
    with pytest.raises(InputError, match=said):
        loss_of(teacher, student, **settings)


def test_refusals() -> None:
    student = net()
    refused(net(classes=5), student, r"output is \[4, 5\], the student's \[4, 3\]")
    refused(student, student, "the teacher is the student itself")
    refused(nn.Sequential(*student), student, "shares with the teacher: 0.weight")
    refused("dense", student, "the teacher is a str")
    refused(net(), student, "temperature is 0", temperature=0)
    refused(net(), student, "weight is 1.5", weight=1.5)
    refused(net(), student, "kind is 'logits'", kind="logits")
    refused(net(), student, "features is the text '0'", features="0")
    refused(net(), student, "feature_weight is -1", feature_weight=-1, features=["0"])
    refused(net(), student, "plan is a str", plan=["plan.json"])
    refused(nn.Sequential(net()), student, r"the teacher \(Sequential\) has no module '3'", features=["3"])
    unlike = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    refused(net(), unlike, r"the student \(Sequential\) has no module '3'", features=["3"])
    with pytest.raises(InputError, match="was not watched"):
        surgery.Distillation(net(), features=["0"])(student(X), (X,), targets=Y)
    with pytest.raises(InputError, match="given no inputs"):
        surgery.Distillation(net())(student(X))


def test_a_misspelt_feature_is_told_the_near_ones() -> None:
    teacher = nn.Sequential()
    teacher.add_module("block1", net())
    with (
        pytest.raises(InputError, match="no module 'blck1'") as refusal,
        surgery.Distillation(teacher, features=["blck1"]).watching(copy.deepcopy(teacher)),
    ):
        pass
    assert "did you mean block1" in str(refusal.value)


def test_a_frozen_feature_is_refused() -> None:
    student = net()
    student[0].requires_grad_(False)
    refused(net(), student, "does not rest on weights that are trained", features=["0"])
