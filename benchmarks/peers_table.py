"""What removers make of masked nets, as markdown: short for the main page, with every error for that of benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]

NAMES = {"torch.ao": "torch.ao's pruner"}


def cell(facts: Facts | None) -> str:
    """Parameters left and whether the net still computes the same, in a few words."""
    if not facts or "missing" in facts:
        return "not installed" if facts else ""
    if "failed" in facts or "failed" in facts.get("alike", {}):
        return "fails"
    if "alike" not in facts:
        return "not judged"
    before, after = facts["params"]
    if after == before and not facts["alike"]["fault"]:
        return "nothing removed"
    if facts["alike"]["fault"]:
        return f"{after:,}, **off by {100 * facts['alike']['over_largest']:.0f} %**"
    elsewhere = facts.get("elsewhere", {"fault": ""})
    if "failed" in elsewhere:
        return f"{after:,}, exact at one size only"
    return f"{after:,}, {'**wrong at other sizes**' if elsewhere['fault'] else 'exact'}"


def page_cell(facts: Facts | None) -> str:
    """The same with both errors, and what was raised."""
    if not facts or "missing" in facts:
        return "not installed" if facts else ""
    if "failed" in facts:
        return _words(facts["failed"])
    if "alike" not in facts:
        return "not judged"
    if facts["params"][0] == facts["params"][1] and not facts["alike"]["fault"]:
        return cell(facts)
    words = [f"{facts['params'][1]:,}", _errors(facts["alike"])]
    if "elsewhere" in facts:
        words.append(f"other sizes {_errors(facts['elsewhere'])}")
    return "; ".join(words)


def _errors(found: Facts) -> str:
    if "failed" in found:
        return _words(found["failed"])
    wide = f", {found['relative_error_float64']:.0e} in float64" if "relative_error_float64" in found else ""
    return f"{found['relative_error']:.0e} ({found['over_largest']:.0e}){wide}"


def _words(failed: str) -> str:
    return f"*{failed.replace('|', ' ').replace('*', ' ')}*"


def _table(facts: Facts, of: Any) -> list[str]:
    """A line per net, a column per side; `of` words a cell."""
    sides = facts["versions"]
    heads = [f"{NAMES.get(side, side)} {version.partition('+')[0]}".strip() for side, version in sides.items()]
    lines = [f"| masked net | parameters | {' | '.join(heads)} |", "|---|---|" + "---|" * len(heads)]
    for name, row in facts["rows"].items():
        before = next((found["params"][0] for found in row.values() if "params" in found), 0)
        lines.append(f"| {name} | {before:,} | {' | '.join(of(row.get(side)) for side in sides)} |")
    return lines


def table(facts: Facts) -> str:
    """For the main page."""
    return "\n".join(_table(facts, cell))


def page_table(facts: Facts) -> str:
    """For the page of benchmarks."""
    return "\n".join([*_table(facts, page_cell), "", f"Made on {facts['machine']}."])
