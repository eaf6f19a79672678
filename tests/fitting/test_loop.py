from __future__ import annotations

import copy
import json
import math
from typing import Any

import accelerate
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import surgery
from surgery.errors import CheckError, InputError
from tests.fitting.runs import Partly, accuracy, loader, normed, plain, samples


def rows(size: int = 8) -> list[tuple[Tensor, Tensor]]:
    x, y = samples()
    return list(zip(x.split(size), y.split(size), strict=True))


def same(a: nn.Module, b: nn.Module, **close: float) -> None:
    torch.testing.assert_close(dict(a.state_dict()), dict(b.state_dict()), **(close or {"rtol": 0, "atol": 0}))


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def test_it_is_the_loop_that_one_would_write() -> None:
    mine, its = plain(), plain()
    optimizer = sgd(mine.parameters())
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 14)
    losses = []
    for _ in range(2):
        for x, y in rows():
            optimizer.zero_grad()
            loss = cross_entropy(mine(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(mine.parameters(), 0.1)
            optimizer.step()
            rates.step()
            losses.append(float(loss.detach()))
    fitted = surgery.fit(its, rows(), cross_entropy, epochs=2, optimizer=sgd, clip_norm=0.1)
    same(mine, its)
    assert fitted.model is its
    assert fitted.losses == pytest.approx(losses, rel=1e-14)
    assert [epoch.step for epoch in fitted.epochs] == [7, 14]
    sizes = [len(y) for _, y in rows()]
    assert fitted.epochs[1].loss == pytest.approx(sum(a * b for a, b in zip(losses[7:], sizes, strict=True)) / 50)


def test_batches_that_make_a_step_together_are_one_large_batch() -> None:
    large, small = plain(), plain()
    x, y = samples()
    whole, parts = ([*zip(x.split(sizes), y.split(sizes), strict=True)] for sizes in ([20, 24, 6], [5, 15, 20, 4, 6]))
    one = surgery.fit(large, whole, cross_entropy, epochs=2, lr=0.01)
    many = surgery.fit(small, parts, cross_entropy, epochs=2, lr=0.01, accumulate=2)
    assert len(one.losses) == len(many.losses) == 6
    assert many.losses == pytest.approx(one.losses, rel=1e-12)
    same(large, small, rtol=1e-9, atol=1e-12)


def test_the_order_of_the_data_follows_from_the_seed() -> None:
    found = []
    for seed in (0, 0, 1):
        torch.rand(seed + len(found))  # wherever the generators are
        found.append(surgery.fit(plain(0.5), loader(), cross_entropy, epochs=2, seed=seed).losses)
    assert found[0] == found[1] != found[2]
    assert found[0][:7] != found[0][7:]


def test_afterwards_the_model_is_as_it_was_but_for_its_weights() -> None:
    model, called = normed(), []
    model[1].eval()  # a frozen BatchNorm
    mean = model[1].running_mean.clone()
    model[0].register_forward_hook(lambda *_: called.append("forward"))
    model[0].weight.register_hook(lambda _: called.append("gradient"))
    model[5].requires_grad_(False)
    kept, state = model[5].weight.clone(), torch.get_rng_state()
    names = set(vars(model))
    surgery.fit(model, rows(), cross_entropy, precision="bf16")
    assert model.training
    assert not model[1].training
    assert torch.equal(model[1].running_mean, mean)
    assert torch.equal(model[5].weight, kept)
    assert not model[5].weight.requires_grad
    assert set(called) == {"forward", "gradient"}
    assert set(vars(model)) == names
    assert type(model) is nn.Sequential
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    surgery.fit(model.eval(), rows(), cross_entropy)
    assert not model.training
    assert not torch.equal(model[3].weight, normed()[3].weight)


def test_precisions_follow_each_other_in_one_process() -> None:
    x, y = samples()
    data = [(x.float(), y)]
    kinds = [surgery.fit(plain().float(), data, cross_entropy, precision=p).precision for p in ("bf16", None, "bf16")]
    assert kinds == ["bf16", "float32", "bf16"]
    assert surgery.fit(plain(), rows(), cross_entropy).precision == "float64"


def test_bf16_computes_in_bf16_and_is_judged_in_full() -> None:
    x, y = samples()
    model, seen = plain().float(), []
    model[0].register_forward_hook(lambda _module, _args, output: seen.append(output.dtype))
    surgery.fit(model, [(x.float(), y)], cross_entropy, precision="bf16", evaluate=lambda m: float(m(x.float()).sum()))
    assert seen == [torch.bfloat16, torch.float32]


def test_an_accelerator_of_ones_own_is_used_and_left_alone() -> None:
    AcceleratorState._reset_state()
    own = accelerate.Accelerator(gradient_accumulation_steps=2)
    other = own.prepare(nn.Linear(2, 2))
    fitted = surgery.fit(plain(), rows(), cross_entropy, accelerator=own)
    assert len(fitted.losses) == 4
    assert own._models == [other]
    assert own._optimizers == []
    expected = surgery.fit(plain(), rows(), cross_entropy, accumulate=2)
    assert fitted.losses == expected.losses
    with pytest.raises(InputError, match="mixed_precision is 'no'"):
        surgery.fit(plain(), rows(), cross_entropy, accelerator=own, precision="bf16")
    with pytest.raises(InputError, match="Accelerate refused precision='bf16'"):
        surgery.fit(plain(), rows(), cross_entropy, precision="bf16")
    AcceleratorState._reset_state()


def test_an_optimizer_of_ones_own_goes_on_with_the_narrow_net() -> None:
    model = plain()
    optimizer = torch.optim.AdamW([{"params": model[0].parameters(), "lr": 0.1}, {"params": model[3].parameters()}])
    last = model[5].weight.detach().clone()
    how = surgery.Structured(rungs=())
    surgery.fit(model, rows(), cross_entropy, optimizer=optimizer, schedule=surgery.Gradual(0.5, how=how, updates=2))
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in [*model[0].parameters(), *model[3].parameters()]}
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1e-3]
    assert optimizer.state[model[0].weight]["exp_avg"].shape == model[0].weight.shape
    assert model[0].out_features < 16
    assert model[5].weight.shape == (3, model[3].out_features)
    assert all(any(torch.equal(column, one) for one in last.T) for column in model[5].weight.T)


@pytest.mark.parametrize("patience", [None, 2])
def test_with_patience_the_best_weights_come_back(patience: int | None) -> None:
    said, kept = iter([1.0, 3.0, 2.0, 3.0, 0.0, 0.0]), []

    def evaluate(model: nn.Module) -> float:
        assert not model.training
        kept.append(copy.deepcopy(model))
        return next(said)

    model = plain()
    fitted = surgery.fit(model, rows(), cross_entropy, epochs=5, evaluate=evaluate, patience=patience)
    assert fitted.best == fitted.epochs[1]
    assert fitted.stopped_early == (patience is not None)
    assert len(fitted.epochs) == (5 if patience is None else 4)
    same(model, kept[4 if patience is None else 1])
    assert "(best)" in str(fitted)


def test_less_may_be_better() -> None:
    said = iter([3.0, 1.0, 2.0])
    fitted = surgery.fit(
        plain(), rows(), cross_entropy, epochs=3, evaluate=lambda _: next(said), higher_is_better=False, patience=1
    )
    assert fitted.best is not None
    assert fitted.best.value == 1.0
    assert fitted.stopped_early is False  # it was the last epoch


def test_patience_waits_for_what_the_schedule_has_left_to_do() -> None:
    said = iter([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    schedule = surgery.Gradual(0.5, begin=0.0, end=0.6, updates=2)
    fitted = surgery.fit(
        plain(), rows(), cross_entropy, epochs=6, evaluate=lambda _: next(said), patience=1, schedule=schedule
    )
    assert [change.step for change in fitted.changes] == [0, 25]
    assert len(fitted.epochs) == 5  # the best since the last change is that of epoch 4
    assert fitted.best == fitted.epochs[3]


@pytest.mark.parametrize("kind", ["constant", "cosine", "onecycle"])
@pytest.mark.parametrize("size", [8, 50])
def test_learning_rates(kind: Any, size: int) -> None:
    model, seen = plain(), []
    optimizer = sgd(model.parameters())
    optimizer.register_step_pre_hook(lambda one, *_: seen.append(one.param_groups[0]["lr"]))
    surgery.fit(model, rows(size), cross_entropy, epochs=2, optimizer=optimizer, lr_schedule=kind)
    assert len(seen) == 2 * -(-50 // size)
    assert max(seen) <= 0.05
    assert {"constant": seen[0] == seen[-1] == 0.05, "cosine": seen[0] == 0.05 > seen[-1]}.get(kind, seen[0] < 0.05)
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    with pytest.raises(CheckError, match=r"the loss is nan at step 2 \(epoch 1\)\n  -> lower lr="):
        surgery.fit(plain(), rows(), cross_entropy, optimizer=lambda p: torch.optim.SGD(p, 1e300))


def test_what_fails_leaves_nothing_around_the_model() -> None:
    model, calls = plain().eval(), iter([False, True])

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if next(calls):
            raise OSError
        return cross_entropy(outputs, targets)

    names = set(vars(model))
    with pytest.raises(InputError, match=r"the loss fails on item 1 of the data: OSError"):
        surgery.fit(model, rows(), loss, accumulate=2, precision="bf16")
    assert set(vars(model)) == names
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training


def cut_while_its_output_is_held() -> None:
    model = plain()
    held = model(samples()[0])
    surgery.fit(model, rows(), cross_entropy, schedule=surgery.OneShot(0.5, how=surgery.Structured()))
    del held


def launched_apart() -> None:
    AcceleratorState._reset_state()
    own = accelerate.Accelerator()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        surgery.fit(plain(), rows(), cross_entropy, accelerator=own)


def fitted(model: nn.Module | None = None, **settings: Any) -> surgery.Fitted:
    return surgery.fit(plain() if model is None else model, rows(), cross_entropy, **settings)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fitted(plain().requires_grad_(False)), "no parameter of the model requires a gradient\n  -> call"),
        (lambda: fitted(plain().to("meta")), "the model has no weights: it is on the meta device"),
        (lambda: fitted(nn.DataParallel(plain())), "the model is wrapped in DataParallel\n  -> pass model.module"),
        (lambda: fitted(3), "the model is a int\n  -> pass an nn.Module"),  # type: ignore[arg-type]
        (lambda: fitted(optimizer=3), "optimizer is a int\n  -> pass an optimizer, or a function"),
        (lambda: fitted(optimizer=lambda p: 3), "the optimizer is a int"),
        (lambda: fitted(optimizer=torch.optim.SGD(plain().parameters(), 0.1)), "holds none of the model's trainable"),
        (lambda: fitted(optimizer=lambda p: 1 / 0), "that makes the optimizer raised ZeroDivisionError"),
        (lambda: fitted(optimizer=torch.optim.LBFGS), "LBFGS needs a closure for every step"),
        (lambda: fitted(lr_schedule=lambda o, n: 1 / 0), "lr_schedule raised ZeroDivisionError"),
        (
            lambda: fitted(lr_schedule=lambda o, n: torch.optim.lr_scheduler.ReduceLROnPlateau(o)),
            "lr_schedule returned a ReduceLROnPlateau\n  -> return a torch.optim.lr_scheduler that goes by the number",
        ),
        (lambda: fitted(schedule=0.5), "the schedule is a float\n  -> give surgery.OneShot"),
        (lambda: fitted(accelerator=3), "accelerator is a int\n  -> pass an accelerate.Accelerator"),
        (lambda: fitted(teacher=3), "the teacher is a int"),
        (lambda: fitted(evaluate=lambda m: 1 / 0), "evaluate raised ZeroDivisionError"),
        (lambda: fitted(evaluate=lambda m: math.nan), "evaluate returned NaN"),
        (lambda: fitted(patience=1), "patience has nothing to go by\n  -> pass evaluate="),
        (lambda: fitted(resume=True), "resume was given without a directory\n  -> pass checkpoints="),
        (lambda: fitted(checkpoint_every=2), "checkpoint_every was given without a directory"),
        (lambda: fitted(epochs=0), "epochs is 0\n  -> give a whole number from 1 on"),
        (lambda: fitted(accumulate=1.5), "accumulate is 1.5\n  -> give a whole number from 1 on"),
        (lambda: fitted(seed=-1), "seed is -1\n  -> give a whole number from 0 on"),
        (lambda: fitted(lr=math.nan), "lr is nan\n  -> give a number from 0 on"),
        (lambda: fitted(clip_norm=0), "clip_norm is 0, so that nothing would move"),
        (lambda: fitted(lr_schedule="linear"), "lr_schedule is 'linear'\n  -> give one of constant, cosine, onecycle"),
        (lambda: fitted(precision="int8"), "precision is 'int8'\n  -> give 'float32', 'bf16' or 'fp16'"),
        (lambda: surgery.fit(plain(), rows()), "there is no loss: none was given"),
        (lambda: surgery.fit(plain(), rows(), lambda o, t: o.detach().sum()), "the loss does not rest on the weights"),
        (cut_while_its_output_is_held, "computed with the model before it was cut is still held"),
        (launched_apart, "2 processes were launched, and the Accelerator knows of one\n  -> on CPUs make it before"),
    ],
)
def test_what_is_refused(call: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()
    AcceleratorState._reset_state()


def test_what_is_not_used_and_what_is_tied_is_trained_like_the_rest() -> None:
    model = Partly().double()
    before = copy.deepcopy(model)
    surgery.fit(model, rows(), cross_entropy, lr=0.01)
    assert model.second.weight is model.first.weight
    torch.testing.assert_close(model.idle.weight, before.idle.weight, rtol=0, atol=0)
    torch.testing.assert_close(model.frozen.weight, before.frozen.weight, rtol=0, atol=0)
    assert not torch.equal(model.first.weight, before.first.weight)


def test_a_cut_during_training_leaves_the_loss_where_it_was() -> None:
    model = normed()
    schedule = surgery.Iterative(0.6, prunings=2, how=surgery.Structured())
    fitted = surgery.fit(model, loader(), cross_entropy, epochs=2, lr=0.01, schedule=schedule, evaluate=accuracy)
    assert len(fitted.losses) == 28
    assert [change.round for change in fitted.changes] == [0, 1]
    for change in fitted.changes:
        assert change.loss_masked is not None
        assert change.loss_slim == pytest.approx(change.loss_masked, abs=1e-5)
        assert change.plan is not None
    assert model[0].out_features < 16
    assert "cut to" in str(fitted)
    assert json.loads(fitted.to_json())["changes"][1]["round"] == 1


@pytest.mark.parametrize("optimizer", [sgd, torch.optim.AdamW], ids=["sgd", "adamw"])
def test_in_training_mode_dead_channels_are_cut_without_a_trace(optimizer: Any) -> None:
    """The channels with gain and shift 0 and zero rows go; what is left trains as in the net that keeps them."""
    whole, cut = normed(), normed()
    for model in (whole, cut):
        with torch.no_grad():
            for tensor in (model[0].weight, model[0].bias, model[1].weight, model[1].bias):
                tensor[::2] = 0
            model[3].weight[:, ::2] = 0
    result = surgery.shrink(copy.deepcopy(cut), samples()[0])
    amount = 1 - (result.params_after + 0.5) / result.params_before
    how = surgery.Structured(importance=zeros_first, global_=True, rungs=())
    asis = surgery.fit(whole, rows(10), cross_entropy, optimizer=optimizer)
    slim = surgery.fit(cut, rows(10), cross_entropy, optimizer=optimizer, schedule=surgery.OneShot(amount, how=how))
    assert cut[0].out_features == 8
    assert slim.losses == pytest.approx(asis.losses, abs=1e-9)


def zeros_first(model: nn.Module) -> dict[str, Tensor]:
    return {"0.weight": model[0].weight.abs().sum(1), "3.weight": torch.full((16,), 1e9)}


zeros_first.comparable = True  # type: ignore[attr-defined]


def test_masks_hold_while_the_net_trains_and_tickets_go_back() -> None:
    model = plain()
    first = copy.deepcopy(model.state_dict())
    fitted = surgery.fit(
        model, loader(), cross_entropy, epochs=2, lr=0.01, schedule=surgery.LotteryTicket(0.6, prunings=1)
    )
    keep = surgery.keep_masks(model)
    assert [change.rewound for change in fitted.changes] == [True]
    for path, mask in keep.items():
        values = model.get_submodule(path.rpartition(".")[0]).weight
        assert values[~mask].abs().max() == 0
    again = plain()
    surgery.wear_(again, keep)
    surgery.fit(again, loader(), cross_entropy, epochs=2, lr=0.01, seed=0)
    assert set(first) == {name.removesuffix("_orig") for name in again.state_dict() if not name.endswith("_mask")}


def test_a_teacher_teaches_and_is_followed_through_cuts() -> None:
    teacher = plain()
    surgery.fit(teacher, loader(), cross_entropy, epochs=10, lr=0.01)
    kept = copy.deepcopy(teacher.state_dict())
    student = copy.deepcopy(teacher)
    distillation = surgery.Distillation(teacher, weight=1.0, features=["0"])
    schedule = surgery.OneShot(0.5, how=surgery.Structured(importance="l1"))
    fitted = surgery.fit(student, loader(), None, epochs=5, lr=0.01, teacher=distillation, schedule=schedule)
    assert fitted.epochs[-1].loss < fitted.epochs[0].loss
    assert student[0].out_features < 16
    assert distillation.plans == ()  # the user's own object says what it said
    torch.testing.assert_close(dict(teacher.state_dict()), dict(kept), rtol=0, atol=0)
    alike = surgery.fit(plain(), rows(), cross_entropy, teacher=teacher).losses
    assert alike == surgery.fit(plain(), rows(), cross_entropy, teacher=surgery.Distillation(teacher)).losses


def test_the_table() -> None:
    said = iter([0.5, 0.75])
    fitted = surgery.fit(
        plain(), rows(25), cross_entropy, epochs=2, evaluate=lambda _: next(said), lr_schedule="constant"
    )
    lines = str(fitted).splitlines()
    assert lines[0] == "trained Sequential: 4 steps in float64, 1 process on cpu"
    assert lines[1].split() == ["epoch", "steps", "loss", "lr", "evaluate"]
    assert lines[3].split() == ["2", "4", f"{fitted.epochs[1].loss:.4g}", "0.001", "0.75", "(best)"]
    found = json.loads(fitted.to_json())
    assert found["best"]["epoch"] == 1
    assert len(found["losses"]) == 4
    assert found["model"] == "Sequential"


def test_a_bar_per_epoch_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgery.progress.QUIET_SECONDS", -1.0)
    surgery.fit(plain(), rows(), cross_entropy, epochs=2)
    told = capsys.readouterr()
    assert "epoch 1 of 2: 7, " in told.err
    assert "epoch 2 of 2 (loss " in told.err
    assert told.out == ""


def test_without_accelerate_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    with pytest.raises(surgery.errors.MissingExtraError, match=r"pip install 'surgery\[train\]'"):
        surgery.fit(plain(), rows(), cross_entropy)
