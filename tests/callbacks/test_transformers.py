from __future__ import annotations

import contextlib
import importlib
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import surgery
from surgery.errors import InputError, MissingExtraError
from surgery.schedules import keep_masks
from tests.callbacks.loops import CUTS, SCHEDULES, STEPS

GRADUAL_MASKS, GRADUAL_CUTS = SCHEDULES["gradual masks"], SCHEDULES["gradual cuts"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "surgery.callbacks.transformers", raising=False)
    with pytest.raises(MissingExtraError, match=r"'transformers' is not installed\n.*surgery\[models\]"):
        importlib.import_module("surgery.callbacks.transformers")


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=16,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=16, bos_token_id=0, eos_token_id=0)
    )


def sentences(model: nn.Module) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(0, 50, (32, 9), generator=generator)
    whole = torch.ones(9, dtype=torch.long)
    answers = words if "GPT2" in type(model).__name__ else words.sum(1) % 2
    return [
        {"input_ids": row, "attention_mask": whole, "labels": answer}
        for row, answer in zip(words, answers, strict=True)
    ]


def trainer(model: nn.Module, callback: Any, place: Path, **settings: Any) -> Any:
    """A Trainer of eight steps of two batches each, with a checkpoint after each."""
    from transformers import Trainer, TrainingArguments

    told = {"max_steps": STEPS, "save_steps": 1, "logging_steps": 1, "gradient_accumulation_steps": 2}
    args = TrainingArguments(
        str(place), **{**told, **settings}, per_device_train_batch_size=4, report_to="none", use_cpu=True,
        disable_tqdm=True, learning_rate=1e-2, dataloader_pin_memory=False,
    )  # fmt: skip
    return Trainer(model, args, train_dataset=sentences(model), callbacks=[callback])


@contextlib.contextmanager
def told(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What transformers logs, which it keeps to itself otherwise."""
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    level = library.level
    library.setLevel("INFO")
    try:
        yield
    finally:
        library.setLevel(level)
        library.removeHandler(caplog.handler)


def check_run_and_resume(make: Any, kind: str, place: Path, steps: tuple[int, ...], **settings: Any) -> Any:
    """Train, look, and go on from checkpoints to the very same weights, dropout and all."""
    from surgery.callbacks.transformers import PruningCallback

    schedule = SCHEDULES[kind]
    model, callback = make(), PruningCallback(schedule)
    before = sum(p.numel() for p in model.parameters())
    run = trainer(model, callback, place, **settings)
    run.train()
    assert run.state.global_step == STEPS
    events = [(n, e.step) for n in range(schedule.rounds) for e in schedule.events(n, STEPS // schedule.rounds)]
    assert [(change.round, change.step) for change in callback.changes] == events
    assert bool(keep_masks(model)) != (kind in CUTS)
    if kind in CUTS:
        assert sum(p.numel() for p in model.parameters()) <= before / 2
        assert all(change.max_rel_error < 1e-5 for change in callback.changes if change.plan is not None)
    loss = run.evaluate(sentences(model))["eval_loss"]
    answers = run.predict(sentences(model)).predictions
    for step in steps:
        again = make()
        resumed = PruningCallback(schedule)
        going_on = trainer(again, resumed, place.parent / "again", **settings)
        resumed.resume_(again, place / f"checkpoint-{step}")
        going_on.train(resume_from_checkpoint=str(place / f"checkpoint-{step}"))
        torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    loaded = make()
    PruningCallback(schedule).resume_(loaded, place / f"checkpoint-{STEPS}")
    reloaded = trainer(loaded, PruningCallback(schedule), place.parent / "again", **settings)
    assert reloaded.evaluate(sentences(loaded))["eval_loss"] == pytest.approx(loss, abs=1e-6)
    assert (reloaded.predict(sentences(loaded)).predictions == answers).all()
    return run


def test_masks_in_a_trainer_and_from_its_checkpoints(tmp_path: Path) -> None:
    run = check_run_and_resume(bert, "gradual masks", tmp_path / "out", (3,))
    told = [
        (row["step"], round(row["pruning/sparsity"], 2)) for row in run.state.log_history if "pruning/params" in row
    ]
    assert [step for step, _ in told if step in (0, 3, 6)][:1] == [0]
    assert told[-1][1] == 0.8
    state = json.loads((tmp_path / "out" / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    assert any("pruning/macs" in row for row in state["log_history"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "kind"), [*((bert, kind) for kind in SCHEDULES), (gpt2, "cuts in rounds"), (gpt2, "masked channels")]
)
def test_schedules_in_a_trainer_and_from_its_checkpoints(tmp_path: Path, make: Any, kind: str) -> None:
    check_run_and_resume(make, kind, tmp_path / "out", (5,))


@pytest.mark.slow
def test_half_precision(tmp_path: Path) -> None:
    """Accelerate writes its autocast into the model: it is off while the model is judged and cut, on again after."""
    run = check_run_and_resume(gpt2, "gradual cuts", tmp_path / "out", (4,), bf16=True)
    assert "convert_outputs_to_fp32" in repr(vars(run.model)["forward"])


@pytest.mark.slow
def test_a_config_that_says_other_widths_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from surgery.callbacks.transformers import PruningCallback

    model, callback = bert(), PruningCallback(GRADUAL_CUTS)
    run = trainer(model, callback, tmp_path)
    with told(caplog):
        run.train()
    assert caplog.text.count("model.config still has the widths before the cut") == 1
    assert "pruning: round 1, step 3: cut to" in caplog.text
    model.save_pretrained(tmp_path / "saved")
    shapes = {name: tensor.shape for name, tensor in load_file(tmp_path / "saved" / "model.safetensors").items()}
    assert shapes["bert.encoder.layer.0.intermediate.dense.weight"][0] < model.config.intermediate_size
    assert surgery.shrink(model, (), {"input_ids": torch.ones(2, 9, dtype=torch.long)}).proof.passed  # type: ignore[union-attr]


def test_refusals(tmp_path: Path) -> None:
    from surgery.callbacks.transformers import PruningCallback

    model, callback = bert(), PruningCallback(GRADUAL_MASKS)
    trainer(model, callback, tmp_path / "out", max_steps=4).train()
    middle = tmp_path / "out" / "checkpoint-2"

    again = trainer(bert(), PruningCallback(GRADUAL_MASKS), tmp_path / "again", max_steps=4)
    with pytest.raises(InputError, match=r"was pruned \(bert\..*_mask\), the model is not\n.*callback\.resume_\(model"):
        again.train(resume_from_checkpoint=str(middle))

    fresh, callback = bert(), PruningCallback(GRADUAL_MASKS)
    longer = trainer(fresh, callback, tmp_path / "again", max_steps=6)
    callback.resume_(fresh, middle)
    with pytest.raises(InputError, match=r"was begun for 4 steps, and now has 6\n"):
        longer.train(resume_from_checkpoint=str(middle))

    with pytest.raises(InputError, match=r"was written under Gradual\(amount=0\.8"):
        PruningCallback(surgery.OneShot(0.6)).resume_(bert(), middle)
    with pytest.raises(InputError, match=r"holds no surgery_pruning\.pt\n"):
        callback.resume_(bert(), tmp_path)

    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1}
    from transformers import Trainer

    whole = trainer(
        bert(), PruningCallback(GRADUAL_MASKS), tmp_path / "best", max_steps=2, load_best_model_at_end=False
    )
    for name, value in best.items():
        setattr(whole.args, name, value)
    with pytest.raises(InputError, match=r"load_best_model_at_end may load weights from before"):
        whole.train()
    assert isinstance(whole, Trainer)


def test_a_run_without_its_state_is_not_gone_on_with(tmp_path: Path) -> None:
    """Before anything is pruned the weights fit, but what follows would come at the wrong steps."""
    from surgery.callbacks.transformers import PruningCallback

    late = surgery.Gradual(0.5, begin=0.7, end=0.8)
    trainer(bert(), PruningCallback(late), tmp_path / "out", max_steps=4).train()
    again = trainer(bert(), PruningCallback(late), tmp_path / "again", max_steps=4)
    with pytest.raises(InputError, match=r"goes on from step 1, and the callback does not know\S* what.*\n.*resume_"):
        again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))


def test_one_change_at_the_start_goes_with_the_best_model(tmp_path: Path) -> None:
    from surgery.callbacks.transformers import PruningCallback

    model = bert()
    run = trainer(model, PruningCallback(SCHEDULES["masks at once"]), tmp_path, max_steps=2)
    run.args.load_best_model_at_end = True
    run.train()
    assert surgery.sparsity(model).share > 0.3
