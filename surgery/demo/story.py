"""The demo from beginning to end: where it writes, the order of its steps, and what it says when it is done."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from surgery.cli.models import check_report
from surgery.demo import steps
from surgery.demo.account import layers_of
from surgery.demo.digits import Digits, load_digits
from surgery.demo.outcome import DENSE, HOOKS, SLIM, ZEROS, Outcome
from surgery.demo.table import closing, legend, table
from surgery.demo.telling import Teller
from surgery.demo.training import accuracy, scores
from surgery.errors import InputError
from surgery.masks import bake
from surgery.reporting import check_page
from surgery.reporting import report as page

EPOCHS, QUICK_EPOCHS = (8, 8), (2, 1)
"""Of training, and of training under the mask."""

TITLE = "A net that reads handwritten digits"


def main(
    *,
    quick: bool = False,
    directory: Path | None = None,
    report: Path | None = None,
    overwrite: bool = False,
    as_json: bool = False,
) -> int:
    """A small net is trained on real handwritten digits, masked, cut, proven, saved, exported and timed.

    Args:
        quick: Train for seconds only, and time nothing.
        directory: Where to keep the slim net and its exports; a temporary directory by default.
        report: The HTML file for a page of it all; none by default.
        overwrite: Replace the report that is there.
        as_json: Print one JSON object with every number, instead of the story.

    Returns:
        0, or 1 where the slim net does not answer as the masked one does.

    Raises:
        MissingExtraError: scikit-learn is not installed, or, for a report, jinja2.
        InputError: `directory` is there already and holds something, or `report` is there; or one cannot be written.
        CheckError: An export does not compute what the slim net computes.
    """
    began = time.perf_counter()
    teller = Teller(silent=as_json)
    digits = load_digits()
    if report is not None:
        check_page()
    with _place(directory) as place, _one_thread():
        if not quick:
            teller.note("This takes about a minute and a half; on a busy machine, up to three.")
        check_report(report, overwrite=overwrite)  # not before: it may lie in the new directory
        saved = None if directory is None else place / "slim"
        write_page = None if report is None else partial(page, report, title=TITLE, saved=saved, overwrite=overwrite)
        outcome = _tell(teller, digits, place, write_page, quick=quick)
    seconds = time.perf_counter() - began
    if as_json:
        paths = {"directory": directory, "report": report}
        kept = {name: None if path is None else str(path) for name, path in paths.items()}
        sys.stdout.write(json.dumps(outcome.as_dict() | kept | {"seconds": round(seconds, 1)}, indent=2) + "\n")
    else:
        _conclude(teller, outcome, directory)
        if report is not None:
            teller.say(f"The report is {report}.", indent=0)
    teller.note(f"({seconds:.0f} seconds in all)")
    return 0 if outcome.passed else 1


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    """The directory to write into: the user's, which must be new or empty, or one that vanishes again."""
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="surgery-demo-") as temporary:
            yield Path(temporary)
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        taken = any(directory.iterdir())
    except OSError as error:
        fact = f"cannot use {str(directory)!r} as a directory: {error.strerror}"
        raise InputError(fact, "choose another one") from error
    if taken:
        raise InputError(f"the directory {str(directory)!r} is not empty", "name a new one: nothing is overwritten")
    yield directory


@contextmanager
def _one_thread() -> Iterator[None]:
    """For a net this small, threads cost more than they bring; and the sums are the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _tell(
    teller: Teller, digits: Digits, place: Path, write_page: Callable[..., Path] | None = None, *, quick: bool
) -> Outcome:
    """Every step in order, and all their numbers."""
    epochs, more_epochs = QUICK_EPOCHS if quick else EPOCHS
    dense = steps.train(teller, digits, epochs)
    masked = steps.mask(teller, dense, digits, more_epochs)
    result, proof = steps.cut(teller, masked, digits)
    models = {DENSE: dense, HOOKS: masked, ZEROS: bake(masked), SLIM: result.model}
    answers = {name: scores(model, digits.test_pictures) for name, model in models.items()}
    same, difference = steps.compare(teller, answers[HOOKS], answers[SLIM])
    reload_difference = steps.save(teller, result, place, digits)
    exports = steps.export_all(teller, result.model, place, digits)
    benchmark = None if quick else steps.measure(teller, models, digits)
    if benchmark is not None:
        (place / "benchmark.json").write_text(benchmark.to_json(), encoding="utf-8")
    if write_page is not None:
        here = [replace(one, path=Path(one.path.name)) for one in exports]
        write_page(result=result, benchmark=benchmark, exports=here)

    before, per_picture = (DENSE, HOOKS, ZEROS), steps.EXAMPLES
    return Outcome(
        accuracy={name: accuracy(answer, digits.test_labels) for name, answer in answers.items()},
        test_digits=len(digits.test_labels),
        same_predictions=same,
        largest_difference=difference,
        layers=layers_of(masked, result.plan),
        params=dict.fromkeys(before, result.params_before) | {SLIM: result.params_after},
        macs=dict.fromkeys(before, result.macs_before // per_picture) | {SLIM: result.macs_after // per_picture},
        proof=proof,
        reload_difference=reload_difference,
        exports=exports,
        benchmark=benchmark,
    )


def _conclude(teller: Teller, outcome: Outcome, directory: Path | None) -> None:
    teller.show(table(outcome))
    for line in legend(outcome):
        teller.say(line, indent=0)
    teller.say("")
    teller.say(closing(outcome), indent=0)
    if directory is not None:
        names = ", ".join(sorted(file.name for file in directory.iterdir()))
        teller.say(f"The files are in {directory}: {names}.", indent=0)
    else:
        teller.say("To keep the slim net and its exports: surgery demo --directory NAME.", indent=0)
