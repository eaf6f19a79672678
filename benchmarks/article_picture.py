"""The results of `benchmarks.article` as two pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.article_curves import CURVES, STEP, at_level
from benchmarks.article_table import at, levels_of, placed

MARKS = "osD^vP*X<>h"

CLOSE_UP = 3.0
"""Percent below the dense net, that the second panel shows."""


def pictures(facts: Mapping[str, Any], beside: Path) -> list[tuple[Path, str]]:
    """Draw both, beside a file of results; each with what it shows."""
    import matplotlib as mpl

    mpl.use("Agg")
    curves, things = (beside.with_name(f"{beside.stem}_{name}.png") for name in ("curves", "things"))
    _curves(facts, curves)
    _things(facts, things)
    return [
        (curves, "Accuracy against the share of the weights that is gone"),
        (things, "Accuracy against measured latency"),
    ]


def _curves(facts: Mapping[str, Any], path: Path) -> None:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(14, 5))
    levels = levels_of(facts)
    right = [100 * one["accuracy"] for one in facts["dense"]]
    off = stdev(right) if len(right) > 1 else 0.0
    for axes in panels:
        axes.axhline(mean(right), color="0.5", linewidth=1, label="dense")
        axes.axhspan(mean(right) - off, mean(right) + off, color="0.5", alpha=0.12, linewidth=0)
        for number, (curve, name) in enumerate(CURVES.items()):
            values = [[100 * one for one in at_level(facts["points"], curve, level).values()] for level in levels]
            axes.errorbar(
                [level + 0.06 * (number - 2) for level in levels],
                [mean(one) for one in values],
                [stdev(one) if len(one) > 1 else 0.0 for one in values],
                marker=MARKS[number], markersize=5, linestyle=":" if curve == "one-shot, long" else "-", capsize=2,
                label=name,
            )  # fmt: skip
        axes.set_xticks(levels, [f"{100 * (1 - STEP**-level):.3g} %\n{STEP**level:.3g}×" for level in levels])
        axes.set_xlabel("weights gone; times fewer")
        axes.set_ylabel("accuracy, %")
        axes.grid(alpha=0.25)
    panels[1].set_ylim(mean(right) - CLOSE_UP, min(mean(right) + CLOSE_UP / 3, 100))
    panels[0].set_title(f"{facts['data']}: pruning by magnitude, over all layers")
    panels[1].set_title("the same, near the dense net")
    panels[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _things(facts: Mapping[str, Any], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9.5, 5.5))
    for number, way in enumerate(dict.fromkeys(line["way"] for line in facts["things"])):
        points: list[tuple[float, float, float]] = []
        for share in dict.fromkeys(line["share"] for line in facts["things"] if line["way"] == way):
            latency, accuracy = placed(facts, way, share), [100 * one for one in at(facts, way, share)]
            points.append((mean(latency), mean(accuracy), stdev(accuracy) if len(accuracy) > 1 else 0.0))
        x, y, off = zip(*sorted(points), strict=True)
        axes.errorbar(
            x, y, off, marker=MARKS[number % len(MARKS)], markersize=6, capsize=2, linewidth=1, label=way,
            color=f"C{number % 10}", linestyle="-" if len(x) > 1 else "none",
        )  # fmt: skip
    axes.set_xscale("log")
    ticks = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
    axes.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(0.8 * min(line["latency"] for line in facts["things"]), 1.3)
    axes.set_xlabel("measured latency, of the dense net's in eager mode (logarithmic)")
    axes.set_ylabel("accuracy, %")
    axes.set_title(f"{facts['data']}: what to try, batch {facts['batch']}, one thread")
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
