"""The results of `benchmarks.article` as tables: the curves, the list of things to try, and which claims held."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from benchmarks.article_curves import CURVES, STEP, at_level
from surgery.latency import Benchmark, Ratio

Facts = Mapping[str, Any]


def table(facts: Facts) -> str:
    """All three tables, and how they came about."""
    seeds = len(facts["dense"])
    many = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    right = spread([one["accuracy"] for one in facts["dense"]])
    how = (
        f"{facts['data']}: {facts['train']:,} pictures to learn from, {facts['test']:,} held back (one is "
        f"{100 / facts['test']:.2g} %). Accuracy in %, {many}; dense {right}. Trained {facts['epochs']} epochs from "
        f"the start, tuned {facts['tuning']} after each pruning. Latency of a batch of {facts['batch']} on one thread, "
        "over the dense net's in eager mode: all nets of a runtime interleaved, runtimes in processes of their own. "
        "Sizes are of tensors or int8 files; of masked weights, compressed."
    )
    made = f"Made on {facts['machine']}; `python -m benchmarks.article`."
    return "\n\n".join([how, *_parts(facts), made])


def _parts(facts: Facts) -> Iterator[str]:
    yield "\n".join(["| the article says | here | figures |", "|---|---|---|", *map(_row, claims(facts))])
    yield _curves(facts)
    yield _things(facts)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation of shares, in percent."""
    middle = f"{100 * mean(values):.2f}"
    return f"{middle} ± {100 * stdev(values):.2f}" if len(values) > 1 else middle


def levels_of(facts: Facts) -> list[int]:
    """The levels of the curves, in order."""
    return sorted({one["level"] for one in facts["points"]})


def _curves(facts: Facts) -> str:
    levels = levels_of(facts)
    head = ["weights gone", *(f"{100 * (1 - STEP**-level):.3g} % ({STEP**level:.3g}×)" for level in levels)]
    lines = [_row(head), "|---" * len(head) + "|"]
    for curve, name in CURVES.items():
        lines.append(_row([name, *(spread(list(at_level(facts["points"], curve, one).values())) for one in levels)]))
    return "\n".join(lines)


def at(facts: Facts, way: str, share: float | None) -> list[float]:
    """The accuracies of one thing, a seed each."""
    return [line["accuracy"] for line in facts["things"] if line["way"] == way and line["share"] == share]


def placed(facts: Facts, way: str, share: float | None) -> list[float]:
    """The latencies of one thing over the dense net's in eager mode, a seed each."""
    return [line["latency"] for line in facts["things"] if line["way"] == way and line["share"] == share]


def benchmarks_of(facts: Facts) -> list[Benchmark]:
    """What was timed, a seed each."""
    return [Benchmark.from_json(json.dumps(one["benchmark"])) for one in facts["benchmarks"]]


def _things(facts: Facts) -> str:
    lines = ["| what to try | runtime | MACs asked for | latency | accuracy | size |", "|---|---|---|---|---|---|"]
    for way, share in dict.fromkeys((line["way"], line["share"]) for line in facts["things"]):
        own = [line for line in facts["things"] if line["way"] == way and line["share"] == share]
        size = f"{mean(line['size_bytes'] for line in own) / 1e3:,.0f} kB"
        asked = "" if share is None else f"{share:.0%}"
        speed = f"{mean(placed(facts, way, share)):.3f}"
        lines.append(_row([way, own[0]["runtime"], asked, speed, spread(at(facts, way, share)), size]))
    return "\n".join(lines)


def claims(facts: Facts) -> list[tuple[str, str, str]]:
    """Each claim, whether it held here, and by which figures."""
    timed = benchmarks_of(facts)
    found = [*_of_curves(facts), *_of_masks(timed), *_of_cuts(facts, timed), *_winners(facts)]
    return [(claim, "held" if held else "**did not hold**", figures) for claim, held, figures in found]


def no_worse(differences: Sequence[float], one: float) -> bool:
    """Whether differences of accuracy, a seed each, are no loss on average: within their spread, or one sample."""
    return mean(differences) >= -max(stdev(differences) if len(differences) > 1 else 0.0, one)


def _apart(facts: Facts, first: str, second: str, level: int) -> list[float]:
    """Accuracy of one curve less that of another, a seed each."""
    a, b = (_by_seed(facts, curve, level) for curve in (first, second))
    return [a[seed] - b[seed] for seed in a]


def _by_seed(facts: Facts, curve: str, level: int) -> dict[int, float]:
    if curve == "dense":
        return {one["seed"]: one["accuracy"] for one in facts["dense"]}
    return at_level(facts["points"], curve, level)


def _signed(differences: Sequence[float]) -> str:
    return f"{100 * mean(differences):+.2f}"


def _of_curves(facts: Facts) -> Iterator[tuple[str, bool, str]]:
    one, levels = 1 / facts["test"], levels_of(facts)
    losses = {level: _apart(facts, "one-shot", "dense", level) for level in levels}
    without = [level for level in levels if no_worse(losses[level], one)]
    first_loss = next((level for level in levels if level not in without), None)
    most = levels[-1] if first_loss is None else first_loss - 1
    told = f"{STEP**most:.3g}× fewer without loss" if most else "no level without loss"
    told += "" if first_loss is None else f"; {STEP**first_loss:.3g}×: {_signed(losses[first_loss])} % against dense"
    yield "magnitude pruning: 3× fewer parameters without loss", most >= 2, told
    for claim, first, second, both in (
        ("iterative pruning is at least as good as one-shot", "iterative", "one-shot", False),
        ("... also where one-shot is tuned as long", "iterative", "one-shot, long", False),
        ("a lottery ticket is as good as iterative pruning", "ticket", "iterative", True),
        ("a ticket from a mask found once works from the start", "mask", "ticket", False),
    ):
        apart = {level: _apart(facts, first, second, level) for level in levels}
        bad = [
            level for level, differences in apart.items()
            if not no_worse(differences, one) or (both and not no_worse([-value for value in differences], one))
        ]  # fmt: skip
        where = "" if not bad else "; not at " + ", ".join(f"{STEP**level:.3g}×" for level in bad)
        figures = ", ".join(f"{STEP**level:.3g}× {_signed(apart[level])}" for level in levels[1::2])
        yield claim, not bad, f"{CURVES[first]} less {CURVES[second]}, %: {figures}{where}"


def _ratios(timed: Sequence[Benchmark], first: str, second: str, runtime: str) -> list[Ratio]:
    return [one.ratio(first, second, runtime=runtime, batch=one.cell(runtime).batch) for one in timed]


def _times(ratios: Sequence[Ratio]) -> str:
    """A ratio, mean over the seeds, with the widest of their intervals."""
    low, high = min(one.low for one in ratios), max(one.high for one in ratios)
    return f"{mean(one.median for one in ratios):.3g} ({low:.3g} to {high:.3g})"


def _of_masks(timed: Sequence[Benchmark]) -> Iterator[tuple[str, bool, str]]:
    baked = {one: _ratios(timed, "dense", "baked", one) for one in ("eager", "torchscript", "onnxruntime")}
    faster = [one for one, ratios in baked.items() if all(r.verdict == "faster" for r in ratios)]
    told = ", ".join(f"{runtime} {_times(ratios)}" for runtime, ratios in baked.items())
    yield "masked weights are no faster", not faster, f"dense over masked and baked: {told}"
    hooks = _ratios(timed, "dense", "hooks", "eager")
    yield (
        "with the hooks of the masks slower",
        all(r.verdict == "slower" for r in hooks),
        (f"dense over masked with hooks: eager {_times(hooks)}"),
    )


def _of_cuts(facts: Facts, timed: Sequence[Benchmark]) -> Iterator[tuple[str, bool, str]]:
    shares = sorted({line["share"] for line in facts["things"] if line["share"] is not None}, reverse=True)
    for share in shares:
        found = {
            runtime: _ratios(timed, f"masked channels {share}", f"their cut {share}", runtime)
            for runtime in ("eager", "torchscript", "onnxruntime")
        }
        held = all(ratio.verdict == "faster" for ratios in found.values() for ratio in ratios)
        told = ", ".join(f"{runtime} {_times(ratios)}" for runtime, ratios in found.items())
        yield (
            f"zero channels removed for good are faster ({share:.0%} of the MACs left)",
            held,
            f"masked over cut: {told}",
        )


BUDGETS = (0.5, 0.2, 0.1, 0.05, 0.03, 0.02)
"""Latencies, as shares of the dense net's in eager mode."""


def _winners(facts: Facts) -> Iterator[tuple[str, bool, str]]:
    """Which thing is the fastest without loss, and which is best within each latency."""
    ways = list(dict.fromkeys((line["way"], line["share"]) for line in facts["things"]))
    right = [one["accuracy"] for one in facts["dense"]]
    points, free = [], []
    for way, share in ways:
        took, own = mean(placed(facts, way, share)), at(facts, way, share)
        name = way if share is None else f"{way} {share:.0%}"
        points.append((mean(own), took, name))
        if no_worse([a - b for a, b in zip(own, right, strict=True)], 1 / facts["test"]):
            free.append((took, way, f"{name} ({100 * mean(own):.2f} at {took:.3f})"))
    told = []
    for budget in BUDGETS:
        inside = [one for one in points if one[1] <= budget]
        if inside:
            accuracy, took, name = max(inside)
            told.append(f"within {budget:.0%}: {name} ({100 * accuracy:.2f} at {took:.3f})")
    _, way, first = min(free)
    claim = "pruning, distillation and int8 together are the fastest without loss"
    yield claim, way == "prune + distil + int8", f"without loss: {first}; {'; '.join(told)}"
