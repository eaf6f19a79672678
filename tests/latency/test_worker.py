from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from surgery.inputs import Inputs
from surgery.latency import timing, worker
from surgery.latency.parity import Reference
from surgery.latency.protocol import Form, Job, Request
from surgery.latency.results import Cell, Row
from surgery.latency.runtime import Bind, Runtime, Setting
from surgery.latency.sending import send
from surgery.latency.timing import Enough

BRIEF = Enough(min_pairs=10, min_seconds=0.0, max_seconds=60.0, warmup_seconds=0.0)


@pytest.fixture(autouse=True)
def soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("settled", "settled_between"):
        monkeypatch.setattr(timing, name, lambda *_: True)


class Workshop:
    """A runtime that logs what it opens, and how many models are held at a time."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch, **kind: Any) -> None:
        self.place, self.opened, self.held, self.most = place, [], 0, 0
        self.refuse: list[str] = []
        runtime = Runtime("fake", None, ("cpu",), ("float32",), self.load, **kind)
        monkeypatch.setattr(worker, "runtime_named", lambda name: runtime)
        send(Inputs.of(torch.ones(2)), place / "inputs")
        send(Reference((torch.ones(2),), ()), place / "reference")

    def load(self, path: Path, setting: Setting) -> Bind:
        self.opened.append(path.name)
        if path.name in self.refuse and self.opened.count(path.name) > 1:
            raise MemoryError("no room")
        held = Held(self)
        return lambda inputs: lambda: held and inputs.args[0]

    def measure(self) -> Cell:
        files = (str(self.place / name) for name in ("inputs", "reference", "reference"))
        rest = tuple(files)
        forms = tuple(Form(name, str(self.place / name), *rest) for name in "ab")
        job = Job(2, forms)
        return worker._measure(Request("fake", "float32", 1, "cpu", (job,), BRIEF), job)


class Held:
    """A model that is open."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        workshop.held += 1
        workshop.most = max(workshop.most, workshop.held)

    def __del__(self) -> None:
        self.workshop.held -= 1


def test_models_are_opened_anew_in_the_other_order_and_never_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Workshop(tmp_path, monkeypatch)
    cell = shop.measure()
    assert len(cell.sittings) == 5
    assert "".join(shop.opened) == ("abba" * len(cell.sittings))[: 2 * len(cell.sittings)]
    assert shop.most == 2
    assert [row.model for row in cell.rows] == ["a", "b"]


def test_what_compiles_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Workshop(tmp_path, monkeypatch, compiles=True)
    cell = shop.measure()
    assert shop.opened == ["a", "b"]
    assert cell.sittings == (len(cell.rows[0].latency_ms),)


def test_a_model_that_opens_only_once_is_an_error_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Workshop(tmp_path, monkeypatch)
    shop.refuse = ["b"]
    with pytest.raises(RuntimeError, match="b could be opened, but not a second time: MemoryError: no room"):
        shop.measure()


def test_what_the_first_opening_paid_for_all_is_left_out() -> None:
    rows = [Row("a", load_ms=ms, first_ms=ms + 1, peak_bytes=int(ms)) for ms in (900.0, 10.0, 30.0, 20.0)]
    told = worker._told(rows)
    assert (told.load_ms, told.first_ms, told.peak_bytes) == (20.0, 21.0, 20)
    only = worker._told(rows[:1])
    assert (only.load_ms, only.first_ms, only.peak_bytes) == (900.0, 901.0, 900)
    assert worker._told([Row("a"), Row("a")]).load_ms is None
