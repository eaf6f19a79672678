"""`surgery.json`: what was cut, what it was cut from, what was proven. Checked against its type and hash when read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from surgery.checkpoints.anatomy import Part
from surgery.checkpoints.directories import MANIFEST, WEIGHTS, bring_back, is_plain
from surgery.errors import InputError, PlanError
from surgery.plans import Plan
from surgery.sources.models import is_library_model

FORMAT_VERSION = 3
"""Format 1 had no digest, and no anatomy, and format 2 one plan alone; they are still read."""

DIGEST = re.compile(rb'"digest"\s*:\s*"([0-9a-f]{64})"')
BLANK = "0" * 64
"""What stands in the place of the digest while it is computed."""

NOT_OURS = "name a directory that surgery.save wrote, or copy it again"


@dataclass(frozen=True)
class Header:
    """The part of the file that every format has."""

    tool: Literal["surgery"]
    format_version: int


@dataclass(frozen=True)
class ExportRecord:
    """A file for another runtime, made of the slim model and kept beside it.

    Attributes:
        format: As `surgery.export` names it.
        parity: How well it agrees with the slim model, as plain data.
        notes: What a reader should know.
    """

    format: str
    parity: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of `surgery.json`.

    Attributes:
        digest: The hash of this file with zeros in the place of the digest.
        weights_sha256: Of `model.safetensors`, in hexadecimal; "" where the weights are in other files.
        files: Every other file that was written, with its hash.
        exports: Which of them are exports.
        plan: The plan, as JSON.
        earlier: Those that were carried out before it, oldest first.
        surgery_version, torch_version: What wrote it.
        source: How the model was named on the command line, None where nobody said.
        source_sha256: The hash of the weights that the model had before the cut, masks applied.
        anatomy: Every module of the slim model.
        transformers: `"plain"` for a directory that `from_pretrained` loads, `"source"` where the config of the model
            before the cut is kept beside the weights, None for other models.
        ties: Names of shared tensors, each with the name under which the tensor is stored.
        buffer_dtypes: The dtypes of buffers that are not stored (`persistent=False`).
        proof: The proof as plain data, None where there was none.
        params_before, params_after: Elements of the parameters.
        macs_before, macs_after: Multiply-accumulates of one call.
        notes: What else the report said.
        training: What was trained after the cut, run by run; the proof is of the cut, before that.
    """

    tool: Literal["surgery"] = "surgery"
    format_version: int = FORMAT_VERSION
    digest: str = BLANK
    weights_sha256: str
    files: Mapping[str, str] = field(default_factory=dict)
    exports: Mapping[str, ExportRecord] = field(default_factory=dict)
    plan: msgspec.Raw
    earlier: tuple[msgspec.Raw, ...] = ()
    surgery_version: str
    torch_version: str
    source: str | None
    source_sha256: str = ""
    anatomy: Mapping[str, Part] | None = None
    transformers: Literal["plain", "source"] | None = None
    ties: Mapping[str, str] = field(default_factory=dict)
    buffer_dtypes: Mapping[str, str] = field(default_factory=dict)
    proof: Mapping[str, Any] | None
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    notes: tuple[str, ...] = ()
    training: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> bytes:
        """The file's bytes."""
        return digested(msgspec.json.encode(self))


@dataclass(frozen=True)
class Saved:
    """A directory that `save` wrote, without its weights."""

    directory: Path
    manifest: Manifest
    plan: Plan
    earlier: tuple[Plan, ...] = ()

    @property
    def plans(self) -> tuple[Plan, ...]:
        """All that was cut, in order."""
        return (*self.earlier, self.plan)

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self.directory / WEIGHTS

    @property
    def plain(self) -> bool:
        """Whether `from_pretrained` of transformers loads the directory, without a plan."""
        return self.manifest.transformers == "plain"

    @property
    def told(self) -> str:
        """How it is loaded, in words."""
        kind = self.manifest.transformers
        if kind == "plain":
            return "a transformers directory, which from_pretrained loads"
        call = f'surgery.load("{self.directory}")'
        if kind == "source":
            return f"{call} loads it (its widths are more than a config can say: --uniform makes such as it can)"
        if self.manifest.source is not None and is_library_model(self.manifest.source):
            return f"{call} loads it"
        return f'surgery.load("{self.directory}", model) loads it, on the model as it was before the cut'

    def __str__(self) -> str:
        m = self.manifest
        source = f", made from {m.source}" if m.source else ""
        passed = "not proven" if m.proof is None else "proven" if m.proof.get("passed") is True else "NOT proven"
        trained = ", then trained" if m.training else ""
        return (
            f"{self.directory}: parameters {m.params_before:,} -> {m.params_after:,}, "
            f"macs {m.macs_before:,} -> {m.macs_after:,}, {passed}{trained}{source} (surgery {m.surgery_version})"
        )


def describe(directory: str | Path) -> Saved:
    """What a saved directory holds, from its `surgery.json` alone; the weights are not looked at.

    Raises:
        InputError: No such directory, not written by `save`, a newer format, or a damaged `surgery.json`.
    """
    directory = Path(directory)
    bring_back(directory)
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
        if header.format_version > 1 and digested(text) != text:
            raise ValueError("it was changed after it was written: its digest is not that of its text")
        manifest = msgspec.json.decode(text, type=Manifest)
        if odd := [name for name in manifest.files if not is_plain(name)]:
            raise ValueError(f"the file name {odd[0]!r} leads out of the directory")
        plan, *earlier = (Plan.from_json(bytes(one)) for one in (manifest.plan, *manifest.earlier))
    except PlanError as error:
        raise InputError(f"the plan in {str(path)!r} is damaged: {error.fact}", NOT_OURS) from error
    except (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is damaged: {error}", NOT_OURS) from error
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}", "check the permissions") from error
    return Saved(directory, manifest, plan, tuple(earlier))


def digested(text: bytes) -> bytes:
    """The text of a manifest with its own hash in it.

    Raises:
        ValueError: It has no place for one.
    """
    found = DIGEST.search(text)
    if found is None:
        raise ValueError("it has no digest")
    before, after = text[: found.start(1)], text[found.end(1) :]
    return before + hashlib.sha256(before + BLANK.encode() + after).hexdigest().encode() + after
