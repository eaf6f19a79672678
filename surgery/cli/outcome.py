"""What a command hands back: the same result for people and for programs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DONE, BAD_USAGE, INTERNAL, INTERRUPTED = 0, 2, 70, 130
"""Exit codes, beside 1 for a check that failed."""

FLAGS = {
    "overwrite=True": "--overwrite",
    "flush_subnormals=True": "--flush-subnormals",
    "prove=False": "--no-prove",
    "any_machine=True": "--any-machine",
    "agreement='any'": "--agreement any",
    "dynamic_shapes={}": "--static",
    "dynamic_shapes": "--dynamic",
    "trust=True": "--trust",
    "pass data= or example_inputs=": "pass --data or --input",
    "pass evaluate=, or data= (and loss=)": "pass --evaluate, or --data (and --loss)",
    "pass data=": "pass --data",
    "pass loss=": "pass --loss",
    "pass evaluate=": "pass --evaluate",
    "pass checkpoints=": "pass --checkpoints",
    "resume=True": "--resume",
    "Distillation(..., kind='classes' or 'values')": "--distil-kind classes or values",
    "Distillation(..., output=...)": "--distil-output",
    "Distillation(..., output=NAME)": "--distil-output NAME",
    "Distillation(..., class_dim=...)": "--class-dim",
    "method='dynamic'": "--method dynamic",
    "min_cosine=": "--min-cosine ",
}
"""How the command line writes what the package's own sentences say in Python."""


@dataclass(frozen=True)
class Outcome:
    """The result of a command.

    Attributes:
        text: For people, on stdout.
        data: For `--json`, on stdout instead.
        exit_code: 0 done, 1 a check failed, 130 interrupted with a part of it done.
    """

    text: str
    data: Mapping[str, Any]
    exit_code: int = 0


def as_flags(text: str) -> str:
    """A sentence with the command line's flags in the place of Python's arguments."""
    pattern = "|".join(re.escape(argument) for argument in FLAGS)
    return re.sub(pattern, lambda match: FLAGS[match[0]], text)
