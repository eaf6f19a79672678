"""One piece of work, one process, one time limit: a crash or a hang is a result, not an end."""

from __future__ import annotations

import multiprocessing as mp
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

PRELOADED = ("benchmarks.zoo_row", "benchmarks.warmed", "transformers", "timm", "torch_pruning", "onnxruntime")
"""Imported once, by the process that all others are forked from."""


@dataclass
class _Running:
    name: str
    process: BaseProcess
    pipe: Connection
    facts: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)


Work = Callable[[str], Iterator[dict[str, Any]]]
"""Facts, a few at a time: what was found before a crash is kept."""


def _work(work: Work, name: str, pipe: Connection) -> None:
    for facts in work(name):
        pipe.send(facts)
    pipe.close()


def finished(
    work: Work, names: Sequence[str], *, jobs: int, limit_s: float, preloaded: Sequence[str] = PRELOADED
) -> Iterator[tuple[str, dict[str, Any]]]:
    """`work(name)` for every name, each in its own process, `jobs` at a time: `(name, all its facts)` as they end.

    A process that crashes or is killed leaves the facts it had, and why under `failed`.

    Args:
        work: A function of a module, so that other processes can import it.
        names: What to call it with.
        jobs: How many at the same time.
        limit_s: Wall time for each.
        preloaded: Modules that the process they are forked from imports once.
    """
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    waiting, running = list(names), list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(work, name := waiting.pop(0), theirs), daemon=True)
                process.start()
                theirs.close()
                running.append(_Running(name, process, ours))
            wait([one.pipe for one in running], timeout=0.5)
            for one in list(running):
                if _over(one, limit_s):
                    running.remove(one)
                    _end(one)
                    yield one.name, one.facts
    finally:
        for one in running:
            _end(one)


def _over(one: _Running, limit_s: float) -> bool:
    """Take what it sent; is there no more to come?"""
    try:
        while one.pipe.poll():
            one.facts |= one.pipe.recv()
    except EOFError:
        one.process.join()
        if one.process.exitcode:
            one.facts["failed"] = f"the process ended with exit code {one.process.exitcode}"
        return True
    if time.perf_counter() - one.began > limit_s:
        one.facts["failed"] = f"killed after {limit_s:.0f} s"
        return True
    return False


def _end(one: _Running) -> None:
    one.process.kill()
    one.process.join()
    one.pipe.close()
