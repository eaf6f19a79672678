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

ANSWER = "reply.json"

_OURS = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "PYTHONWARNINGS", "PYTHONPATH")
"""Settings of the caller that would change what is measured, by prefix."""


@dataclass(frozen=True)
class Form:
    """One model of a job, as files in the private folder (but `file` may be the user's own).

    Attributes:
        model: Its name.
        file: What the runtime opens.
        inputs: The call.
        reference: The model's own outputs.
        first: Those of the first model.
        order: Which tensor of the call goes into which input of the file; None for a module, which is called.
        size_bytes: Of the file; None for a module.
    """

    model: str
    file: str
    inputs: str
    reference: str
    first: str
    order: tuple[int, ...] | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Job:
    """The models to be timed against each other at one batch size."""

    batch: int | None
    forms: tuple[Form, ...]


@dataclass(frozen=True)
class Request:
    """The work of one process: one runtime, precision, thread count and device.

    With `all_or_none`, a model that cannot be loaded ends the process instead of failing alone: the parent will then
    time all of them itself.
    """

    runtime: str
    precision: str
    threads: int
    device: str
    jobs: tuple[Job, ...]
    enough: Enough
    all_or_none: bool = False


@dataclass(frozen=True)
class Reply:
    """A cell per job, as far as it came; or the reasons why nothing was timed."""

    cells: tuple[Cell, ...] = ()
    unloaded: dict[str, str] = field(default_factory=dict)


class Stopped(KeyboardInterrupt):
    """Ctrl-C while a process measured; `cells` are those that it had finished."""

    def __init__(self, cells: tuple[Cell, ...]) -> None:
        super().__init__()
        self.cells = cells


class DiedError(SurgeryError):
    """A measuring process that ended before its work was done; `cells` are those that it had finished."""

    def __init__(self, fact: str, way_out: str, cells: tuple[Cell, ...]) -> None:
        super().__init__(fact, way_out)
        self.cells = cells


def environment(threads: int, folder: Path | None = None) -> dict[str, str]:
    """The caller's variables, with everything that steers threads replaced; compilers keep their caches in `folder`.

    A waiting thread sleeps instead of spinning: on a busy machine, spinning threads cost a factor of 10 and more.
    """
    caches = {} if folder is None else {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return (
        kept
        | caches
        | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            "KMP_BLOCKTIME": "0",
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # more would be a pool of processes beside what is timed
            "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path),
        }
    )


def ask(request: Request, folder: Path) -> Reply:
    """Run a request in a process of its own.

    Raises:
        DiedError: The process died; the last line of its stderr is in the message.
        Stopped: Ctrl-C.
    """
    question, answer, log = folder / "request.json", folder / ANSWER, folder / "stderr.txt"
    question.write_bytes(msgspec.json.encode(request))
    answer.unlink(missing_ok=True)
    # -P: a torch.py in the current directory must not be imported in the place of torch.
    command = [sys.executable, "-P", "-m", "surgery.latency.worker", str(question), str(answer)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            env=environment(request.threads, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends this one
        )
        try:
            code = process.wait()
        except KeyboardInterrupt:
            raise Stopped(_done(answer)) from None
        finally:
            _end(process)
    if code or not answer.exists():
        where = Cell(request.runtime, request.threads, request.device, None, (), precision=request.precision)
        raise DiedError(
            f"the benchmark process for {where} {_death(code)}: {_last_line(log)}",
            f"leave {request.runtime!r} out of runtimes, or use fewer threads or a smaller batch",
            _done(answer),
        )
    return msgspec.json.decode(answer.read_bytes(), type=Reply)


def _done(answer: Path) -> tuple[Cell, ...]:
    """The cells that a process had finished when it ended."""
    return msgspec.json.decode(answer.read_bytes(), type=Reply).cells if answer.exists() else ()


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
