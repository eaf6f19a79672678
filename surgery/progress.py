"""Progress on stderr, so that nothing longer than a second is silent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

QUIET_SECONDS = 1.0
"""A stage shorter than this says nothing where stderr is not a terminal."""

_inside: ContextVar[bool] = ContextVar("inside", default=False)
"""Whether a bar is shown that stands for all that is done meanwhile."""


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Show a spinner named `what` while the body runs; on a plain stderr, one line if it took over a second."""
    console = Console(stderr=True)
    began = time.perf_counter()
    if _inside.get():
        yield
        return
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            progress.add_task(what, total=None)
            yield
        return
    yield
    if (seconds := time.perf_counter() - began) > QUIET_SECONDS:
        console.print(f"{what}: {seconds:.1f} s", highlight=False, soft_wrap=True)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` with a bar, their count and the time left on stderr; on a plain stderr, one line at the end."""
    console = Console(stderr=True)
    began = time.perf_counter()
    if _inside.get():
        yield from items
        return
    if console.is_terminal:
        total = len(items) if total is None and isinstance(items, Sized) else total
        counted = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        columns = (TextColumn("{task.description}"), *counted)
        with Progress(*columns, console=console, transient=True) as progress:
            yield from progress.track(items, description=what, total=total)
        return
    yield from items
    if (seconds := time.perf_counter() - began) > QUIET_SECONDS:
        console.print(f"{what}: {seconds:.1f} s", highlight=False, soft_wrap=True)


@contextmanager
def counting(what: str) -> Iterator[Callable[[], None]]:
    """As `stage`, for work of unknown length; yields what to call at every step: they are counted."""
    console = Console(stderr=True)
    began, steps = time.perf_counter(), 0
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description} ({task.completed})"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(what, total=None)
            yield lambda: progress.advance(task)
        return

    def count() -> None:
        nonlocal steps
        steps += 1

    yield count
    if (seconds := time.perf_counter() - began) > QUIET_SECONDS:
        console.print(f"{what}: {steps} tried, {seconds:.1f} s", highlight=False, soft_wrap=True)


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar with the time left, for steps that say nothing of their own meanwhile; yields what to tell of progress."""
    console = Console(stderr=True)
    began, done, token = time.perf_counter(), 0, _inside.set(True)

    def count(steps: int) -> None:
        nonlocal done
        done += steps

    try:
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
                task = progress.add_task(what, total=total)
                yield lambda steps: progress.advance(task, steps)
            return
        yield count
    finally:
        _inside.reset(token)
    if (seconds := time.perf_counter() - began) > QUIET_SECONDS:
        console.print(f"{what}: {done}, {seconds:.1f} s", highlight=False, soft_wrap=True)
