"""A run that goes on: what a checkpoint must hold, and how all of it is put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from surgery.errors import InputError, first_line
from surgery.fitting import chance, keeping
from surgery.fitting.ranks import Ranks
from surgery.fitting.result import Epoch
from surgery.fitting.settings import Settings
from surgery.schedules import Change

if TYPE_CHECKING:
    from surgery.fitting.loop import Loop

Found = tuple[dict[str, Any], dict[str, Any], Any]
"""Of a checkpoint: the JSON, the state of all, and that of this process."""


class Resuming:
    """The checkpoints of one run (mutable: `resumed_at` and `loaded` say what was taken up again)."""

    def __init__(self, settings: Settings, ranks: Ranks, begun_with: Mapping[str, Any]) -> None:
        self.directory, self.resume, self.ranks, self.begun_with = (
            settings.checkpoints, settings.resume, ranks, begun_with,
        )  # fmt: skip
        self.resumed_at: int | None = None
        self.loaded = False
        self.readable = False

    def found(self) -> Found | None:
        """The newest checkpoint, where the run is to go on from it; None where it begins anew.

        Raises:
            InputError: There is one and nobody said to go on; or it is of another run, or cannot be read.
        """
        if self.directory is None:
            return None
        directory = self.directory
        newest = self.ranks.by_main(lambda: self._newest(directory))
        if newest is None:
            return None

        def load() -> Found:  # what is of another run is refused before files of processes that it had not are read
            keeping.refuse_other(keeping.begun(Path(newest)), self.begun_with, Path(newest))
            return keeping.read(Path(newest), self.ranks.rank)

        return self.ranks.together(load)

    def _newest(self, directory: Path) -> str | None:
        if directory.exists() and not directory.is_dir():
            raise InputError(f"checkpoints={str(directory)!r} is a file", "give a directory")
        newest = keeping.newest(directory)
        if newest is not None and not self.resume:
            way_out = "pass resume=True to go on from it, or another directory"
            raise InputError(f"{str(directory)!r} holds a checkpoint already ({newest.name})", way_out)
        return None if newest is None else str(newest)

    def save(self, loop: Loop) -> None:
        """Write a checkpoint, where the run has a directory for them.

        Raises:
            InputError: It cannot be written, or could not be read again.
        """
        if self.directory is None:
            return
        loop.engine.agree_()
        record = loop.record
        cuts = 0
        changes = []
        for change in record.changes:
            cuts += change.plan is not None
            changes.append(change.as_dict() | {"cut": cuts - 1 if change.plan is not None else None})
        run = {
            "begun_with": self.begun_with,
            "place": asdict(record.place),
            "epochs": [asdict(epoch) for epoch in record.epochs],
            "changes": changes,
            "best": None if record.best is None else asdict(record.best),
            "waited": record.waited,
            "stopped_early": record.stopped_early,
        }
        state = {
            **loop.engine.state(),
            "rates": _plain(loop.rates.state_dict()),
            "pruner": None if loop.pruner is None else loop.pruner.state_dict(),
            "losses": torch.tensor(record.losses, dtype=torch.float64),
            "summed": torch.tensor([record.summed], dtype=torch.float64),
            "samples": record.samples,
            "best_weights": record.best_weights,
        }
        path = keeping.write(self.directory, len(record.losses), self.ranks, run, state, chance.state())
        if not self.readable:
            self.ranks.together(lambda: self._check(path))
        self.readable = True

    def _check(self, path: Path) -> None:
        """Whether the first checkpoint can be read: an optimizer may hold what cannot."""
        try:
            keeping.read(path, self.ranks.rank)
        except Exception as error:
            fact = f"what was written as a checkpoint cannot be read again: {first_line(error)}"
            way_out = "leave checkpoints= out, or use an optimizer and a model whose state is tensors and numbers"
            raise InputError(fact, way_out) from error

    def reshape_(self, loop: Loop, found: Found) -> None:
        """Make model, optimizer and record as they were in number and shape; values come with `load_`."""
        run, state, _ = found
        record, pruner = loop.record, loop.pruner
        if pruner is not None:
            self.ranks.together(lambda: pruner.load_state_dict(state["pruner"], loop.engine.optimizer))
            loop.engine.model = pruner.model
            for plan in pruner.cuts:
                if loop.teacher is not None:
                    loop.teacher.follow_(plan)
        from surgery.fitting.loop import Place

        record.place = Place(**run["place"])
        record.epochs[:] = [Epoch(**epoch) for epoch in run["epochs"]]
        for change in run["changes"]:
            cut = change.pop("cut")
            done = pruner.cuts[cut] if pruner is not None and cut is not None else None
            record.changes.append(Change.from_dict(change, done))
        record.losses[:] = state["losses"].tolist()
        record.summed, record.samples = float(state["summed"][0]), state["samples"]
        record.best = None if run["best"] is None else Epoch(**run["best"])
        record.best_weights = state["best_weights"]
        record.waited, record.stopped_early = run["waited"], run["stopped_early"]
        self.resumed_at = len(record.losses)

    def load_(self, loop: Loop, found: Found) -> None:
        """The values: weights, optimizer, learning rates, random numbers."""
        _, state, own = found
        self.ranks.together(lambda: loop.engine.load_(state))
        place = loop.record.place
        if loop.rates is not None and (place.epoch or place.step):
            loop.rates.load_state_dict(state["rates"])
        chance.restore(own)
        self.loaded = True


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """The state of learning rates without functions, which are the user's and come with the settings."""
    return {name: value for name, value in state.items() if not callable(value)}
