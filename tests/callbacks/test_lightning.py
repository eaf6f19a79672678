from __future__ import annotations

import csv
import importlib
import importlib.util
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import surgery
from surgery.errors import InputError, MissingExtraError, PlanError
from surgery.schedules import keep_masks
from tests.callbacks.loops import CUTS, SCHEDULES, classifier, convolutions, images, quiet, trainer

needs_lightning = pytest.mark.skipif(not importlib.util.find_spec("lightning"), reason="the extra lightning")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "surgery.callbacks.lightning", raising=False)
    with pytest.raises(MissingExtraError, match=r"'lightning' is not installed\n.*surgery\[lightning\]"):
        importlib.import_module("surgery.callbacks.lightning")


@pytest.fixture
def pl() -> Any:
    return importlib.import_module("lightning.pytorch")


def fitted(
    pl: Any,
    schedule: Any,
    place: Path | None = None,
    *,
    module: str | None = "net",
    ckpt: Path | None = None,
    **more: Any,
) -> tuple[Any, Any, Any]:
    from surgery.callbacks.lightning import PruningCallback

    net, callback = classifier(pl), PruningCallback(schedule, module=module)
    run = trainer(pl, [callback], place, **more)
    with quiet():
        run.fit(net, images(), ckpt_path=ckpt)
    return net, callback, run


@needs_lightning
@pytest.mark.slow
@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("module", ["net", None])
def test_schedules_in_a_trainer_and_from_its_checkpoints(
    pl: Any, tmp_path: Path, kind: str, module: str | None
) -> None:
    schedule = SCHEDULES[kind]
    net, callback, run = fitted(pl, schedule, tmp_path, module=module)
    assert run.global_step == 8
    events = sum(len(schedule.events(n, 8 // schedule.rounds)) for n in range(schedule.rounds))
    assert len(callback.changes) == events
    width = net.net[0].out_channels
    assert (width < 16) == (kind in CUTS)
    assert bool(keep_masks(net)) != (kind in CUTS)
    if kind in CUTS:
        assert all(change.max_rel_error < 1e-5 for change in callback.changes if change.plan is not None)
        assert sum(p.numel() for p in net.parameters()) <= 0.5 * 2_853
    rates = run.lr_scheduler_configs[0].scheduler
    assert rates.last_epoch == 8  # the learning rate went on
    assert rates.get_last_lr()[0] == pytest.approx(0, abs=1e-9)
    with quiet():
        predicted = torch.cat(run.predict(net, images()))
        tested = run.test(net, images(), verbose=False)[0]["loss"]
    assert surgery.shrink(net, torch.randn(2, 3, 9, 9)).proof.passed  # type: ignore[union-attr]

    for step in (2, 4, 6):
        again, _, _ = fitted(pl, schedule, module=module, ckpt=tmp_path / f"step={step}.ckpt")
        assert again.losses == net.losses[step:]
        torch.testing.assert_close(again.state_dict(), net.state_dict(), rtol=0, atol=0)

    from surgery.callbacks.lightning import PruningCallback

    fresh, last = classifier(pl), tmp_path / "step=8.ckpt"
    with quiet():
        check = trainer(pl, [PruningCallback(schedule, module=module)])
        assert check.test(fresh, images(), ckpt_path=last, verbose=False)[0]["loss"] == tested
        assert torch.equal(torch.cat(check.predict(fresh, images())), predicted)
    loaded = PruningCallback(schedule, module=module).resume_(classifier(pl), last)
    torch.testing.assert_close(loaded.state_dict(), net.state_dict(), rtol=0, atol=0)


@needs_lightning
@pytest.mark.slow
def test_what_is_logged(pl: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    _, callback, run = fitted(pl, SCHEDULES["gradual cuts"], tmp_path)
    with Path(run.logger.log_dir, "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    told = [(int(row["step"]), float(row["pruning/params"])) for row in rows if row.get("pruning/params")]
    assert told == [(change.step, change.params) for change in callback.changes]
    assert [float(row["pruning/macs"]) for row in rows if row.get("pruning/macs")] == [c.macs for c in callback.changes]
    assert "pruning: round 1, step 0: cut to" in caplog.text


@needs_lightning
@pytest.mark.slow
def test_steps_are_those_of_the_optimizer(pl: Any) -> None:
    """Eight epochs of two batches, two of which are one step; then a limit by max_steps."""
    net, callback, run = fitted(pl, SCHEDULES["gradual cuts"], accumulate_grad_batches=2, max_epochs=8)
    assert run.global_step == 8
    whole, plain, _ = fitted(pl, SCHEDULES["gradual cuts"])
    assert [change.step for change in callback.changes] == [change.step for change in plain.changes] == [0, 3, 6]
    assert len(net.losses) == 2 * len(whole.losses) == 16
    _, callback, run = fitted(pl, SCHEDULES["cuts in rounds"], max_steps=5, max_epochs=-1)
    assert run.global_step == 5
    assert [(change.round, change.step) for change in callback.changes] == [(0, 0), (1, 0)]


@needs_lightning
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions(pl: Any, precision: str) -> None:
    net, callback, _ = fitted(pl, SCHEDULES["gradual cuts"], precision=precision)
    assert net.net[0].out_channels < 16
    assert all(change.max_rel_error is not None for change in callback.changes)


@needs_lightning
@pytest.mark.slow
def test_the_older_package() -> None:
    """A callback made for one of the two packages runs in the Trainer of the other."""
    older = pytest.importorskip("pytorch_lightning")
    net, callback, _ = fitted(older, SCHEDULES["gradual cuts"])
    assert net.net[0].out_channels < 16
    assert len(callback.changes) == 3


@needs_lightning
@pytest.mark.slow
def test_refusals(pl: Any, tmp_path: Path) -> None:
    from surgery.callbacks.lightning import PruningCallback

    cuts = SCHEDULES["gradual cuts"]
    with pytest.raises(InputError, match=r"Classifier has no module 'nets'\n.*such as: net"):
        fitted(pl, cuts, module="nets")
    with pytest.raises(InputError, match=r"does not know how many steps it will take\n.*max_steps"):
        fitted(pl, cuts, max_epochs=-1, max_time={"seconds": 1})
    with pytest.raises(InputError, match=r"has 1 steps left, the schedule 2 rounds"):
        fitted(pl, SCHEDULES["cuts in rounds"], max_steps=1)
    with pytest.raises(InputError, match="the schedule is a float"):
        PruningCallback(0.5)  # type: ignore[arg-type]
    average = pl.callbacks.StochasticWeightAveraging(1e-3)
    with quiet(), pytest.raises(InputError, match="StochasticWeightAveraging holds an average"):
        trainer(pl, [PruningCallback(cuts, module="net"), average]).fit(classifier(pl), images())

    net, _, run = fitted(pl, cuts, tmp_path)
    with pytest.raises(InputError, match=r"was begun for 8 steps, and now has 12\n.*max_epochs"):
        fitted(pl, cuts, ckpt=tmp_path / "step=4.ckpt", max_epochs=6)
    with pytest.raises(InputError, match=r"was written under Gradual\(amount=0.5"):
        fitted(pl, SCHEDULES["gradual masks"], ckpt=tmp_path / "step=4.ckpt")
    with quiet(), pytest.raises(InputError, match=r"had other masks or shapes.*\n.*fresh module"):
        run.test(net, images(), ckpt_path=tmp_path / "step=2.ckpt", verbose=False)
    assert "on_load_checkpoint" not in vars(net)
    other = classifier(pl)
    other.net[3], other.net[7] = nn.Conv2d(16, 8, 3), nn.Linear(8, 5)
    with pytest.raises(PlanError):
        PruningCallback(cuts, module="net").resume_(other, tmp_path / "step=4.ckpt")
    torch.save({"state_dict": net.state_dict()}, tmp_path / "bare.ckpt")
    with pytest.raises(InputError, match="holds no state of a PruningCallback"):
        PruningCallback(cuts, module="net").resume_(classifier(pl), tmp_path / "bare.ckpt")


@needs_lightning
@pytest.mark.slow
def test_two_optimizers_are_not_cut_but_masked(pl: Any) -> None:
    from surgery.callbacks.lightning import PruningCallback

    class Two(pl.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.net, self.other = convolutions(), nn.Linear(5, 5)

        def training_step(self, batch: Any, index: int) -> None:
            loss = nn.functional.cross_entropy(self.other(self.net(batch[0])), batch[1])
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.net.parameters(), 0.1), torch.optim.SGD(self.other.parameters(), 0.1)]

    with quiet(), pytest.raises(InputError, match=r"has 2 optimizers.*\n.*cut=False"):
        trainer(pl, [PruningCallback(SCHEDULES["gradual cuts"], module="net")]).fit(Two(), images())
    net = Two()
    with quiet():
        trainer(pl, [PruningCallback(SCHEDULES["masks at once"], module="net")]).fit(net, images())
    assert surgery.sparsity(net.net).share > 0.5
    assert not keep_masks(net.other)


@needs_lightning
@pytest.mark.slow
def test_an_input_that_the_batch_does_not_show_is_asked_for(pl: Any) -> None:
    from surgery.callbacks.lightning import PruningCallback

    class Boxed(classifier(pl).__class__):  # type: ignore[misc]
        def training_step(self, batch: Any, index: int) -> Any:
            return nn.functional.cross_entropy(self.net(batch[1]), batch[0])

    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.arange(32) % 5, torch.randn(32, 3, 9, 9, generator=generator))  # targets first
    loader = DataLoader(data, batch_size=16)
    with (
        quiet(),
        pytest.raises(InputError, match=r"cannot be called with what the first batch holds.*\n.*example_inputs"),
    ):
        trainer(pl, [PruningCallback(SCHEDULES["gradual cuts"], module="net")]).fit(Boxed(), loader)
    given = PruningCallback(SCHEDULES["gradual cuts"], module="net", example_inputs=torch.randn(2, 3, 9, 9))
    net = Boxed()
    with quiet():
        trainer(pl, [given]).fit(net, loader)
    assert net.net[0].out_channels < 16


@needs_lightning
@pytest.mark.slow
def test_the_example_of_the_readme(pl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    first, second = block.split("trainer().fit(make_module()")
    monkeypatch.chdir(tmp_path)
    module = classifier(pl)
    names = {"surgery": surgery, "lightning": pl, "module": module, "loader": images()}
    names["make_module"] = lambda: classifier(pl)
    with quiet():
        warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", ".*The dirpath has changed.*")
        exec(first, names)
        assert module.net[0].out_channels < 16
        (names["checkpoint"],) = tmp_path.rglob("*.ckpt")
        exec(f"trainer().fit(make_module(){second}", names)
