"""What a slim model lost comes back, and the record says how."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import surgery
from surgery.checkpoints import describe, reopen
from surgery.errors import InputError, MissingExtraError

pytest.importorskip("accelerate")

GENERATOR = torch.Generator().manual_seed(1)
X = torch.randn(160, 8, generator=GENERATOR)
Y = (X[:, :3] + 0.5 * X[:, 3:6] ** 2).argmax(1)
EXAMPLE = X[:4]


def fresh() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3))


def accuracy(model: nn.Module) -> float:
    return float((model(X).argmax(1) == Y).float().mean())


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    torch.manual_seed(0)
    model = fresh()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def slim(dense: nn.Module) -> surgery.Result:
    return surgery.prune(dense, EXAMPLE, keep_ratio=0.4)


def data() -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), batch_size=32, shuffle=True)


def test_a_teacher_brings_back_what_the_cut_cost(dense: nn.Module, slim: surgery.Result) -> None:
    before = copy.deepcopy(slim.model.state_dict())
    found = surgery.recover(slim, data(), F.cross_entropy, teacher=dense, evaluate=accuracy, epochs=6, lr=1e-2, seed=0)
    record = found.record
    values = {"teacher": accuracy(dense), "before": accuracy(slim.model), "after": accuracy(found.model)}
    assert record["evaluate"] == values
    assert record["evaluate"]["after"] > record["evaluate"]["before"] + 0.1
    assert (record["epochs"], record["steps"], record["loss"]) == (6, 30, "cross_entropy")
    assert record["teacher"]["teacher"] == "Sequential"
    assert record["settings"] == {"epochs": 6, "lr": 1e-2, "seed": 0}
    assert record["loss_last_epoch"] < record["loss_first_epoch"]
    assert (found.plan, found.proof, found.params_after) == (slim.plan, slim.proof, slim.params_after)
    assert_close(slim.model.state_dict(), before, rtol=0, atol=0)
    text = str(found)
    assert "trained after the cut (the proof is of the cut, before training)" in text
    assert "teacher: Sequential, temperature 4, weight 0.9" in text
    assert f"{accuracy(found.model):.4g} after (teacher {accuracy(dense):.4g})" in text


def test_without_a_teacher_and_without_labels(dense: nn.Module, slim: surgery.Result) -> None:
    plain = surgery.recover(slim, data(), F.cross_entropy, epochs=2, lr=1e-2)
    assert plain.record["teacher"] is None
    alone = surgery.recover(slim, DataLoader(X, batch_size=32), teacher=dense, epochs=2, lr=1e-2)
    assert alone.record["loss"] is None
    for found in (plain, alone):
        assert accuracy(found.model) > accuracy(slim.model)
        assert found.record["evaluate"] is None


def test_a_directory_and_back(dense: nn.Module, slim: surgery.Result, tmp_path: Path) -> None:
    surgery.save(slim, tmp_path / "slim", source="zoo:fresh")
    from_directory = surgery.recover(tmp_path / "slim", data(), F.cross_entropy, model=fresh, teacher=dense, lr=1e-2)
    surgery.save(from_directory, tmp_path / "out")
    loaded = surgery.load(tmp_path / "out", fresh)
    assert_close(loaded.state_dict(), from_directory.model.state_dict(), rtol=0, atol=0)
    found = surgery.recover(slim, data(), F.cross_entropy, teacher=dense, lr=1e-2)
    assert_close(loaded.state_dict(), found.model.state_dict(), rtol=0, atol=0)
    surgery.save(found, tmp_path / "other", source="zoo:fresh")
    manifest = describe(tmp_path / "out").manifest
    assert manifest.training[0] == describe(tmp_path / "other").manifest.training[0]
    assert manifest.training[0]["proof_is_of"] == "the cut, before training"
    assert manifest.proof is not None
    assert manifest.proof["passed"]
    opened = reopen(tmp_path / "out", fresh)
    again = surgery.recover(opened, data(), F.cross_entropy)
    assert len(again.training) == 2
    assert_close(opened.model.state_dict(), loaded.state_dict(), rtol=0, atol=0)


def test_features_of_several_rounds(dense: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plans of all rounds for the first model as a teacher, of the last for the one in between."""
    monkeypatch.chdir(tmp_path)
    model = dense
    for name, source in (("one", None), ("two", "one")):
        result = surgery.prune(model, EXAMPLE, keep_ratio=0.6)
        surgery.save(result, name, source=source)
        model = result.model
    between = reopen("one", fresh()).model
    names = ["1", "3"]
    for teacher in (dense, between):
        guide = surgery.Distillation(teacher, features=names)
        found = surgery.recover("two", data(), F.cross_entropy, model=between, teacher=guide, lr=1e-3)
        assert found.record["teacher"]["features"] == names
        assert not guide.plans
    wide = nn.Sequential(nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 3))
    guide = surgery.Distillation(wide, features=names)
    with pytest.raises(InputError, match="the plan was made for"):
        surgery.recover("two", data(), model=between, teacher=guide)


def test_worse_is_said(dense: nn.Module, slim: surgery.Result) -> None:
    found = surgery.recover(slim, data(), lambda out, y: -F.cross_entropy(out, y), evaluate=accuracy, lr=0.1)
    assert "evaluate got worse by training" in found.notes[-1]
    found = surgery.recover(
        slim, data(), F.cross_entropy, evaluate=lambda m: 1 - accuracy(m), higher_is_better=False, lr=1e-2
    )
    assert not any("worse" in note for note in found.notes)


class Insists(nn.Module):
    """Code that insists on its sizes, so that its captured graph is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(8, 12), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.first(x).relu().split([6, 6], 1)
        if left.shape[1] != 6:
            raise ValueError("six of each")
        return self.out(left + right.tanh())


@pytest.mark.slow
def test_a_captured_graph_is_trained_as_any_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Insists().eval()
    with torch.no_grad():
        model.first.weight[[1, 7]], model.first.bias[[1, 7]] = 0, 0
        model.out.weight[:, 1] = 0
    slim = surgery.shrink(model, EXAMPLE, keep_class=False)
    assert slim.kind == "graph"
    found = surgery.recover(slim, data(), F.cross_entropy, teacher=model, epochs=3, lr=1e-2)
    assert found.record["loss_last_epoch"] < found.record["loss_first_epoch"]
    surgery.save(found, tmp_path / "out")
    again = surgery.recover(tmp_path / "out", data(), F.cross_entropy, model=Insists, lr=1e-2)
    surgery.save(again, tmp_path / "twice")
    assert_close(surgery.load(tmp_path / "twice", Insists).state_dict(), again.model.state_dict(), rtol=0, atol=0)


class WithLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = fresh()

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.net(x)
        return {"logits": logits} | ({} if labels is None else {"loss": F.cross_entropy(logits, labels)})


def test_a_model_with_its_own_loss() -> None:
    torch.manual_seed(0)
    model = WithLoss().eval()
    slim = surgery.prune(model, EXAMPLE, keep_ratio=0.5)
    batches = [{"x": X[i : i + 32], "labels": Y[i : i + 32]} for i in range(0, 160, 32)]
    found = surgery.recover(slim, batches, epochs=4)
    assert found.record["loss_last_epoch"] < found.record["loss_first_epoch"]


def test_refusals(dense: nn.Module, slim: surgery.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="given a schedule"):
        surgery.recover(slim, data(), F.cross_entropy, schedule=object())
    with pytest.raises(InputError, match="model was given beside a result"):
        surgery.recover(slim, data(), F.cross_entropy, model=fresh)
    with pytest.raises(InputError, match="a Sequential was given"):
        surgery.recover(dense, data(), F.cross_entropy)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no directory"):
        surgery.recover(tmp_path / "none", data(), F.cross_entropy)
    with pytest.raises(InputError, match="no loss"):
        surgery.recover(slim, data())
    monkeypatch.setattr("surgery.recovering.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="surgery\\[train\\]"):
        surgery.recover(slim, data(), F.cross_entropy)
