"""Results are kept as they come: a file is replaced whole, so that an interrupt leaves the last one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def kept(output: Path) -> dict[str, Any]:
    """What a file of results holds; nothing where there is none."""
    facts: dict[str, Any] = json.loads(output.read_text()) if output.is_file() else {}
    return facts


def keep(output: Path, facts: Mapping[str, Any], indent: int | None = 1) -> None:
    """Write results beside the old ones, then in their place."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial_file = output.with_suffix(".part")
    partial_file.write_text(json.dumps(facts, indent=indent) + "\n")
    partial_file.replace(output)
