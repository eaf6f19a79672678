"""The benchmark of the ladder: what it says, and that the page says what was measured."""

from __future__ import annotations

import json
from typing import Any

from benchmarks import compensated, readme
from benchmarks.sentences import CALIBRATION, TEST


def rung(name: str, error: float, evaluated: float, *, taken: bool = True) -> dict[str, Any]:
    return {"name": name, "error": error, "evaluated": evaluated, "taken": taken, "layers": 1, "notes": []}


def test_the_table_and_the_gap() -> None:
    ladder = [rung("fold", 0.7, 0.6), rung("bias", 0.8, 0.5, taken=False), rung("lstsq", 0.4, 0.9)]
    ladder.append(rung("batchnorm", 0.4, 0.9))
    one = {"what": "MiniLM", "keep": 0.7, "params": [100, 80], "macs": [200, 100], "dense": 1.0, "ladder": ladder}
    one |= {"slim": 0.9, "fitted": 30, "held_out": 10}
    text = compensated.table({"machine": "here", "ladders": [one]})
    assert "| MiniLM | 70% | 80.0 % | 50.0 % | 1.0000 | 0.6000 (0.700) | 0.5000 (0.800), *taken back* |" in text
    assert "closes 75% of the gap (0.400 to 0.100), with 30 sentences to learn from and 10 to judge by" in text


def test_half_of_the_gap_at_70_percent_as_measured() -> None:
    facts = json.loads(compensated.RESULTS.read_text())
    (one,) = (one for one in facts["ladders"] if one["what"] == "MiniLM" and one["keep"] == 0.7)
    assert 1 - one["slim"] <= 0.5 * (1 - one["ladder"][0]["evaluated"])
    page = readme.PAGE.read_text()
    assert compensated.table(facts) in page


def test_nothing_is_learnt_from_the_sentences_that_judge() -> None:
    assert len(set(TEST)) >= 100
    assert len(set(CALIBRATION)) >= 200
    assert not set(TEST) & set(CALIBRATION)
