"""Where a slim model goes: a directory with its exports, and a report page; and what of it is printed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.cli.models import check_report
from surgery.errors import InputError

if TYPE_CHECKING:
    from surgery.results import Result
    from surgery.sensitivities import Sensitivity


@dataclass(frozen=True)
class Destination:
    """What `--output`, `--export` and `--report` ask for, checked before any work is done.

    Attributes:
        output: The directory to save in, or None.
        files: By format, the name of the export in it.
        report: The page to write, or None.
        overwrite: Replace what is there.
        source: MODEL.
    """

    output: Path | None
    files: Mapping[str, str]
    report: Path | None
    overwrite: bool
    source: str

    @staticmethod
    def of(
        output: Path | None, export: Sequence[str] | None, report: Path | None, *, overwrite: bool, source: str
    ) -> Destination:
        """The destination.

        Raises:
            InputError: A place is taken or cannot be written, or a format is unknown.
        """
        from surgery.checkpoints import check_free
        from surgery.exporting.table import target_for

        files = {form: f"model{target_for(Path(), form).suffixes[0]}" for form in export or ()}
        if output is not None:
            check_free(output, overwrite=overwrite, source=source)
        elif files:
            raise InputError("--export keeps a file in the directory that --output names", "add --output DIRECTORY")
        check_report(report, output=output, overwrite=overwrite)
        return Destination(output, files, report, overwrite, source)

    def written(
        self,
        result: Result,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        sensitivity: Sensitivity | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """Write everything: `(what to print, where it is as plain data)`; the page shows a sensitivity, too."""
        from surgery.checkpoints import describe, save
        from surgery.exporting import export as write
        from surgery.reporting import report as write_report

        lines, exported = [str(result)], []
        if self.output is not None:
            with tempfile.TemporaryDirectory(prefix="surgery-") as place:
                exported = [
                    write(result.model, Path(place) / file, args, kwargs, format=form)
                    for form, file in self.files.items()
                ]
                save(result, self.output, source=self.source, exports=exported, overwrite=self.overwrite)
            lines += [f"  {one.path.name}: {one.parity}" for one in exported]
            lines.append(f"saved in {self.output}: {describe(self.output).told}")
            exported = [replace(one, path=self.output / one.path.name) for one in exported]
        if self.report is not None:
            write_report(
                self.report,
                result=result,
                exports=exported,
                sensitivity=sensitivity,
                saved=self.output,
                title=self.source,
                overwrite=self.overwrite,
            )
            lines.append(f"report in {self.report}")
        kept = [one.as_dict() | {"path": one.path.name} for one in exported]
        return "\n".join(lines), {"output": _path(self.output), "report": _path(self.report), "exports": kept}


def plain(result: Result) -> dict[str, Any]:
    """A result as plain data, without the model."""
    plan = result.plan
    return {
        "kind": result.kind,
        "params_before": result.params_before,
        "params_after": result.params_after,
        "macs_before": result.macs_before,
        "macs_after": result.macs_after,
        "removed_channels": plan.removed_channels,
        "removed_modules": [bypass.module for bypass in plan.bypasses],
        "groups": plan.groups,
        "folds": len(plan.folds),
        "carriers": len(plan.carries),
        "proof": result.proof,
        "notes": result.notes,
    }


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)
