"""What `choose` and `prune` share: how much is to stay, and what a channel is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from surgery.errors import InputError

AMOUNTS = "0.5, 50%, 3500000 or 3.5M."

DEFAULT = "l2"
"""The importance that nobody has to name."""

KeepRatio = Annotated[
    float | None,
    typer.Option(
        "--keep-ratio",
        "--keep",
        help="The share of channels that stays, of each group (of all, with --global); 0.5 by default.",
    ),
]
Params = Annotated[str | None, typer.Option(metavar="AMOUNT", help=f"The most parameters: {AMOUNTS}")]
Macs = Annotated[str | None, typer.Option(metavar="AMOUNT", help=f"The most MACs of a call: {AMOUNTS}")]
Size = Annotated[str | None, typer.Option(metavar="AMOUNT", help="The most bytes of weights: 0.5, 50%, 20MB or 20MiB.")]
Importance = Annotated[
    str,
    typer.Option(
        help="By weights l1, l2, bn_scale, fpgm, lamp, random; over --data taylor, hessian, obdc, wanda, variance; "
        "or package.module:name, a function of the model or a criterion of torch-pruning."
    ),
]
Loss = Annotated[
    str | None,
    typer.Option(
        metavar="FUNCTION",
        help="A function of (outputs, targets): torch.nn.functional:cross_entropy, or your own. Not needed where "
        "the model's output has a loss.",
    ),
]
Sensitivity = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Scores as surgery sensitivity measured and saved them, in the place of --importance; best with --global.",
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(metavar="AMOUNT", help="The time of a call, measured: 0.5 or 50% of the dense model's, 12ms, 800us."),
]
Runtime = Annotated[str, typer.Option(help="Where --latency counts: a runtime of `surgery bench`.")]
Threads = Annotated[int, typer.Option(help="How many threads it has there.")]
Rounding = Annotated[
    int | None,
    typer.Option("--round-to", help="Widths are multiples of this; 1, but for --latency 8 where that will do."),
]
Global = Annotated[
    bool | None,
    typer.Option(
        "--global/--same-share",
        help="One ranking over all groups, or the same share of each; by default the latter, but for --latency what "
        "loses least per millisecond.",
    ),
]
Protect = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A module or tensor whose shapes stay; * for any text. Once per name."),
]
MinKeep = Annotated[
    str, typer.Option(metavar="N", help="At least so many channels of each group stay, or (0.1) such a share.")
]
Depth = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="So many whole blocks of a residual net go first, or (0.25) such a share of them: those without which the "
        "outputs over --data change least, or, without, whose last weights are smallest.",
    ),
]
Seed = Annotated[int, typer.Option(help="Of what is drawn at random.")]


def settings_of(
    *,
    keep_ratio: float | None,
    params: str | None,
    macs: str | None,
    size: str | None,
    latency: str | None,
    runtime: str,
    threads: int,
    importance: str,
    sensitivity: Path | None,
    loss: str | None,
    global_: bool | None,
    protect: list[str] | None,
    min_keep: str,
    round_to: int | None,
    uniform: bool,
    keep_class: bool,
    depth: str | None,
    seed: int,
) -> dict[str, Any]:
    """The words of the command line as `surgery.choose` takes them, but for the data.

    Raises:
        InputError: A function cannot be found, `--min-keep` or `--depth` is no number, or a file holds no sensitivity.
    """
    from surgery.sources import function_from

    return {
        "keep_ratio": keep_ratio,
        "params": params,
        "macs": macs,
        "size_bytes": size,
        "latency": latency,
        "runtime": runtime,
        "threads": threads,
        "importance": importance_of(importance) if sensitivity is None else _measured(sensitivity, importance),
        "loss": None if loss is None else function_from(loss),
        "global_": global_,
        "protect": protect or (),
        "min_keep": _number("--min-keep", min_keep, "a whole number of channels"),
        "round_to": round_to,
        "uniform": uniform,
        "keep_class": keep_class,
        "depth": None if depth is None else _number("--depth", depth, "a whole number of blocks"),
        "seed": seed,
    }


def importance_of(text: str) -> Any:
    """What `--importance` names: a name of ours, or a function or criterion of the user's.

    Raises:
        InputError: It cannot be found.
    """
    from surgery.sources import function_from

    return function_from(text) if ":" in text else text


def _measured(path: Path, importance: str) -> Any:
    """The scores of a saved sensitivity."""
    from surgery.sensitivities import Sensitivity as Saved

    if importance != DEFAULT:
        fact = f"two importances were given: {importance} and {str(path)!r}"
        raise InputError(fact, "leave one of --importance and --sensitivity out")
    return Saved.read(path)


def _number(option: str, text: str, count: str) -> int | float:
    """A count where it is written as one, else a share."""
    try:
        return int(text) if text.strip().isdigit() else float(text)
    except ValueError as error:
        raise InputError(f"{option} is {text!r}", f"give {count}, or a share such as 0.1") from error
