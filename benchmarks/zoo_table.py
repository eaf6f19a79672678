"""The zoo as markdown: a line per architecture for the page of benchmarks, a summary for the main one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

BEYOND = ("it is an output of the model", "meets channels that are fixed")
"""Reasons to be pinned that say nothing of the net."""


def kept_share(row: Row) -> float:
    """The share of the removable parameters that is left."""
    before, after = row["params"]
    removable = row["removable_share"] * before
    return float((after - (before - removable)) / removable) if removable else 1.0


def is_halved(row: Row) -> bool:
    """At most half of the removable parameters are left, but for one channel more in each group."""
    removable = row["removable_share"]
    return bool(removable) and kept_share(row) <= 0.5 + row["rounding"] / removable


def verdict(row: Row) -> str:
    """`exact` and half gone, `pinned` (exact, with more left), or why neither."""
    if "failed" in row:
        return f"FAILED ({row.get('stage', 'process')}): {row['failed']}"
    if not row.get("exact"):
        return "FAILED: it was not judged"
    return "exact" if is_halved(row) else "pinned"


def reason(row: Row) -> str:
    """Why most of what is pinned stays."""
    if row.get("stays"):
        return str(row["stays"])
    inner = [why for why in row.get("pinned", {}) if not any(other in why for other in BEYOND)]
    return inner[0] if inner else ""


def formats(row: Row) -> str:
    """Whether the exported files agree, and if not, which do not."""
    exports: Row = row.get("exports", {})
    words = [f"{name} {word}" for name, parity in exports.items() for word in ("refused", "failed") if word in parity]
    return ", ".join(words) or ("agree" if exports else "")


def peer(row: Row) -> str:
    """What torch-pruning makes of it."""
    found = row.get("peer")
    if not found:
        return ""
    if not found.get("ended"):
        return f"{found.get('failed', 'failed').partition(':')[0]}"
    before, after = found["params"]
    kept = f"{100 * after / before:.0f} % left, {found['seconds']:.1f} s"
    if not found["runs"]:
        return f"does not run: {found.get('failed', '').partition(':')[0]}"
    return kept if found["same_shapes"] else f"{kept}, other outputs"


def line(name: str, row: Row) -> str:
    """One architecture."""
    found = verdict(row)
    cells = [name, row.get("net", "")]
    if "params" in row and "removable_share" in row:
        (before, after), (macs_before, macs_after) = row["params"], row["macs"]
        share = f"{100 * row['removable_share']:.0f} %"
        kept = f"{100 * kept_share(row):.0f} %" if row["removable_share"] else ""
        errors = f"{row['float64_error']:.0e}, {row['float32_error']:.0e}"
        macs = f"{100 * macs_after / macs_before:.0f} %" if macs_before else ""
        cells += [f"{before:,} to {after:,}", share, kept, macs, errors, row["kind"]]
    else:
        share = f"{100 * row['removable_share']:.0f} %" if "removable_share" in row else ""
        cells += ["", share, "", "", "", ""]
    seconds = sum(row.get("seconds", {}).values())
    said = "; ".join(part for part in (found, reason(row) if found == "pinned" else "", row.get("note", "")) if part)
    cells += [formats(row), f"{seconds:.0f}" if seconds else "", said, peer(row)]
    return f"| {' | '.join(cells)} |".replace("\n", " ")


def table(facts: Row) -> str:
    """The results as markdown."""
    header = (
        "architecture", "net", "parameters", "removable", "of it left", "MACs left", "error: float64, float32",
        "result", "ONNX, TorchScript", "s", "verdict", "torch-pruning",
    )  # fmt: skip
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    lines += [line(name, row) for name, row in facts["rows"].items()]
    unruled: Counter[str] = Counter()
    for row in facts["rows"].values():
        unruled.update(set(row.get("unruled_ops", {})))
    said = ", ".join(f"`{op}` ({count})" for op, count in unruled.most_common())
    return "\n".join([*lines, "", f"Ops without a rule, and in how many nets they pin something: {said or 'none'}."])


def preparations(facts: Row) -> str:
    """What goes of the convolutional families, in percent of their parameters, and the largest error."""
    lines = ["| family | removed: plan, layers, columns | float64 error |", "|---|---|---|"]
    for name, row in facts["rows"].items():
        if "params" not in row or "preparations" not in row:
            continue
        cases = [row, *row["preparations"].values()]
        removed = ", ".join(f"{100 * (1 - case['params'][1] / case['params'][0]):.0f} %" for case in cases)
        wrong = "" if all(case["exact"] for case in cases) else ", WRONG"
        lines.append(f"| {name} | {removed} | {max(case['float64_error'] for case in cases):.0e}{wrong} |")
    return "\n".join(lines)


def summary(facts: Row) -> str:
    """The results in a few lines."""
    rows = list(facts["rows"].values())
    verdicts = Counter(verdict(row).partition(" ")[0] for row in rows)
    judged = [row for row in rows if "exact" in row]
    wrong = sum(row["exact"] is False for row in judged)
    kinds = Counter(row["kind"] for row in judged)
    ruled = sum(not row["unruled_ops"] for row in rows if "unruled_ops" in row)
    exact = verdicts["exact"] + verdicts["pinned"]
    exported = [row for row in rows if row.get("exports")]
    agree = sum(formats(row) == "agree" for row in exported)
    peers = [row["peer"] for row in rows if "peer" in row]
    runs = [found for found in peers if found.get("runs")]
    sound = [found for found in runs if found["same_shapes"]]
    halved = [found for found in sound if found["params"][1] <= 0.5 * found["params"][0]]
    ended = sum(bool(found.get("ended")) for found in peers)
    undecided = sum(row["exact"] is None for row in judged)
    tried = "" if len(peers) == len(rows) else f", tried on {len(peers)} of them"
    lines = [
        f"| {len(rows)} architectures | surgery | {facts['peer']}, without hints{tried} |",
        "|---|---|---|",
        f"| understood, and ended in time | {sum(bool(row.get('captured')) for row in rows)} | {ended} |",
        f"| slim net runs, with outputs of the same shapes | {len(judged)} | {len(sound)} |",
        f"| slim net computes the masked one, exactly | {exact} | not promised |",
        f"| slim net computes something else | {wrong} | not judged |",
        f"| nobody could tell: outputs of the random net hardly vary | {undecided} | |",
        f"| at most half left: of the removable parameters; of all | {verdicts['exact']} | {len(halved)} |",
        f"| exact, and more is left: pinned, with the reason | {verdicts['pinned']} | |",
        f"| the model's own class survives | {kinds['class']} | {len(runs)} |",
        f"| ONNX and TorchScript files agree with the slim net | {agree} of {len(exported)} exported | |",
        f"| every op has a rule | {ruled} | |",
    ]
    return "\n".join(lines)
