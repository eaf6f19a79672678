"""What the parent asks of a measuring process, what it answers, and how that process lives and dies.

The request and the reply are files in a private folder. The process gets a controlled environment and a pipe as its
stdin: when the parent is gone, however it went, the pipe closes, and the process removes the folder and ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from surgery.errors import SurgeryError
from surgery.latency.results import Cell
from surgery.latency.timing import Enough

FOLDER_PREFIX = "surgery-benchmark-"
"""Of the private folder's name: nothing else is ever removed."""

_OURS = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "PYTHONWARNINGS", "PYTHONPATH")
"""Settings of the caller that would change what is measured, by prefix."""


@dataclass(frozen=True)
class Form:
    """One model of a job: its file for this runtime, and its eager outputs."""

    model: str
    file: str
    reference: str


@dataclass(frozen=True)
class Job:
    """The models to be timed against each other at one batch size."""

    batch: int | None
    inputs: str
    forms: tuple[Form, ...]


@dataclass(frozen=True)
class Request:
    """The work of one process: one runtime, thread count and device.

    With `all_or_none`, a model that cannot be loaded ends the process instead of failing alone: the parent will then
    time all of them itself.
    """

    runtime: str
    threads: int
    device: str
    jobs: tuple[Job, ...]
    enough: Enough
    all_or_none: bool = False


@dataclass(frozen=True)
class Reply:
    """A cell per job; or the two halves of the message of a failed comparison; or the reasons why nothing was timed."""

    cells: tuple[Cell, ...] = ()
    mismatch: tuple[str, str] | None = None
    unloaded: dict[str, str] = field(default_factory=dict)


def environment(threads: int) -> dict[str, str]:
    """The caller's variables, with everything that steers threads replaced.

    A waiting thread sleeps instead of spinning: on a busy machine, spinning threads cost a factor of 10 and more.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return kept | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path),
    }


def ask(request: Request, folder: Path) -> Reply:
    """Run a request in a process of its own.

    Raises:
        SurgeryError: The process died; the last line of its stderr is in the message.
    """
    question, answer, log = folder / "request.json", folder / "reply.json", folder / "stderr.txt"
    question.write_bytes(msgspec.json.encode(request))
    answer.unlink(missing_ok=True)
    # -P: a torch.py in the current directory must not be imported in the place of torch.
    command = [sys.executable, "-P", "-m", "surgery.latency.worker", str(question), str(answer)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            env=environment(request.threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends this one
        )
        try:
            code = process.wait()
        finally:
            _end(process)
    if code or not answer.exists():
        threads = f"{request.threads} thread{'s' * (request.threads > 1)}"
        where = f"{request.runtime}, {threads}, {request.device}"
        raise SurgeryError(
            f"the benchmark process for {where} {_death(code)}: {_last_line(log)}",
            f"leave {request.runtime!r} out of runtimes, or use fewer threads or a smaller batch",
        )
    return msgspec.json.decode(answer.read_bytes(), type=Reply)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that the process and its children are gone."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()


def _death(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it wrote nothing to stderr"
