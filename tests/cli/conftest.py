from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from surgery.cli import main
from tests.cli.workshop import CODE

IMAGE = ("--input", "2x3x9x9")


@dataclass(frozen=True)
class Ran:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The error, without what was said before."""
        return self.err[self.err.index("error: ") :].rstrip("\n")


class CommandLine:
    """Runs `surgery ...` in this process, in a directory of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], place: Path) -> None:
        self.capsys = capsys
        self.place = place

    def __call__(self, *words: str) -> Ran:
        self.capsys.readouterr()
        code = main(words)
        captured = self.capsys.readouterr()
        return Ran(code, captured.out, captured.err)


@pytest.fixture
def surgery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[CommandLine]:
    (tmp_path / "cli_zoo.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("SURGERY_TRACEBACK", raising=False)
    yield CommandLine(capsys, tmp_path)
    sys.modules.pop("cli_zoo", None)
