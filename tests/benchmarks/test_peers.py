"""The benchmark of removers on small lines: ours is exact, wrong nets are seen, and what is missing is said."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import peers, peers_sides, peers_table
from benchmarks.peers_lines import LINES
from benchmarks.peers_sides import OURS, SIDES, judged, zero_rows

SMALL = [name for name, line in LINES.items() if line.net.net == "plain code"]
PADDED = "padded convolutions with bias"
EXACT = {"relative_error": 1e-7, "over_largest": 1e-8, "noise": 1e-7, "fault": ""}


def facts_of(side: str, name: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for found in peers_sides.facts_of(side, LINES[name]):
        facts |= found
    return facts


@pytest.mark.parametrize("name", SMALL)
def test_ours_is_exact_on_every_small_line(name: str) -> None:
    facts = facts_of(OURS, name)
    assert peers.fault(name, facts) == ""
    assert facts["alike"]["relative_error_float64"] <= 1e-9
    assert facts["alike"]["over_largest"] <= 1e-6
    assert ("elsewhere" in facts) == (name != "MLP with GELU")


def test_a_slim_net_that_is_wrong_is_seen() -> None:
    line = LINES[PADDED]
    masked = line.net.make()
    slim, slim64 = peers_sides.ours(masked, line)
    assert judged(line, masked, slim, slim64, line.alike)["fault"] == ""
    wrong = copy.deepcopy(slim)
    with torch.no_grad():
        wrong.conv2.bias[3] += 1e-3
    assert "in float32" in judged(line, masked, wrong, slim64, line.alike)["fault"]
    assert "in float32" in judged(line, masked, wrong, None, line.alike)["fault"]
    with torch.no_grad():
        slim64.conv2.bias[3] += 1e-7
    assert "in float64" in judged(line, masked, slim, slim64, line.alike)["fault"]
    assert "failed" in judged(line, masked, nn.Linear(3, 4), None, line.alike)


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        (PADDED, {}, ""),
        (PADDED, {"failed": "KeyError: 3"}, "KeyError: 3"),
        (PADDED, {"params": [9, 9]}, "it removed nothing"),
        (PADDED, {"alike": EXACT | {"fault": "wrong: 1e-3"}}, "wrong: 1e-3"),
        (PADDED, {"elsewhere": {"failed": "RuntimeError: sizes"}}, "RuntimeError: sizes"),
        (PADDED, {"elsewhere": None}, "it was not judged"),
        ("live filter whose weights sum to 0", {}, "it removed what is alive"),
        ("live filter whose weights sum to 0", {"params": [9, 9]}, ""),
    ],
)
def test_what_is_a_fault_of_ours(name: str, change: dict[str, Any], fault: str) -> None:
    facts = {"params": [9, 5], "alike": EXACT, "elsewhere": EXACT} | change
    facts = {key: value for key, value in facts.items() if value is not None}
    assert peers.fault(name, facts) == fault
    assert peers.faults({name: {OURS: facts}}) == ([f"{name}: {fault}"] if fault else [])
    assert peers.faults({name: {"torch.ao": {"failed": "of no interest"}}}) == []


def test_ours_is_exact_on_every_line_of_the_committed_results() -> None:
    rows = json.loads(peers.RESULTS.read_text())["rows"]
    assert set(rows) == set(LINES)
    assert all(OURS in row for row in rows.values())
    assert peers.faults(rows) == []


def test_what_others_make_of_it() -> None:
    """Figures of their own packages: wrong by tens of percent, nothing removed, or their own exception."""
    found = facts_of("torch-pruning", PADDED)
    assert found["params"] == [973, 573]
    assert found["alike"]["over_largest"] > 0.1
    assert facts_of("torch.ao", "MLP with GELU")["alike"]["fault"] == ""
    assert facts_of("torch.ao", "MLP with GELU")["params"] == [213, 109]
    assert facts_of("torch.ao", PADDED)["params"] == [973, 973]
    gone = facts_of("torch.ao", "convolutions with BatchNorm")
    assert gone["failed"].endswith("still contains FakeStructuredSparsity parametrizations!")


def test_torch_simplify_keeps_maps_of_one_size() -> None:
    pytest.importorskip("simplify", reason="torch-simplify is not installed")
    found = facts_of("torch-simplify", PADDED)
    assert found["params"][1] > 973
    assert found["alike"]["fault"] == ""
    assert "failed" in found["elsewhere"]


def test_a_package_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers_sides.PACKAGES, "torch-simplify", "no-such-distribution")
    facts = facts_of("torch-simplify", PADDED)
    assert facts == {"missing": "no-such-distribution is not installed"}
    assert peers_table.cell(facts) == peers_table.page_cell(facts) == "not installed"


def test_rows_of_zeros_are_told_from_rows_that_sum_to_zero() -> None:
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0], [0.0, 0.0]]))
    assert zero_rows(layer) == [0, 2]
    lstm = nn.LSTM(2, 3)
    with torch.no_grad():
        for tensor in lstm.parameters():
            tensor[[1, 4, 7, 10]] = 0
            tensor[2] = 0  # one gate of another unit
    assert zero_rows(lstm) == [1]


@pytest.mark.parametrize(
    ("change", "short"),
    [
        ({}, "5, exact"),
        ({"params": [9, 9]}, "nothing removed"),
        ({"failed": "KeyError: 3"}, "fails"),
        ({"alike": {"failed": "KeyError: 3"}}, "fails"),
        ({"alike": EXACT | {"fault": "wrong", "over_largest": 0.3}}, "5, **off by 30 %**"),
        ({"elsewhere": {"failed": "RuntimeError: sizes"}}, "5, exact at one size only"),
        ({"elsewhere": EXACT | {"fault": "wrong"}}, "5, **wrong at other sizes**"),
    ],
)
def test_a_cell_says_what_was_measured(change: dict[str, Any], short: str) -> None:
    facts = {"params": [9, 5], "alike": EXACT, "elsewhere": EXACT} | change
    assert peers_table.cell(facts) == short
    facts = {"versions": {OURS: "1", "torch.ao": "2"}, "machine": "here", "rows": {"a": {OURS: facts}}}
    assert f"| a | 9 | {short} |  |" in peers_table.table(facts)
    assert "torch.ao's pruner 2 |" in peers_table.page_table(facts)


@pytest.mark.slow
def test_every_cell_has_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "peers.json"
    sides = ["--sides", OURS, "torch-pruning"]
    monkeypatch.setattr(sys, "argv", ["peers", "LSTM", *sides, "--output", str(output)])
    assert peers.main() == 0
    row = json.loads(output.read_text())["rows"]["LSTM"]
    assert row[OURS]["alike"]["fault"] == row[OURS]["elsewhere"]["fault"] == ""
    assert row["torch-pruning"]["failed"].startswith("IndexError: ")
    monkeypatch.setattr(sys, "argv", ["peers", "LSTM", *sides[:2], "--limit", "0.01", "--output", str(output)])
    assert peers.main() == 1
    assert json.loads(output.read_text())["rows"]["LSTM"][OURS]["failed"] == "killed after 0 s"


def in_place(work: Any, names: Sequence[str], **_: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    (side,) = work.args
    for name in names:
        yield name, facts_of(side, name)


def test_the_script_keeps_what_it_has_and_fails_where_ours_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "peers.json"
    monkeypatch.setattr(peers, "finished", in_place)
    monkeypatch.setattr(sys, "argv", ["peers", PADDED, "--output", str(output)])
    assert peers.main() == 0
    assert "surgery: padded convolutions with bias: 673, exact" in capsys.readouterr().err
    before = json.loads(output.read_text())
    assert list(before["rows"][PADDED]) == list(before["versions"]) == list(SIDES)
    right = peers_sides.ours

    def wrong(masked: nn.Module, line: Any) -> tuple[nn.Module, nn.Module]:
        slim, slim64 = right(masked, line)
        with torch.no_grad():
            slim.conv1.bias += 0.1
        return slim, slim64

    monkeypatch.setattr(peers_sides, "SIDES", {**SIDES, OURS: wrong})
    monkeypatch.setattr(sys, "argv", ["peers", PADDED, "--sides", OURS, "--output", str(output)])
    assert peers.main() == 1
    assert f"{PADDED}: wrong: relative error" in capsys.readouterr().err
    after = json.loads(output.read_text())["rows"][PADDED]
    assert after["torch.ao"] == before["rows"][PADDED]["torch.ao"]
    assert after[OURS]["alike"]["fault"]
