"""What can go wrong, in words: every error gives the fact, the value and the way out."""

from __future__ import annotations


class SurgeryError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        fact: What is the case, with the value (`"checkpoint.pt has no key 'conv1.weight'"`).
        way_out: What the reader can do about it, as one sentence.

    `exit_code` is what the command line returns: 2 for bad usage or input, 1 for a check that failed.
    """

    exit_code = 2

    def __init__(self, fact: str, way_out: str = "") -> None:
        super().__init__(fact, way_out)
        self.fact = fact
        self.way_out = way_out

    def __str__(self) -> str:
        return f"{self.fact}\n  -> {self.way_out}" if self.way_out else self.fact


class InputError(SurgeryError):
    """An argument, a file or a model cannot be used as it is."""


class CaptureError(InputError):
    """`torch.export` could not capture the model, or the model refused the example inputs."""


class PlanError(InputError):
    """A plan does not fit the model that it is applied to, or is not a valid plan."""


class MissingExtraError(InputError):
    """An optional dependency is not installed.

    Args:
        package: The import name that is missing.
        extra: The extra of this project that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"the package {package!r} is not installed", f"pip install 'surgery[{extra}]'")


class CheckError(SurgeryError):
    """A check of ours failed: the two models (or the model and its export) disagree."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """`RuntimeError: mat1 and mat2 shapes cannot be multiplied`."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
