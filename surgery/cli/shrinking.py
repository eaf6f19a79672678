"""`surgery shrink`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgery.cli.models import check_report, inputs_of, opened
from surgery.cli.options import (
    Checkpoint,
    Factory,
    Inputs,
    Json,
    KeepClass,
    Model,
    Overwrite,
    Report,
    RoundTo,
    StripPrefix,
    Traceback,
    Trust,
    Uniform,
)
from surgery.cli.outcome import Outcome
from surgery.errors import InputError

if TYPE_CHECKING:
    from surgery.results import Result


FORMATS = "onnx, torchscript, pt2 or aoti"


def shrink(
    model: Model,
    inputs: Inputs,
    checkpoint: Checkpoint = None,
    strip_prefix: StripPrefix = "",
    keep_masks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Masks by parameter or module name; what is not 0 stays.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan of `surgery choose`: mask what it names first.")] = None,
    tolerance: Annotated[
        float, typer.Option(help="Set weights up to this magnitude to zero first; that changes the function.")
    ] = 0.0,
    flush_subnormals: Annotated[
        bool, typer.Option("--flush-subnormals", help="Set subnormal weights to zero first.")
    ] = False,
    round_to: RoundTo = 1,
    uniform: Uniform = False,
    keep_class: KeepClass = False,
    no_prove: Annotated[bool, typer.Option("--no-prove", help="Hand the slim model over unproven.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The directory to save in.")] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(metavar="FORMAT", help=f"Keep an export of the slim model there, checked: {FORMATS}. Once each."),
    ] = None,
    report: Report = None,
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Remove every channel that is dead in MODEL, and prove that the function is the same."""
    from surgery import shrinking
    from surgery.checkpoints import check_free, describe, save
    from surgery.exporting import export as write
    from surgery.exporting.table import target_for
    from surgery.plans import Plan
    from surgery.reporting import report as write_report
    from surgery.sources import read_weights

    files = {form: f"model{target_for(Path(), form).suffixes[0]}" for form in export or ()}
    if output is not None:
        check_free(output, overwrite=overwrite, source=model)
    elif files:
        raise InputError("--export keeps a file in the directory that --output names", "add --output DIRECTORY")
    check_report(report, output=output, overwrite=overwrite)
    masks = None if keep_masks is None else {n: t.bool() for n, t in read_weights(keep_masks).tensors.items()}
    args, kwargs = inputs_of(inputs)
    chosen = None if plan is None else Plan.read(plan)
    loaded = opened(model, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory)
    result = shrinking.shrink(
        loaded.model if chosen is None else chosen.mask(loaded.model),
        args,
        kwargs,
        keep_masks=masks,
        tolerance=tolerance,
        flush_subnormals=flush_subnormals,
        round_to=round_to,
        uniform=uniform,
        prove=not no_prove,
        keep_class=keep_class,
    )
    lines, exported = [str(result)], []
    if output is not None:
        with tempfile.TemporaryDirectory(prefix="surgery-") as place:
            exported = [
                write(result.model, Path(place) / file, args, kwargs, format=form) for form, file in files.items()
            ]
            save(result, output, source=model, exports=exported, overwrite=overwrite)
        lines += [f"  {one.path.name}: {one.parity}" for one in exported]
        lines.append(f"saved in {output}: {describe(output).told}")
    exported = [replace(one, path=output / one.path.name) for one in exported if output is not None]
    if report is not None:
        write_report(report, result=result, exports=exported, saved=output, title=model, overwrite=overwrite)
        lines.append(f"report in {report}")
    kept = [one.as_dict() | {"path": one.path.name} for one in exported]
    data = {
        "command": "shrink",
        "model": model,
        "output": _path(output),
        "report": _path(report),
        "exports": kept,
        **_data(result),
    }
    return Outcome("\n".join(lines), data)


def _data(result: Result) -> dict[str, Any]:
    """A result as plain data, without the model."""
    plan = result.plan
    return {
        "kind": result.kind,
        "params_before": result.params_before,
        "params_after": result.params_after,
        "macs_before": result.macs_before,
        "macs_after": result.macs_after,
        "removed_channels": plan.removed_channels,
        "groups": plan.groups,
        "folds": len(plan.folds),
        "carriers": len(plan.carries),
        "proof": result.proof,
        "notes": result.notes,
    }


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
