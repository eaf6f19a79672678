"""The benchmark of latency targets: what it says, and that what was measured is what was asked for."""

from __future__ import annotations

import json
from typing import Any

from benchmarks import latency_targets, readme


def run(number: int, share: float) -> dict[str, Any]:
    return {
        "net": "a net", "runtime": "eager", "run": number, "share": share, "low": share - 0.01, "high": share + 0.01,
        "dense_ms": 10.0, "slim_ms": 10 * share, "said": share, "tried": 3, "seconds": 61.0, "load": 0.5,
    }  # fmt: skip


def test_the_table_counts_what_is_within_5_percent() -> None:
    text = latency_targets.table({"machine": "here", "runs": [run(0, 0.5), run(1, 0.53)]})
    assert (
        "| a net | eager | 10.0 ms | 5.0 ms, 5.3 ms | 0.500 (0.490 to 0.510); 0.530 (0.520 to 0.540) | 3, 3 |" in text
    )
    assert "1 of 2 runs are within 5% of it" in text


def test_half_is_half_three_times_of_three_as_measured() -> None:
    facts = json.loads(latency_targets.RESULTS.read_text())
    runs = [(one["net"], one["runtime"]) for one in facts["runs"]]
    places = [(net, runtime) for net in latency_targets.NETS for runtime in latency_targets.RUNTIMES]
    assert [runs.count(place) for place in places] == [3] * len(places)
    assert all(0.475 <= one["share"] <= 0.525 for one in facts["runs"])
    assert latency_targets.table(facts) in readme.README.read_text()
