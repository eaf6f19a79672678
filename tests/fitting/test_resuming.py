from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import surgery
from surgery.errors import InputError
from surgery.fitting.settings import written
from tests.fitting.launching import killed, run
from tests.fitting.runs import Partly, accuracy, loader, normed, plain, samples
from tests.fitting.test_feeding import Noisy, Stream


class Stop(Exception):
    """What comes in the middle of an epoch."""


class Stopping(TensorDataset):
    """A data set that is read so many times, and then fails."""

    left = 10**9

    def __getitem__(self, index: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Stop
        return super().__getitem__(index)


def by_hand(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: model.get_parameter(name).abs().sum(1) for name in ("0.weight", "3.weight")}


SETTINGS: dict[str, dict[str, Any]] = {
    "dropout and momentum": {"optimizer": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9), "lr_schedule": "onecycle"},
    "early stopping": {"evaluate": accuracy, "patience": 2, "higher_is_better": False, "epochs": 3},
    "cuts": {"schedule": surgery.Gradual(0.6, updates=3, how=surgery.Structured(importance=by_hand))},
    "cuts in rounds": {
        "schedule": surgery.Iterative(0.6, prunings=2, how=surgery.Structured()),
        "teacher": surgery.Distillation(normed(), features=["0"]),
    },
    "new biases": {"schedule": surgery.Gradual(0.5, updates=2, how=surgery.Structured())},
    "masks": {"schedule": surgery.Gradual(0.6, updates=3)},
    "a ticket": {"schedule": surgery.LotteryTicket(0.6, prunings=1, rewind_to=0.1), "accumulate": 2},
    "groups": {"schedule": surgery.Gradual(0.5, updates=2, how=surgery.Structured(rungs=()))},
}


def model_for(case: str) -> nn.Module:
    if case == "new biases":
        torch.manual_seed(0)
        layers = [nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 3, bias=False)]
        return nn.Sequential(*layers).double()
    return normed() if "cuts" in case else plain(0.5)


def grouped(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": model[5].parameters()}, {"params": model[0].parameters(), "lr": 0.1}])


def fitted(case: str, left: int | None = None, **more: Any) -> surgery.Fitted:
    data = Stopping(*samples())
    data.left = 10**9 if left is None else left
    model, loaded = model_for(case), DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator())
    settings = {"epochs": 2, "lr": 0.01, **SETTINGS[case], **more}
    if case == "groups":
        settings["optimizer"] = grouped(model)
    return surgery.fit(model, loaded, cross_entropy, **settings)


@pytest.mark.parametrize("case", ["dropout and momentum", "early stopping", "cuts in rounds", "new biases", "a ticket"])
def test_what_was_ended_and_goes_on_ends_as_if_nothing_had_been(tmp_path: Path, case: str) -> None:
    ends_alike(tmp_path, case, 70, 1)


def ends_alike(tmp_path: Path, case: str, left: int, every: int | None) -> None:
    whole = fitted(case)
    more = {"checkpoints": tmp_path, "checkpoint_every": every, "resume": True}
    schedule = SETTINGS[case].get("schedule")
    if isinstance(getattr(schedule, "how", None), surgery.Structured):
        cuts = sum(len(schedule.events(turn, 16)) for turn in range(schedule.rounds))
        left += 50 * cuts  # each of them reads all of the data
    with pytest.raises(InputError, match="Stop"):
        fitted(case, left, **more)
    again = fitted(case, **more)
    assert again.resumed_at
    assert again.losses == whole.losses
    assert again.epochs == whole.epochs
    assert [change.as_dict() for change in again.changes] == [change.as_dict() for change in whole.changes]
    assert [change.plan for change in again.changes] == [change.plan for change in whole.changes]
    assert again.best == whole.best
    torch.testing.assert_close(dict(again.model.state_dict()), dict(whole.model.state_dict()), rtol=0, atol=0)
    finished = fitted(case, **more)
    assert finished.resumed_at == len(whole.losses)
    assert finished.epochs == whole.epochs
    torch.testing.assert_close(dict(finished.model.state_dict()), dict(whole.model.state_dict()), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize(("left", "every"), [(40, 2), (95, 3), (60, None)])
def test_so_it_does_wherever_it_was_ended(tmp_path: Path, case: str, left: int, every: int | None) -> None:
    ends_alike(tmp_path, case, left, every)


@pytest.mark.parametrize("kind", ["stream", "noise", "noise of workers", "tied"])
def test_so_does_data_that_draws_random_numbers(tmp_path: Path, kind: str) -> None:
    def go(stop: int = -1, **more: Any) -> surgery.Fitted:
        calls = iter(range(10**6))

        def loss(outputs: Any, targets: Any) -> Any:
            if next(calls) == stop:
                raise Stop
            return cross_entropy(outputs, targets % 3)

        data: Any = DataLoader(Stream(), batch_size=8) if kind == "stream" else loader()
        if kind.startswith("noise"):
            data = DataLoader(Noisy(), batch_size=8, shuffle=True, num_workers=int("workers" in kind))
        torch.manual_seed(3)
        model = Partly().double() if kind == "tied" else plain(0.5)
        return surgery.fit(model, data, loss, epochs=2, **more)

    whole = go()
    more = {"checkpoints": tmp_path, "checkpoint_every": 2, "resume": True}
    with pytest.raises(InputError, match="Stop"):
        go(11, **more)
    again = go(**more)
    assert again.resumed_at == 10
    assert again.losses == whole.losses
    torch.testing.assert_close(dict(again.model.state_dict()), dict(whole.model.state_dict()), rtol=0, atol=0)
    if kind == "tied":
        assert again.model.first.weight is again.model.second.weight


def test_between_two_cuts_of_an_epoch_the_second_reads_what_it_would_have_read(tmp_path: Path) -> None:
    how = surgery.Structured(samples=16)

    def go(stop: int = -1, **more: Any) -> surgery.Fitted:
        calls = iter(range(10**6))

        def loss(outputs: Any, targets: Any) -> Any:
            if next(calls) == stop:
                raise Stop
            return cross_entropy(outputs, targets)

        data = DataLoader(TensorDataset(*samples()), batch_size=8, shuffle=True, generator=torch.Generator())
        schedule = surgery.Gradual(0.5, updates=2, end=0.6, how=how)
        return surgery.fit(normed(), data, loss, schedule=schedule, **more)

    whole = go()
    assert [change.step for change in whole.changes] == [0, 4]
    more: dict[str, Any] = {"checkpoints": tmp_path, "checkpoint_every": 1, "resume": True}
    with pytest.raises(InputError, match="Stop"):
        go(5, **more)  # the first cut asked for two
    again = go(**more)
    assert again.resumed_at == 3
    assert again.losses == whole.losses


def test_settings_are_told_without_addresses() -> None:
    told = [written(surgery.Structured(importance=lambda _: {})) for _ in range(2)]
    assert told[0] == told[1]
    assert "0x" not in told[0]


@pytest.mark.slow
def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    given = ('model="dropout"', "momentum=0.9")
    whole = run(tmp_path / "whole", *given)
    again = killed(tmp_path / "again", tmp_path / "kept", 1, 0, *given)
    assert again.found[0]["resumed_at"] is not None
    assert again.found[0]["losses"] == whole.found[0]["losses"]
    torch.testing.assert_close(again.weights, whole.weights, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "given",
    [
        ('model="dropout"', "epochs=3", "evaluate=true", "patience=2", 'schedule="gradual"'),
        ('model="dropout"', 'schedule="ticket"', "accumulate=2", 'lr_schedule="onecycle"'),
    ],
    ids=["cuts", "ticket"],
)
def test_so_do_killed_processes(tmp_path: Path, given: tuple[str, ...], seed: int, count: int) -> None:
    whole = run(tmp_path / "whole", *given, count=count)
    again = killed(tmp_path / "again", tmp_path / "kept", 3, seed, *given, count=count)
    assert again.found[0]["resumed_at"] is not None
    for mine, its in zip(again.found, whole.found, strict=True):
        assert mine["losses"] == its["losses"]
        assert mine["changes"] == its["changes"]
    torch.testing.assert_close(again.weights, whole.weights, rtol=0, atol=0)


@pytest.mark.slow
def test_so_do_shards(tmp_path: Path) -> None:
    given = ('schedule="gradual"', "sharded=true", "epochs=3")
    whole = run(tmp_path / "whole", *given, count=2)
    again = killed(tmp_path / "again", tmp_path / "kept", 2, 0, *given, count=2)
    assert again.found[0]["resumed_at"] is not None
    assert again.found[0]["losses"] == pytest.approx(whole.found[0]["losses"], rel=0, abs=0)
    torch.testing.assert_close(again.weights, whole.weights, rtol=0, atol=0)


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    whole = fitted("early stopping")
    more: dict[str, Any] = {"checkpoints": tmp_path, "checkpoint_every": 1, "resume": True}
    with pytest.raises(InputError, match="Stop"):
        fitted("early stopping", 30, **more)
    (older,) = tmp_path.iterdir()
    older.rename(tmp_path.parent / "older")
    with pytest.raises(InputError, match="Stop"):
        fitted("early stopping", 70, **more)
    (kept,) = tmp_path.iterdir()
    (tmp_path.parent / "older").rename(older)  # killed before it was taken away
    for name in (f".{kept.name}9.12345678", f"{kept.name[:-1]}9"):  # killed while it was written; and without its end
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.pt").write_bytes((kept / "state.pt").read_bytes()[:100])
    again = fitted("early stopping", **more)
    assert again.resumed_at == int(kept.name[5:])
    assert again.losses == whole.losses
    assert len(list(tmp_path.iterdir())) == 1  # only the last is left


def test_a_checkpoint_that_cannot_be_written_is_told_and_the_one_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = torch.save, []

    def full(value: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) > 3:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(value, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"cannot write the checkpoint .*No space left on device\n  -> make room"):
        fitted("early stopping", checkpoints=tmp_path)
    (kept,) = tmp_path.glob("step-*")
    monkeypatch.undo()
    assert fitted("early stopping", checkpoints=tmp_path, resume=True).resumed_at == int(kept.name[5:])


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    fitted("early stopping", checkpoints=tmp_path)
    with pytest.raises(InputError, match=r"holds a checkpoint already \(step-0000000\d+\)\n  -> pass resume=True"):
        fitted("early stopping", checkpoints=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file\n  -> give a directory"):
        fitted("early stopping", checkpoints=tmp_path / "file")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"lr": 0.02}, r"lr was 0\.01, and is 0\.02"),
        ({"epochs": 4}, "epochs was 3, and is 4"),
        ({"seed": 1, "accumulate": 2}, "accumulate was 1, and is 2; seed was 0, and is 1"),
        ({"optimizer": torch.optim.SGD}, "optimizer was 'AdamW', and is 'SGD'"),
        ({"schedule": surgery.OneShot(0.5)}, r"schedule was None, and is .OneShot\(amount=0\.5"),
        ({"teacher": plain()}, "teacher was None, and is {"),
        ({"precision": "bf16"}, "precision was 'no', and is 'bf16'"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    fitted("early stopping", checkpoints=tmp_path)
    with pytest.raises(InputError, match=f"is of another run: (.*; )?{said}"):
        fitted("early stopping", checkpoints=tmp_path, resume=True, **more)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda kept: (kept / "state.pt").write_bytes(b"no"), "cannot be read: .*\n  -> remove it"),
        (lambda kept: (kept / "process-0.pt").unlink(), "cannot be read: FileNotFoundError"),
        (lambda kept: (kept / "run.json").write_text("{"), "cannot be read: DecodeError"),
        (lambda kept: (kept / "run.json").write_text(json.dumps({"format": "x"})), "is no checkpoint of this version"),
    ],
)
def test_a_spoilt_checkpoint_is_told(tmp_path: Path, spoil: Any, said: str) -> None:
    fitted("early stopping", checkpoints=tmp_path)
    spoil(next(tmp_path.iterdir()))
    with pytest.raises(InputError, match=said):
        fitted("early stopping", checkpoints=tmp_path, resume=True)


class Strange(torch.optim.SGD):
    """An optimizer that holds what no checkpoint can be read with."""

    def state_dict(self) -> Any:
        return super().state_dict() | {"strange": Path("x")}


def test_what_could_not_be_read_again_is_told_after_the_first_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"what was written as a checkpoint cannot be read again: .*\n  -> leave"):
        fitted("early stopping", checkpoints=tmp_path, optimizer=lambda p: Strange(p, 0.1))
