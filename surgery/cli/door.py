"""The door of the command line: results to stdout, all else to stderr, and every ending to its exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgery.cli.outcome import BAD_USAGE, DONE, INTERNAL, INTERRUPTED, Outcome, as_flags
from surgery.errors import SurgeryError
from surgery.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    0 done (also: nothing to remove), 1 a check failed, 2 bad usage or input, 70 internal error, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    options = words[: words.index("--")] if "--" in words else words
    as_json = "--json" in options
    traced = "--traceback" in options or os.environ.get("SURGERY_TRACEBACK", "0") not in {"", "0"}
    try:
        return _run(words, as_json)
    except SurgeryError as error:
        return _refused(error.fact, error.way_out, error, error.exit_code, as_json, traced)
    except KeyboardInterrupt as error:
        return _refused("interrupted", "", error, INTERRUPTED, as_json, traced)
    except Exception as error:
        if type(error).__name__ == "Abort":  # typer's, after Ctrl-C
            return _refused("interrupted", "", error, INTERRUPTED, as_json, traced)
        if hasattr(error, "format_message"):  # typer's, for words that are no command line
            context = getattr(error, "ctx", None)
            way_out = f"see {context.command_path if context else 'surgery'} --help"
            return _refused(error.format_message(), way_out, error, BAD_USAGE, as_json, traced)
        return _refused(*_internal(error, traced), error, INTERNAL, as_json, traced)


def _run(words: list[str], as_json: bool) -> int:
    from surgery.cli.app import app

    outcome = app(words, prog_name="surgery", standalone_mode=False)
    if not isinstance(outcome, Outcome):  # --help, --version and the demo have spoken
        if outcome == INTERRUPTED:  # typer takes Ctrl-C for an exit code
            raise KeyboardInterrupt
        return outcome if isinstance(outcome, int) else DONE
    _say(_json(outcome.data) if as_json else as_flags(outcome.text))
    return outcome.exit_code


def _refused(fact: str, way_out: str, error: BaseException, exit_code: int, as_json: bool, traced: bool) -> int:
    """Say what happened: on stderr, and with `--json` as an object on stdout, too."""
    if traced:
        sys.stderr.write("".join(traceback.format_exception(error)))
    fact, way_out = as_flags(fact), as_flags(way_out)
    sys.stderr.write(f"error: {fact}\n" + (f"  -> {way_out}\n" if way_out else ""))
    if as_json:
        kind = type(error).__name__
        _say(_json({"error": {"kind": kind, "fact": fact, "way_out": way_out, "exit_code": exit_code}}))
    return exit_code


def _internal(error: Exception, traced: bool) -> tuple[str, str]:
    """Fact and way out of an error that is ours."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    message = str(error).strip().partition("\n")[0]
    fact = f"internal error: {type(error).__name__}: {message} ({Path(last.filename).name}:{last.lineno})"
    again = "" if traced else "run it again with --traceback, and "
    return fact, f"{again}report the traceback to the project, with surgery {__version__} and the model that shows it"


def _say(text: str) -> None:
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has had enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _json(data: Mapping[str, Any]) -> str:
    import msgspec

    return msgspec.json.encode(data).decode()
