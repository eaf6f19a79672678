"""AOTInductor: compiled for the CPU (or GPU) of this machine, weights frozen into it; runs without Python code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from surgery.errors import InputError
from surgery.exporting.archives import without_members
from surgery.exporting.program import KNOWN, capture, free_dims
from surgery.exporting.pt2 import without_paths_
from surgery.exporting.quiet import LOGGERS, without, without_logs
from surgery.exporting.shapes import symbol
from surgery.exporting.target import Loaded, Source, Target, Written, first_line, tensors_in

METADATA = "surgery"
"""Name of the entry in a package's metadata that says where it comes from, as JSON."""

CHECK_INPUTS = "AOTI_RUNTIME_CHECK_INPUTS"
"""The environment variable that has packages check shapes, strides and dtypes."""

TIDY = {
    "compile_threads": 1,  # more would leave a pool of processes behind
    "aot_inductor.precompile_headers": False,  # they are kept outside the cache
    "cpp_cache_precompile_headers": False,
    "aot_inductor.enable_line_tables": False,  # source paths of this machine
    "aot_inductor.check_lowerbound": False,  # a batch of 1 would be refused, since the example has 2; parity tries it
}
"""Settings of the compiler: what it leaves on the disk and in the package, what it checks. A torch may not know all."""

LOGGED = (*LOGGERS, "torch._inductor", "torch._dynamo", "torch.fx")
"""Loggers that report steps of the compiler, and where it keeps a cache that is deleted all the same."""


def write(source: Source, path: Path) -> Written:
    """Compile `source.model` with its weights frozen and write the package to `path`; no cache is left anywhere.

    Raises:
        InputError: There is no C++ compiler, or the model cannot be captured or compiled.
    """
    _require_compiler()
    program = capture(replace(source, inputs=source.inputs.map(torch.Tensor.contiguous)))
    without_paths_(program.exported)
    bound_to = _isa(source.inputs.tensors()[0].device)
    free = free_dims(program.exported, program.shapes)
    told = {
        **source.provenance,
        "isa": bound_to,
        "inputs": source.model.input_names,
        "free_dims": [sorted(dims) for dims in free],
    }
    settings = {
        "freezing": True,
        "aot_inductor.metadata": {METADATA: json.dumps(told)},
        **{name: value for name, value in TIDY.items() if name in torch._inductor.list_options()},
    }
    package = io.BytesIO()
    try:
        with _no_cache_left(), without(*KNOWN), without_logs(LOGGED):
            torch._inductor.aoti_compile_and_package(program.exported, package_path=package, inductor_configs=settings)
    except Exception as error:
        if isinstance(error, OSError):
            raise
        fact = f"AOTInductor cannot compile {type(source.model.model).__name__}: {first_line(error)}"
        raise InputError(fact, "export to another format, .pt2 for one") from error
    without_members(package, path, ".cpp")  # what was compiled names directories of this machine
    machine = f"{platform.system()} {platform.machine()}, {bound_to}, torch {torch.__version__}"
    notes = (
        f"bound to machines like this one ({machine}): export it again elsewhere",
        f"it takes contiguous tensors of the example's dtypes, and checks nothing unless {CHECK_INPUTS}=1 is set",
        *program.notes,
        *source.told(),
    )
    return Written(free, notes=notes)


def _require_compiler() -> None:
    """Refuse before minutes are spent.

    Raises:
        InputError: AOTInductor would find no C++ compiler.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError) as error:  # none, or one that may not be run
        way_out = "install one (apt install g++), or name one in the environment variable CXX"
        raise InputError("AOTInductor needs a C++ compiler, and g++ is not there", way_out) from error


def _isa(device: torch.device) -> str:
    """The instruction set that the package needs: `AVX512`, or `CUDA 9.0` for a GPU's capability."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"CUDA {major}.{minor}"
    return torch.backends.cpu.get_cpu_capability()


@contextlib.contextmanager
def _no_cache_left() -> Iterator[Path]:
    """Have the compiler's caches and temporary files in a directory that vanishes, not in the user's."""
    from torch._inductor.utils import fresh_cache

    with tempfile.TemporaryDirectory(prefix="surgery-") as folder, fresh_cache(dir=folder):
        yield Path(folder)


def load(path: Path) -> Loaded:
    """Open the package as anyone would, with `aoti_load_package`; the tensors are passed by position.

    Its own checks of shapes, strides and dtypes are switched on: without them it reads memory that is not there.
    """
    with without_logs(LOGGED):
        package = torch._inductor.aoti_load_package(str(path))
        metadata = package.get_metadata()
    device = metadata.get("AOTI_DEVICE_KEY", "cpu")

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        copies = [t.to(device, copy=True, memory_format=torch.contiguous_format) for t in tensors]
        with _checked_inputs():
            return tensors_in(package(*copies))

    if METADATA not in metadata:
        return Loaded(run)
    told = json.loads(metadata[METADATA])
    dynamic = [{d: symbol(f"input {i} dim {d}") for d in dims} for i, dims in enumerate(told["free_dims"])]
    return Loaded(run, tuple(told["inputs"]), tuple(dynamic))


@contextlib.contextmanager
def _checked_inputs() -> Iterator[None]:
    """Have a package check what it is given; it looks at the environment in its first run."""
    before = os.environ.get(CHECK_INPUTS)
    os.environ[CHECK_INPUTS] = "1"
    try:
        yield
    finally:
        os.environ.pop(CHECK_INPUTS)
        if before is not None:
            os.environ[CHECK_INPUTS] = before


AOTI = Target("aoti", "AOTInductor", (".aoti.pt2",), cpu_only=False, write=write, load=load)
