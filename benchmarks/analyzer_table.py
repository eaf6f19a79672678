"""The README's tables about the analysis, from the raw samples of `benchmarks.analyzer`."""

from __future__ import annotations

import statistics
from typing import Any

import msgspec

from benchmarks.analyzer import Timed
from benchmarks.growth import grown
from benchmarks.memory import DOORS, over_model
from benchmarks.stages import CHECK, OURS


def table(facts: dict[str, Any]) -> str:
    """Time and growth, then memory, as markdown; a part that was not measured is left out."""
    parts = [time_table(facts["time"])] if "time" in facts else []
    parts += [memory_table(facts["memory"])] if "memory" in facts else []
    return "\n\n".join(parts)


def time_table(facts: dict[str, Any]) -> str:
    """A line per net; below it the growth within families."""
    nets = msgspec.convert(facts["nets"], list[Timed])
    ratios = [net.ratio for net in nets]
    ahead = sum(ratio.low > 1 for ratio in ratios)
    behind = sum(ratio.high < 1 for ratio in ratios)
    headline = (
        "Half of every group masked, then our capture to cut beside the graph and the step of torch-pruning "
        f"{facts['torch_pruning']} on the same net ({facts['size']} x {facts['size']}, one thread, interleaved, "
        f"medians): we are faster on {ahead} of {len(nets)} nets, slower on {behind}. The {CHECK}, which only the "
        "check of the result needs, comes on top of ours."
    )
    lines = [
        headline,
        "",
        f"| net | ours | of which {' + '.join(OURS)} | {CHECK} | torch-pruning | times faster (95 % interval) |",
        "|---|---|---|---|---|---|",
    ]
    for net, ratio in zip(nets, ratios, strict=True):
        stages = " + ".join(f"{net.median_ms(name):.0f}" for name in OURS)
        ours, theirs = statistics.median(net.ours_ms), statistics.median(net.theirs_ms)
        lines.append(
            f"| {net.net} | {ours:.0f} ms | {stages} | {net.median_ms(CHECK):.0f} ms | {theirs:.0f} ms "
            f"| {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) |"
        )
    growth = [
        f"from {family.members[0].net} to {family.members[-1].net} as the parameters to the power of "
        f"{family.by_params:.2f}, and as the ops to the power of {family.by_ops:.2f}"
        for family in grown(nets)
    ]
    if growth:
        lines += ["", f"Our time grows {'; '.join(growth)}. A power of 1 is linear."]
    lines += ["", f"Measured on {facts['machine']}."]
    return "\n".join(lines)


def memory_table(facts: dict[str, Any]) -> str:
    """A line per net, a column per door."""
    by_net: dict[str, dict[str, dict[str, Any]]] = {}
    for figure in facts["figures"]:
        by_net.setdefault(figure["net"], {})[figure["door"]] = figure
    lines = [
        "Peak memory above the loaded model, in a fresh process and without the proof, over the model's own size:",
        "",
        f"| net | size | {' | '.join(DOORS)} |",
        "|---|---|" + "---|" * len(DOORS),
    ]
    for net, figures in by_net.items():
        size = next(iter(figures.values()))["runs"][0]["model_bytes"] / 1e6
        cells = " | ".join(f"{over_model(figures[door]):.2f}" if door in figures else "" for door in DOORS)
        lines.append(f"| {net} | {size:.0f} MB | {cells} |")
    return "\n".join(lines)
