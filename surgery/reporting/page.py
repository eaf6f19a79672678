"""The door: what was found goes in, one HTML file comes out."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from surgery.checkpoints import Saved, describe
from surgery.compensating import Compensated
from surgery.errors import InputError
from surgery.exporting import Export
from surgery.exporting.staging import staged
from surgery.latency.results import Benchmark
from surgery.quantizing import Quantized
from surgery.reporting import facts
from surgery.reporting.attached import Attached, Given, attached
from surgery.reporting.curves import curves_of
from surgery.reporting.learning import NEEDED, Trained, learning_of
from surgery.reporting.proving import gauges_of
from surgery.reporting.removal import removal_of
from surgery.reporting.rendering import check_page, environment
from surgery.reporting.sharing import sharing_of
from surgery.reporting.staying import staying_of
from surgery.reporting.timing import forest_of, places_of, tables_of, verdicts
from surgery.reporting.winning import ladder_of
from surgery.results import Result
from surgery.sensitivities import Sensitivity
from surgery.version import __version__


@dataclass(frozen=True)
class _Shown:
    """What a page is about, as it was handed back."""

    result: Result | None
    benchmark: Benchmark | None
    exports: tuple[Export, ...]
    sensitivity: Sensitivity | None
    quantized: Quantized | None
    training: Trained | None
    figures: tuple[Attached, ...]

    @property
    def record(self) -> Mapping[str, Any] | None:
        """What is written down of a training after the cut, of what `recover` handed back."""
        return None if self.training is None else getattr(self.result, "record", None)

    @property
    def compensated(self) -> Compensated | None:
        """The ladder, of what `prune` handed back."""
        return getattr(self.result, "compensated", None)


def report(
    path: str | os.PathLike[str],
    *,
    result: Result | None = None,
    benchmark: Benchmark | None = None,
    exports: Iterable[Export] = (),
    sensitivity: Sensitivity | None = None,
    quantized: Quantized | None = None,
    training: Trained | None = None,
    figures: Given = (),
    saved: str | os.PathLike[str] | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one HTML page of what was removed and why, the proof, the exports and the latencies.

    The file needs nothing beside it: no network, no fonts, no scripts of others. It shows what it is given and no more.

    Args:
        path: The file to write; its directory must exist.
        result: What `shrink` or `prune` handed back; of the latter the ladder is shown, too.
        benchmark: What `benchmark` handed back.
        exports: What `export` handed back.
        sensitivity: What `sensitivity` handed back.
        quantized: What `quantize` handed back.
        training: What `fit` handed back; of what `recover` did, it is shown without being asked for.
        figures: Pictures of your own (.png, .svg, .jpg), as paths, `(path, caption)` pairs or `{path: caption}`; they
            are embedded.
        saved: The directory that `save` wrote, for the lines on how to load it.
        title: The heading; by default the class of the model, or the models that were timed.
        overwrite: Replace a file that is already there.

    Returns:
        The path.

    Raises:
        MissingExtraError: jinja2 is not installed (the extra `report`).
        InputError: There is nothing to report, something is of another type, a figure is missing or no picture, or the
            file cannot be written.
    """
    check_page()
    training = getattr(result, "fitted", None) if training is None else training
    path = Path(path)
    shown = _Shown(result, benchmark, tuple(exports), sensitivity, quantized, training, attached(figures))
    _check(shown)
    directory = None if saved is None else describe(Path(saved))
    with staged(path, overwrite=overwrite) as file:
        file.write_text(_render(shown, directory, title), encoding="utf-8")
    return path


def _check(shown: _Shown) -> None:
    wanted: list[tuple[str, object, type]] = [
        ("result", shown.result, Result),
        ("benchmark", shown.benchmark, Benchmark),
        ("sensitivity", shown.sensitivity, Sensitivity),
        ("quantized", shown.quantized, Quantized),
    ]
    wanted += [(f"exports[{number}]", one, Export) for number, one in enumerate(shown.exports)]
    for name, value, kind in wanted:
        if value is not None and not isinstance(value, kind):
            fact = f"{name} is a {type(value).__name__}"
            raise InputError(fact, f"pass the {kind.__name__} that surgery handed back")
    if shown.training is not None and not all(hasattr(shown.training, name) for name in NEEDED):
        raise InputError(f"training is a {type(shown.training).__name__}", "pass the Fitted that surgery handed back")
    if shown.training is None and not shown.figures and all(value is None for _, value, _ in wanted):
        every = "result=, benchmark=, exports=, sensitivity=, quantized=, training= or figures="
        raise InputError("there is nothing to report", f"pass {every}")


def _render(shown: _Shown, saved: Saved | None, title: str | None) -> str:
    """The page as text."""
    from markupsafe import Markup

    templates = environment()
    script = templates.get_template("page.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    result, benchmark, compensated = shown.result, shown.benchmark, shown.compensated
    places = () if benchmark is None else places_of(benchmark)
    forest = forest_of(places)
    return templates.get_template("page.html").render(
        title=title or _title(shown),
        made=datetime.now(UTC),
        version=__version__,
        script=Markup(script),  # our own file, as it is
        script_hash=digest,
        result=result,
        removal=None if result is None else removal_of(result),
        sharing=None if result is None else sharing_of(result),
        staying=None if result is None else staying_of(result),
        proof=None if result is None else result.proof,
        gauges=None if result is None or result.proof is None else gauges_of(result.proof),
        aim=None if result is None else result.plan.aim,
        compensated=compensated,
        ladder=None if compensated is None else ladder_of(compensated),
        sensitivity=shown.sensitivity,
        curves=None if shown.sensitivity is None else curves_of(shown.sensitivity),
        quantized=shown.quantized,
        int8_ratio=None if shown.quantized is None else shown.quantized.ratio,
        training=shown.training,
        learning=None if shown.training is None else learning_of(shown.training),
        record=shown.record,
        figures=shown.figures,
        exports=[(one, _beyond(one)) for one in shown.exports],
        benchmark=benchmark,
        places=places,
        tables=() if benchmark is None else tables_of(benchmark),
        forest=forest,
        verdicts="" if forest is None else verdicts([line.ratio for line in forest.lines]),
        machine=() if benchmark is None else facts.named(benchmark.machine),
        conditions=() if benchmark is None else facts.conditions(benchmark),
        versions=facts.versions(),
        snippets=facts.snippets(slim=result is not None, saved=saved, exports=shown.exports),
    )


def _title(shown: _Shown) -> str:
    result, benchmark = shown.result, shown.benchmark
    if result is not None:
        return type(result.model).__name__ if result.kind == "class" else "The slim model"
    if benchmark is not None:
        models = dict.fromkeys(row.model for cell in benchmark.cells for row in cell.rows)
        return f"Latency of {', '.join(models)}"
    if shown.sensitivity is not None:
        return f"Sensitivity of {shown.sensitivity.model}"
    if shown.training is not None:
        return f"Training of {type(shown.training.model).__name__}"
    if shown.figures and not shown.exports and shown.quantized is None:
        return shown.figures[0].caption
    files = [one.path for one in (*shown.exports, shown.quantized) if one is not None]
    return ", ".join(path.name for path in files)


def _beyond(export: Export) -> tuple[tuple[str, Any], ...]:
    """What an export says beside what the table has columns for."""
    known = {"path", "format", "size_bytes", "opset", "parity", "notes", "load_ms"}
    found = ((field.name, getattr(export, field.name)) for field in fields(export) if field.name not in known)
    return tuple((name, value) for name, value in found if isinstance(value, str | int | float) and value != "")
