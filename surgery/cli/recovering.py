"""`surgery recover`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgery.cli.choices import Loss
from surgery.cli.data import data_of
from surgery.cli.models import before_cut, check_report, naming_factory, note, opened
from surgery.cli.options import MODEL_HELP, Factory, Json, Overwrite, Report, Traceback, Trust
from surgery.cli.outcome import Outcome
from surgery.cli.results import plain
from surgery.errors import InputError

if TYPE_CHECKING:
    from surgery.distilling import Distillation


def recover(
    slim: Annotated[
        Path, typer.Argument(metavar="SLIM_DIR", help="A directory that surgery wrote.", show_default=False)
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="FACTORY or @FILE",
            help="Batches to train on: package.module:factory, which returns a DataLoader or a list of batches, or "
            "@samples.npy, samples along dim 0 (for soft targets alone).",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to save in.", show_default=False)],
    loss: Loss = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help=f"Whose soft targets are learnt from: {MODEL_HELP}")
    ] = None,
    teacher_checkpoint: Annotated[Path | None, typer.Option(help="Weights for the teacher.")] = None,
    temperature: Annotated[float, typer.Option(help="Of the soft targets.")] = 4.0,
    distil_weight: Annotated[float, typer.Option(help="The teacher's share in the loss, from 0 to 1.")] = 0.9,
    feature: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A module whose outputs are to agree with the teacher's. Once per name."),
    ] = None,
    feature_weight: Annotated[float, typer.Option(help="What the features' mean error is multiplied by.")] = 1.0,
    distil_kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Whether outputs are scores of classes, or values that are the answer."),
    ] = None,
    distil_output: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which of several outputs, by name or place.")
    ] = None,
    class_dim: Annotated[int | None, typer.Option(help="On which dim of the outputs the classes lie.")] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="FUNCTION",
            help="package.module:function, called with the model before, after each epoch and after all; returns a "
            "number.",
        ),
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="Of what --evaluate returns, less is better.")
    ] = False,
    epochs: Annotated[int, typer.Option(help="How often all of the data is gone through.")] = 1,
    lr: Annotated[float, typer.Option(help="The learning rate at the start.")] = 1e-3,
    precision: Annotated[str | None, typer.Option(help="float32, bf16 or fp16.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better --evaluate; the best weights stay.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the data's order, and of what is drawn at random.")] = 0,
    checkpoints: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to keep what a killed run goes on from.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from --checkpoints, if there are some.")] = False,
    report: Report = None,
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Train the model in SLIM_DIR back on data, best with the dense one as its teacher."""
    from surgery import recovering
    from surgery.checkpoints import check_free, describe, save
    from surgery.reporting import report as write_report
    from surgery.sources import function_from

    first = int(os.environ.get("RANK", "0")) == 0  # of those that torchrun or accelerate started
    if first:
        check_free(output, overwrite=overwrite)
        check_report(report, output=output, overwrite=overwrite)
    saved = describe(slim)
    note(str(saved))
    batches = _again(data)
    measured_by = None if evaluate is None else function_from(evaluate)
    loss_of = None if loss is None else function_from(loss)
    place = None if distil_output is None else int(distil_output) if distil_output.isdigit() else distil_output
    guide, notes = _teacher(
        teacher,
        teacher_checkpoint,
        factory=factory,
        trust=trust,
        temperature=temperature,
        weight=distil_weight,
        features=feature,
        feature_weight=feature_weight,
        kind=distil_kind,
        output=place,
        class_dim=class_dim,
    )
    with naming_factory(saved):
        result = recovering.recover(
            saved.directory,
            batches,
            loss_of,
            model=before_cut(saved, factory=factory, trust=trust),
            teacher=guide,
            evaluate=measured_by,
            notes=notes,
            higher_is_better=not lower_is_better,
            epochs=epochs,
            lr=lr,
            precision=precision,
            patience=patience,
            seed=seed,
            checkpoints=checkpoints,
            resume=resume,
        )
    if not first:
        return Outcome(f"trained with process 0, which writes {output}", {"command": "recover", "output": None})
    save(result, output, overwrite=overwrite)
    lines = [str(result), f"saved in {output}: {describe(output).told}"]
    if report is not None:
        write_report(report, result=result, saved=output, title=str(slim), overwrite=overwrite)
        lines.append(f"report in {report}")
    told = {
        "command": "recover",
        "model": str(slim),
        "output": str(output),
        "report": None if report is None else str(report),
        **plain(result),
        "training": result.training,
        "fitted": result.fitted.as_dict(),
    }
    return Outcome("\n".join(lines), told)


def _again(spec: str) -> Any:
    """What `--data` names, such that it can be gone through again: a generator is made anew each time."""
    found = data_of(spec)
    return (lambda: data_of(spec)) if isinstance(found, Iterator) else found


def _teacher(
    spec: str | None, checkpoint: Path | None, *, factory: str | None, trust: bool, **settings: Any
) -> tuple[Distillation | None, tuple[str, ...]]:
    """The teacher, and what is to be known of it.

    Raises:
        InputError: Something is said of a teacher, and none is named; or as `opened`.
    """
    from surgery.distilling import Distillation
    from surgery.sources.libraries import RANDOM

    if spec is None:
        options = {"--teacher-checkpoint": checkpoint, "--feature": settings["features"]}
        if given := [option for option, value in options.items() if value]:
            raise InputError(f"{given[0]} is about a teacher, and none is named", "add --teacher MODEL")
        return None, ()
    loaded = opened(spec, checkpoint=checkpoint, trust=trust, factory=factory)
    drawn = any(RANDOM in text for text in loaded.notes)
    notes = (f"the teacher {spec} has random weights, for it was given no --teacher-checkpoint",) if drawn else ()
    return Distillation(loaded.model, name=spec, **settings), notes
