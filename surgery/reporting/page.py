"""The door: what was found goes in, one HTML file comes out."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from surgery.checkpoints import Saved, describe
from surgery.errors import InputError, MissingExtraError
from surgery.exporting import Export
from surgery.exporting.staging import staged
from surgery.latency.results import Benchmark
from surgery.reporting import facts, figures
from surgery.reporting.proving import gauges_of
from surgery.reporting.removal import removal_of
from surgery.reporting.sharing import sharing_of
from surgery.reporting.staying import staying_of
from surgery.reporting.timing import forest_of, places_of, tables_of, verdicts
from surgery.results import Result
from surgery.version import __version__


def report(
    path: str | os.PathLike[str],
    *,
    result: Result | None = None,
    benchmark: Benchmark | None = None,
    exports: Iterable[Export] = (),
    saved: str | os.PathLike[str] | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one HTML page of what was removed and why, the proof, the exports and the latencies.

    The file needs nothing beside it: no network, no fonts, no scripts of others. It shows what it is given and no more.

    Args:
        path: The file to write; its directory must exist.
        result: What `shrink` handed back.
        benchmark: What `benchmark` handed back.
        exports: What `export` handed back.
        saved: The directory that `save` wrote, for the lines on how to load it.
        title: The heading; by default the class of the model, or the models that were timed.
        overwrite: Replace a file that is already there.

    Returns:
        The path.

    Raises:
        MissingExtraError: jinja2 is not installed (the extra `report`).
        InputError: There is nothing to report, something is of another type, or the file cannot be written.
    """
    path, shown = Path(path), tuple(exports)
    check_page()
    _check(result, benchmark, shown)
    directory = None if saved is None else describe(Path(saved))
    with staged(path, overwrite=overwrite) as file:
        file.write_text(_render(result, benchmark, shown, directory, title), encoding="utf-8")
    return path


def check_page() -> None:
    """Say at once what a page needs, before hours are spent on what it is to show.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise MissingExtraError("jinja2", "report")


def _check(result: object, benchmark: object, exports: tuple[object, ...]) -> None:
    wanted: list[tuple[str, object, type]] = [("result", result, Result), ("benchmark", benchmark, Benchmark)]
    wanted += [(f"exports[{number}]", one, Export) for number, one in enumerate(exports)]
    for name, value, kind in wanted:
        if value is not None and not isinstance(value, kind):
            fact = f"{name} is a {type(value).__name__}"
            raise InputError(fact, f"pass the {kind.__name__} that surgery handed back")
    if result is None and benchmark is None and not exports:
        raise InputError("there is nothing to report", "pass result=, benchmark= or exports=")


def _render(
    result: Result | None,
    benchmark: Benchmark | None,
    exports: tuple[Export, ...],
    saved: Saved | None,
    title: str | None,
) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("surgery.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {function.__name__: function for function in figures.FILTERS}
    script = environment.get_template("page.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    places = () if benchmark is None else places_of(benchmark)
    forest = forest_of(places)
    return environment.get_template("page.html").render(
        title=title or _title(result, benchmark, exports),
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
        exports=[(one, _beyond(one)) for one in exports],
        benchmark=benchmark,
        places=places,
        tables=() if benchmark is None else tables_of(benchmark),
        forest=forest,
        verdicts="" if forest is None else verdicts([line.ratio for line in forest.lines]),
        machine=() if benchmark is None else facts.named(benchmark.machine),
        conditions=() if benchmark is None else facts.conditions(benchmark),
        versions=facts.versions(),
        snippets=facts.snippets(slim=result is not None, saved=saved, exports=exports),
    )


def _title(result: Result | None, benchmark: Benchmark | None, exports: tuple[Export, ...]) -> str:
    if result is not None:
        return type(result.model).__name__ if result.kind == "class" else "The slim model"
    if benchmark is not None:
        models = dict.fromkeys(row.model for cell in benchmark.cells for row in cell.rows)
        return f"Latency of {', '.join(models)}"
    return ", ".join(one.path.name for one in exports)


def _beyond(export: Export) -> tuple[tuple[str, Any], ...]:
    """What an export says beside what the table has columns for."""
    known = {"path", "format", "size_bytes", "opset", "parity", "notes", "load_ms"}
    found = ((field.name, getattr(export, field.name)) for field in fields(export) if field.name not in known)
    return tuple((name, value) for name, value in found if isinstance(value, str | int | float) and value != "")
