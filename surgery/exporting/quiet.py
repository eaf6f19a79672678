"""Known chatter of other libraries kept from the user: named one by one, everything else gets through."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence

LOGGERS = ("torch.export", "torch.fx.experimental.symbolic_shapes", "torch.onnx", "onnxscript", "onnx_ir")
"""Loggers that report steps and failed attempts, which our own errors and notes tell already."""


@contextlib.contextmanager
def without(*known: tuple[type[Warning], str]) -> Iterator[list[warnings.WarningMessage]]:
    """Hold back warnings of a known category and message (a regular expression for its beginning).

    Yields:
        The list of what was held back, filled at the end of the block. All others are warned again then.
    """
    held: list[warnings.WarningMessage] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield held
    for warning in caught:
        text = str(warning.message)
        if any(issubclass(warning.category, kind) and re.match(pattern, text) for kind, pattern in known):
            held.append(warning)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@contextlib.contextmanager
def without_logs(names: Sequence[str] = LOGGERS) -> Iterator[None]:
    """Hold back log records of `names`, and what `torch.export` prints of a graph that it failed to finish."""
    loggers = [
        logging.getLogger(name)
        for name in {*names, *logging.root.manager.loggerDict}
        if any(name == parent or name.startswith(f"{parent}.") for parent in names)
    ]
    before = [(logger, logger.disabled) for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, disabled in before:
            logger.disabled = disabled
