"""The results of `benchmarks.choosing` as a table, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

AWARE = "latency-aware"
SCORES = {"cut": "cut", "cut with ladder": "cut, ladder", "tuned": "tuned", "tuned with ladder": "ladder, tuned"}
"""What a net is judged by, and how the table says it."""

OFF = 0.02
"""Of the multiply-accumulates that were asked for; torch-pruning is not compared beyond. It narrows all groups at once,
in steps that seldom come within 1 % where little is left."""


def table(facts: dict[str, Any]) -> str:
    """Mean and spread over the seeds, a line for each way at each level; and what that says."""
    lines = [
        "| task | MACs | way | latency | " + " | ".join(SCORES.values()) + " |",
        "|---|---|---|---|" + "---|" * len(SCORES),
    ]
    for task, level in sorted({(one["task"], -one["level"]) for one in facts["lines"]}):
        here = [one for one in facts["lines"] if one["task"] == task and one["level"] == -level]
        lines += [_line(task, way, [one for one in here if one["way"] == way]) for way in ways(here)]
    dense = {task: mean(one["dense"] for one in facts["lines"] if one["task"] == task) for task in tasks(facts)}
    seeds = len({one["seed"] for one in facts["lines"]})
    how = (
        f"Accuracy on what was held back, mean ± standard deviation over {seeds} seeds; dense "
        + ", ".join(f"{task} {value:.2%}" for task, value in dense.items())
        + f". MACs and latency are shares of the dense net's; latency in {facts['runtime']}, one thread, all nets of a "
        "seed interleaved. *Tuned*: two epochs, the same for all. torch-pruning comes within 1 % of the "
        "multiply-accumulates where its steps allow it; seeds beyond 2 % are left out (†), and lines without any."
    )
    return "\n".join(
        [*lines, "", *said(facts), "", how, "", f"Made on {facts['machine']}; `python -m benchmarks.choosing`."]
    )


def tasks(facts: dict[str, Any]) -> list[str]:
    """The tasks, in order."""
    return list(dict.fromkeys(one["task"] for one in facts["lines"]))


def ways(lines: Sequence[dict[str, Any]]) -> list[str]:
    """The ways, in order, those that are compared."""
    return [
        way for way in dict.fromkeys(one["way"] for one in lines) if compared([o for o in lines if o["way"] == way])
    ]


def compared(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of one way at one level that have the multiply-accumulates they should have."""
    return [one for one in lines if not one["way"].startswith("torch-pruning") or abs(one["off"]) <= OFF]


def _line(task: str, way: str, lines: list[dict[str, Any]]) -> str:
    found = compared(lines)
    mark = "†" if len(found) < len(lines) else ""
    scores = [spread([one[name] for one in found if name in one], 100, 2) for name in SCORES]
    shares = [spread([one[name] for one in found], 1, 3) for name in ("share_of_macs", "latency")]
    name = f"**{way}**" if way == AWARE else way + mark
    return f"| {task} | {shares[0]} | {name} | {shares[1]} | " + " | ".join(scores) + " |"


def spread(values: Sequence[float], times: float, digits: int) -> str:
    """Mean ± standard deviation; a dash where there is nothing."""
    if not values:
        return "–"
    middle = f"{times * mean(values):.{digits}f}"
    return f"{middle} ± {times * stdev(values):.{digits}f}" if len(values) > 1 else middle


def said(facts: dict[str, Any]) -> list[str]:
    """For every level where the best of ours is, beside the best of the others."""
    found = []
    for task, level in sorted({(one["task"], -one["level"]) for one in facts["lines"]}):
        here = [one for one in facts["lines"] if one["task"] == task and one["level"] == -level]
        best = {}
        for way in ways(here):
            own = compared([one for one in here if one["way"] == way])
            name = "tuned with ladder" if "tuned with ladder" in own[0] else "tuned"
            best[way] = mean(one[name] for one in own)
        peers = {way: value for way, value in best.items() if way.startswith("torch-pruning")}
        ours = {way: value for way, value in best.items() if way not in peers}
        first = max(ours, key=lambda way: ours[way])
        line = f"* {task} at latency {-level}: tuned, {AWARE} with the ladder {100 * ours[AWARE]:.2f} %"
        line += f", the best of ours {100 * ours[first]:.2f} % ({first})" if first != AWARE else ", the best of ours"
        if peers:
            other = max(peers, key=lambda way: peers[way])
            line += f"; torch-pruning {100 * peers[other]:.2f} % ({other.split()[-1]})"
        found.append(line + ".")
    return found


def picture(facts: dict[str, Any], path: Path) -> None:
    """Accuracy after tuning, against multiply-accumulates and against measured latency, a row for each task."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows = tasks(facts)
    figure, all_axes = pyplot.subplots(len(rows), 4, figsize=(17, 4.2 * len(rows)), squeeze=False)
    for task, axes in zip(rows, all_axes, strict=True):
        here = [one for one in facts["lines"] if one["task"] == task]
        dense = 100 * mean(one["dense"] for one in here)
        panels = [
            (across, scores, title)
            for scores, title in (
                (("cut with ladder", "cut"), "before tuning"), (("tuned with ladder", "tuned"), "after tuning")
            )
            for across in ("share_of_macs", "latency")
        ]  # fmt: skip
        for plot, (across, scores, title) in zip(axes, panels, strict=True):
            plot.axhline(dense, color="0.6", linewidth=1, label="dense")
            for color, way in enumerate(dict.fromkeys(one["way"] for one in here)):
                for score, style in zip(scores, ("-", ":"), strict=True):
                    points = _points([one for one in here if one["way"] == way and score in one], across, score)
                    if points and not (way.startswith("torch-pruning") and style == "-"):
                        x, y, low, high = zip(*points, strict=True)
                        label = way + (" with the ladder" if style == "-" else "")
                        plot.plot(x, y, style, marker="o", markersize=4, color=f"C{color}", label=label)
                        plot.fill_between(x, low, high, color=f"C{color}", alpha=0.08, linewidth=0)
            plot.set_xlabel(
                "MACs, of the dense net's" if across == "share_of_macs" else "measured latency, of the dense net's"
            )
            plot.set_ylabel("accuracy, %")
            plot.set_title(f"{task}, {title}")
            plot.grid(alpha=0.25)
    handles, labels = all_axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=5, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _points(lines: Sequence[dict[str, Any]], across: str, score: str) -> list[tuple[float, float, float, float]]:
    found = []
    for level in sorted({one["level"] for one in lines}):
        own = compared([one for one in lines if one["level"] == level])
        if own:
            values = [100 * one[score] for one in own]
            middle = mean(values)
            off = stdev(values) if len(values) > 1 else 0.0
            found.append((mean(one[across] for one in own), middle, middle - off, middle + off))
    return found
