from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import masked_vs_slim_table, readme
from benchmarks.masked_vs_slim import RESULTS
from tests.targeting.stand_in import StandIn, stand_in

assert stand_in  # a fixture: a latency is found without a minute of measuring

README = Path(__file__).parent.parent / "README.md"


def test_the_examples_run(capsys: pytest.CaptureFixture[str], stand_in: StandIn) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, object] = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert "proof passed" in printed
    assert "0.weight[3]" in printed


def test_the_script_runs_in_less_than_forty_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    (script,) = re.findall(r"```python half\.py\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(script.splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    exec(compile(script, str(README), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert "within 5 % of it" in printed
    assert "proof passed" in printed
    assert (tmp_path / "slim.int8.onnx").exists()
    assert (tmp_path / "slim" / "surgery.json").exists()


def test_the_table_is_generated_from_the_committed_results() -> None:
    text = README.read_text()
    between = text.split(readme.BEGIN)[1].split(readme.END)[0].strip()
    assert between == masked_vs_slim_table.table(json.loads(RESULTS.read_text())).strip()
