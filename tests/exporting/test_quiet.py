from __future__ import annotations

import logging
import sys
import warnings

import pytest

from surgery.exporting.quiet import without, without_logs


def test_only_the_known_warnings_are_held_back() -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with without((UserWarning, "old news")) as held:
            warnings.warn("old news, told often", UserWarning, stacklevel=1)
            warnings.warn("news of the model", UserWarning, stacklevel=1)
            warnings.warn("old news of another kind", FutureWarning, stacklevel=1)
    assert [str(warning.message) for warning in held] == ["old news, told often"]
    assert [str(warning.message) for warning in warned] == ["news of the model", "old news of another kind"]


def test_known_loggers_are_silent_inside_and_as_before_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    known, other = logging.getLogger("onnxscript.rewriter"), logging.getLogger("mine")
    with without_logs():
        known.warning("inside")
        other.warning("mine")
    known.warning("after")
    assert caplog.messages == ["mine", "after"]


def test_stderr_is_given_back_after_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with without_logs():
            sys.stderr.write("an unfinished graph")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    sys.stderr.write("after")
    assert capsys.readouterr().err == "after"
