"""The one table of the demo, and what it says in a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table

from surgery.demo.outcome import BATCHES, DENSE, HOOKS, RUNTIMES, SLIM, ZEROS, Outcome

MODELS = (DENSE, HOOKS, ZEROS, SLIM)


def table(outcome: Outcome) -> Table:
    """A column per model, a line per thing that counts; at most 80 characters wide."""
    made = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    made.add_column("", no_wrap=True)
    for heading in ("dense", "masked\n(hooks)", "masked\n(zeros)"):
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("slim", justify="right", style="bold", header_style="bold", no_wrap=True)
    made.add_column("masked\n-> slim", justify="right", no_wrap=True)
    made.add_row("right on test digits", *(f"{outcome.accuracy[m]:.1%}" for m in MODELS), _sameness(outcome))
    made.add_row("parameters", *(f"{outcome.params[m]:,}" for m in MODELS), _less(outcome.params))
    millions = (f"{outcome.macs[m] / 1e6:.2f}" for m in MODELS)
    made.add_row("million MACs a picture", *millions, _less(outcome.macs), end_section=True)
    if outcome.benchmark is not None:
        made.add_row("ms a call, on 1 thread")
        for runtime, name in RUNTIMES.items():
            for batch in BATCHES:
                pictures = f"{batch} picture{'s' * (batch > 1)}"
                made.add_row(f"  {name}, {pictures}", *_times(outcome, runtime, batch), _gain(outcome, runtime, batch))
    return made


def legend(outcome: Outcome) -> list[str]:
    """What the columns and lines of the table mean."""
    models = (
        "dense: before masking. hooks: as torch.nn.utils.prune leaves it, masks multiplied in at every call. zeros: "
        "the same, zeros written into the weights. slim: without the dead channels. MACs: multiply-accumulates."
    )
    said = [models]
    if outcome.benchmark is not None:
        said.append(
            "Times are medians of calls in turn. Last column: masked (zeros) over slim; above 1x, slim is faster."
        )
        if any("?" in _gain(outcome, runtime, batch) for runtime in RUNTIMES for batch in BATCHES):
            said.append(
                "A question mark: the times scatter, or something else used the machine; that ratio proves nothing."
            )
    return said


def closing(outcome: Outcome) -> str:
    """The result in words, as it is: also where nothing became faster."""
    if not outcome.passed:
        return "The slim net does NOT compute the same function as the masked one. Please report this as a bug."
    same = (
        f"The slim net computes the same function as the masked one (proven to rounding, and the same answer on all "
        f"{outcome.test_digits} test digits) with {-_change(outcome.params):.0%} fewer parameters"
    )
    ratio = outcome.ratio("onnxruntime", BATCHES[-1])
    if ratio is None:
        return f"{same}. Nothing was timed."
    where = f"in ONNX Runtime at batch {BATCHES[-1]}"
    interval = f"(95% interval {ratio.low:.2f} to {ratio.high:.2f})"
    if ratio.verdict == "faster":
        return f"{same}, and is {ratio.median:.1f} times faster {where} {interval}."
    if ratio.verdict == "too noisy to say":
        doubt = f"Whether it is faster {where} cannot be said {interval}: {ratio.why}"
        return f"{same}. {doubt}. Try again on an idle machine."
    return f"{same}, but it is no faster {where}: {ratio.median:.2f} times {interval}."


def _times(outcome: Outcome, runtime: str, batch: int) -> list[str]:
    """Median milliseconds of each model; a dash where the runtime could not take it."""
    assert outcome.benchmark is not None, "the caller asks only where times were taken"
    rows = {row.model: row for row in outcome.benchmark.cell(runtime, batch=batch).rows}
    return ["-" if rows[m].failure else _three_digits(rows[m].summary().p50_ms) for m in MODELS]


def _gain(outcome: Outcome, runtime: str, batch: int) -> str:
    ratio = outcome.ratio(runtime, batch)
    assert ratio is not None, "the caller asks only where times were taken"
    return f"{ratio.median:.2f}x" + (" ?" if ratio.verdict == "too noisy to say" else "")


def _three_digits(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _sameness(outcome: Outcome) -> str:
    return "same" if outcome.same_predictions == outcome.test_digits else "DIFFERS"


def _less(amount: Mapping[str, int]) -> str:
    return f"{_change(amount):+.0%}"


def _change(amount: Mapping[str, int]) -> float:
    """Slim against masked: -0.4 is 40 % less."""
    return amount[SLIM] / amount[ZEROS] - 1
