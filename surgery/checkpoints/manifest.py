"""`surgery.json`: what was cut, what it was cut from, and what was proven. Checked against its type when read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from surgery.checkpoints.directories import MANIFEST, WEIGHTS, recover
from surgery.errors import InputError, PlanError
from surgery.plans import Plan

FORMAT_VERSION = 1
NOT_OURS = "name a directory that surgery.save wrote, or copy it again"


@dataclass(frozen=True)
class Header:
    """The part of the file that every format has."""

    tool: Literal["surgery"]
    format_version: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of `surgery.json`.

    Attributes:
        weights_sha256: Of `model.safetensors`, in hexadecimal.
        plan: The plan, as JSON.
        surgery_version, torch_version: What wrote it.
        source: How the model was named on the command line, None where nobody said.
        ties: Names of shared tensors, each with the name under which the tensor is stored.
        buffer_dtypes: The dtypes of buffers that are not stored (`persistent=False`).
        proof: The proof as plain data, None where there was none.
        params_before, params_after: Elements of the parameters.
        macs_before, macs_after: Multiply-accumulates of one call.
        notes: What else the report said.
    """

    tool: Literal["surgery"] = "surgery"
    format_version: int = FORMAT_VERSION
    weights_sha256: str
    plan: msgspec.Raw
    surgery_version: str
    torch_version: str
    source: str | None
    ties: Mapping[str, str] = field(default_factory=dict)
    buffer_dtypes: Mapping[str, str] = field(default_factory=dict)
    proof: Mapping[str, Any] | None
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """The file's bytes."""
        return msgspec.json.encode(self)


@dataclass(frozen=True)
class Saved:
    """A directory that `save` wrote, without its weights."""

    directory: Path
    manifest: Manifest
    plan: Plan

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self.directory / WEIGHTS

    def __str__(self) -> str:
        m = self.manifest
        source = f", made from {m.source}" if m.source else ""
        passed = "not proven" if m.proof is None else "proven" if m.proof.get("passed") is True else "NOT proven"
        return (
            f"{self.directory}: parameters {m.params_before:,} -> {m.params_after:,}, "
            f"macs {m.macs_before:,} -> {m.macs_after:,}, {passed}{source} (surgery {m.surgery_version})"
        )


def describe(directory: str | Path) -> Saved:
    """What a saved directory holds, from its `surgery.json` alone; the weights are not looked at.

    Raises:
        InputError: No such directory, not written by `save`, a newer format, or a damaged `surgery.json`.
    """
    directory = Path(directory)
    recover(directory)
    path = directory / MANIFEST
    if not directory.is_dir():
        raise InputError(f"there is no directory {str(directory)!r}", NOT_OURS)
    if not path.is_file():
        raise InputError(f"the directory {str(directory)!r} has no {MANIFEST}: surgery did not write it", NOT_OURS)
    try:
        text = path.read_bytes()
        header = msgspec.json.decode(text, type=Header)
        if header.format_version > FORMAT_VERSION:
            raise InputError(
                f"{str(path)!r} has format {header.format_version}, this version reads up to {FORMAT_VERSION}",
                "upgrade surgery",
            )
        manifest = msgspec.json.decode(text, type=Manifest)
        plan = Plan.from_json(bytes(manifest.plan))
    except PlanError as error:
        raise InputError(f"the plan in {str(path)!r} is damaged: {error.fact}", NOT_OURS) from error
    except (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is damaged: {error}", NOT_OURS) from error
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}", "check the permissions") from error
    return Saved(directory, manifest, plan)
