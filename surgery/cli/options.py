"""The options that several commands share, as types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = (
    "package.module:factory, timm:NAME, torchvision:NAME, a transformers directory, or a directory that surgery wrote."
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
_INPUT = typer.Option(
    "--input",
    metavar="[NAME=]SHAPE",
    help="An example input: 1x3x224x224, input_ids=1x128:int64[0,999], or image=@batch.npy. Once per input.",
    show_default=False,
)
Inputs = Annotated[list[str], _INPUT]
SomeInputs = Annotated[list[str] | None, _INPUT]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="Weights for MODEL: .safetensors, .pt, .pth, .bin or .ckpt; nothing in it is executed."),
]
StripPrefix = Annotated[
    str, typer.Option(metavar="PREFIX", help="Taken off the names in the checkpoint; others are left out.")
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Allow the code inside a transformers directory, or in a .pt or .pt2 file to verify, to run."
    ),
]
Factory = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="What a directory that surgery wrote was made from, before it was shrunk; not needed for library models.",
    ),
]
RoundTo = Annotated[int, typer.Option(metavar="N", help="Keep widths at multiples of N.")]
Uniform = Annotated[
    bool,
    typer.Option(
        "--uniform",
        help="Keep the same part of every layer as wide; a transformers model then loads with from_pretrained.",
    ),
]
KeepClass = Annotated[
    bool,
    typer.Option(
        "--keep-class", help="Leave whole what the model's code insists on: no rewritten method, no captured graph."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the file that is there, or the directory that surgery wrote.")
]
PlanOutput = Annotated[Path | None, typer.Option("--output", "-o", help="The JSON file to write the plan to.")]
Report = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write a page of the result: one HTML file that needs nothing beside it."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show Python's traceback with an error.")]
NoProve = Annotated[bool, typer.Option("--no-prove", help="Hand the slim model over unproven.")]
SlimOutput = Annotated[Path | None, typer.Option("--output", "-o", help="The directory to save in.")]
Export = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FORMAT",
        help="Keep an export of the slim model there, checked: onnx, torchscript, pt2 or aoti. Once each.",
    ),
]
