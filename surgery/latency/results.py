"""What a benchmark gives back: every raw sample with its cell and its machine, as a value and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from surgery.errors import InputError
from surgery.latency.clocks import Clocks
from surgery.latency.machine import Machine
from surgery.latency.statistics import Ratio, Summary, disturbance, launch_bound, paired_ratio, summarize

FORMAT = "surgery.benchmark/1"


@dataclass(frozen=True)
class Row:
    """One model in one cell: a sample per round, or the reason why there is none.

    Attributes:
        model: Its name.
        latency_ms: Wall time of each call, on a device until it has finished.
        cpu_ms: Processor time of the process during each call.
        device_ms: Time on the device by its own events; empty on a CPU.
        failure: Why the model was not timed here; "" where it was.
        host_ms: Time until each call returned, before the device was waited for; empty on a CPU.
        load_ms: What opening the model's file took.
        first_ms: The first call after that, which compiles, allocates and packs.
        peak_bytes: Memory above what the process held before, at most, until the first call was done.
        file_bytes: Size of the file; None where the runtime runs the module itself.
        error: Largest difference from the model's own eager outputs, over their spread.
        top1: Share of the positions at which the largest output is where the first model's is; None where there is
            nothing to rank, or the shapes differ.
        disagrees: Whether the failure is that it computes something else.
    """

    model: str
    latency_ms: tuple[float, ...] = ()
    cpu_ms: tuple[float, ...] = ()
    device_ms: tuple[float, ...] = ()
    failure: str = ""
    host_ms: tuple[float, ...] = ()
    load_ms: float | None = None
    first_ms: float | None = None
    peak_bytes: int | None = None
    file_bytes: int | None = None
    error: float | None = None
    top1: float | None = None
    disagrees: bool = False

    def summary(self) -> Summary:
        """Median, spread and tail; only for a row that was timed."""
        return summarize(self.latency_ms)

    @property
    def device_p50(self) -> float | None:
        """Median time on the device `[ms]`; None on a CPU."""
        return float(np.median(self.device_ms)) if self.device_ms else None

    @property
    def host_p50(self) -> float | None:
        """Median time until the call returned `[ms]`; None on a CPU."""
        return float(np.median(self.host_ms)) if self.host_ms else None


@dataclass(frozen=True)
class Cell:
    """The models under one runtime, precision, thread count, device and batch size, interleaved in one process.

    Attributes:
        runtime: One of the known runtimes.
        threads: Threads that the runtime was given.
        device: As torch writes it.
        batch: The shared size of dim 0 of the inputs; None where they share none.
        rows: One per model, in the order they were given.
        settled: Whether every ratio with the first model had a 95 % interval below 2 % before time ran out.
        load_start: Load average when timing began.
        load_end: Load average when it ended.
        notes: What a reader must know about this cell.
        precision: Of weights and activations: float32, bf16, fp16, float64, int8.
        clocks: Of the GPU, before and after.
        sittings: The number of rounds in each sitting; between two, the models were opened anew. () in old files.
    """

    runtime: str
    threads: int
    device: str
    batch: int | None
    rows: tuple[Row, ...]
    settled: bool = False
    load_start: float | None = None
    load_end: float | None = None
    notes: tuple[str, ...] = ()
    precision: str = "float32"
    clocks: tuple[Clocks, ...] = ()
    sittings: tuple[int, ...] = ()

    def __str__(self) -> str:
        precision = "" if self.precision == "float32" else f", {self.precision}"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        batch = "" if self.batch is None else f", batch {self.batch}"
        return f"{self.runtime}{precision}, {threads}, {self.device}{batch}"

    @property
    def key(self) -> tuple[str, str, int, str, int | None]:
        """What it was measured under: runtime, precision, threads, device, batch."""
        return self.runtime, self.precision, self.threads, self.device, self.batch

    def row(self, model: str) -> Row:
        """The row of `model`, timed.

        Raises:
            InputError: There is no such model, or it was not timed here.
        """
        found = {row.model: row for row in self.rows}
        if model not in found:
            raise InputError(f"the benchmark holds no model {model!r}", f"its models: {', '.join(found)}")
        if found[model].failure:
            raise InputError(f"{model!r} has no times in {self}: {found[model].failure}", "ask for another runtime")
        return found[model]

    def disturbance(self, row: Row) -> str:
        """Why the times of this row are doubtful, or ""; told by processor time, so only on a CPU."""
        return disturbance(row.cpu_ms, row.latency_ms, self.threads) if self.device == "cpu" else ""

    def hint(self, row: Row) -> str:
        """What would make this row faster whatever the model, or ""."""
        return launch_bound(row.host_ms, row.latency_ms)


@dataclass(frozen=True)
class Settings:
    """The arguments of the benchmark."""

    runtimes: tuple[str, ...]
    threads: tuple[int, ...]
    batch_sizes: tuple[int, ...] | None
    devices: tuple[str, ...]
    min_pairs: int
    min_seconds: float
    max_seconds: float
    seed: int
    precisions: tuple[str, ...] = ("float32",)


@dataclass(frozen=True)
class Model:
    """What was timed.

    Attributes:
        name: As in the rows.
        kind: The class of the module, or the file.
        params: Numbers in its parameters; None for a file.
        size_bytes: Of its parameters and buffers, or of the file.
        macs: Multiply-accumulates of one call on the first inputs; None for a file, and where they cannot be counted.
        subnormals: How many subnormal weights it has; they were set to zero, unless a note says otherwise.
    """

    name: str
    kind: str
    params: int | None = None
    size_bytes: int | None = None
    macs: int | None = None
    subnormals: int = 0


@dataclass(frozen=True)
class Benchmark:
    """Latencies of several models, interleaved, with every raw sample.

    Attributes:
        machine: Where it ran.
        settings: How it was asked for.
        cells: One per runtime, thread count, device and batch size.
        load_start: Load average when it began.
        load_end: Load average when it ended.
        notes: What a reader must know, such as subnormal weights.
        format: Of the JSON file.
        models: What was timed.
        interrupted: Whether it was ended before all cells were measured.
    """

    machine: Machine
    settings: Settings
    cells: tuple[Cell, ...]
    load_start: float | None
    load_end: float | None
    notes: tuple[str, ...] = ()
    format: str = FORMAT
    models: tuple[Model, ...] = ()
    interrupted: bool = False

    def cell(
        self,
        runtime: str,
        threads: int = 1,
        batch: int | None = None,
        device: str = "cpu",
        precision: str | None = None,
    ) -> Cell:
        """The cell of that runtime, thread count and device; `batch=None` or `precision=None` is the only one there is.

        Raises:
            InputError: Nothing, or more than one batch size or precision, was measured there; what was is listed.
        """
        here = [c for c in self.cells if (c.runtime, c.threads, c.device) == (runtime, threads, device)]
        found = [c for c in here if batch in (None, c.batch) and precision in (None, c.precision)]
        if not found:
            wanted = Cell(runtime, threads, device, batch, (), precision=precision or "float32")
            raise InputError(f"nothing was measured in {wanted}", f"measured: {'; '.join(map(str, self.cells))}")
        if len({c.precision for c in found}) > 1:
            names = ", ".join(dict.fromkeys(c.precision for c in found))
            raise InputError(f"{runtime} was measured in several precisions", f"say which with precision=: {names}")
        if len(found) > 1:
            sizes = ", ".join(str(c.batch) for c in found)
            raise InputError(f"{runtime} was measured at several batch sizes", f"say which with batch=: {sizes}")
        return found[0]

    def ratio(
        self,
        first: str,
        second: str,
        *,
        runtime: str,
        threads: int = 1,
        batch: int | None = None,
        device: str = "cpu",
        precision: str | None = None,
    ) -> Ratio:
        """First over second in one cell: above 1, the second is faster.

        The median over pairs with its 95 % interval, and one of "faster", "slower", "no difference" and "too noisy
        to say", about the second; `surgery.latency.statistics` says when.

        Raises:
            InputError: No such model or cell, or no times there; what there is is listed.
        """
        return self.ratio_in(self.cell(runtime, threads, batch, device, precision), first, second)

    def ratio_in(self, cell: Cell, first: str, second: str) -> Ratio:
        """`ratio` within a cell at hand."""
        one, other = cell.row(first), cell.row(second)
        doubts = (f"{row.model}: {doubt}" for row in (one, other) if (doubt := cell.disturbance(row)))
        seed = self.settings.seed
        doubt = "; ".join(doubts)
        return paired_ratio(one.latency_ms, other.latency_ms, sittings=cell.sittings, disturbed=doubt, seed=seed)

    def table(self) -> str:
        """The cells as a plain table, with warnings and notes below it."""
        from surgery.latency.table import render

        return render(self)

    def markdown(self) -> str:
        """The same for a README or an issue."""
        from surgery.latency.table import render_markdown

        return render_markdown(self)

    def __str__(self) -> str:
        return self.table()

    def to_json(self) -> str:
        """Everything, every raw sample included."""
        return msgspec.json.encode(self).decode()

    @staticmethod
    def from_json(text: str | bytes) -> Benchmark:
        """What `to_json` wrote.

        Raises:
            InputError: It is no such file, or its samples do not fit together; the place is named.
        """
        try:
            loaded = msgspec.json.decode(text, type=Benchmark)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"this is not a saved benchmark: {error}", "give a file that to_json wrote") from error
        for fault in _faults(loaded):
            raise InputError(f"this is not a valid benchmark: {fault}", "give a file that to_json wrote")
        return loaded


def _faults(benchmark: Benchmark) -> Iterator[str]:
    """What types cannot tell: samples in pairs, finite and positive."""
    if benchmark.format != FORMAT:
        yield f"its format is {benchmark.format!r}, this version reads {FORMAT!r}"
    for cell in benchmark.cells:
        timed = [row for row in cell.rows if not row.failure]
        names = [row.model for row in cell.rows]
        if len(set(names)) < len(names) or cell.threads < 1:
            yield f"a model is listed twice, or threads are below 1, in {cell}"
        if timed and cell.sittings and sum(cell.sittings) != len(timed[0].latency_ms):
            yield f"its sittings hold {sum(cell.sittings)} rounds, not {len(timed[0].latency_ms)}, in {cell}"
        for row in timed:
            whole = len(row.latency_ms)
            lengths = whole, len(row.cpu_ms), len(row.device_ms) or whole, len(row.host_ms) or whole
            if len(set(lengths)) > 1 or lengths[0] != len(timed[0].latency_ms) or not lengths[0]:
                yield f"{row.model!r} has {lengths[0]} samples in {cell}, which do not pair with the others"
            if not all(math.isfinite(ms) and ms > 0 for ms in row.latency_ms):
                yield f"{row.model!r} has a latency that is not a positive number in {cell}"
            if not all(math.isfinite(ms) and ms >= 0 for ms in (*row.cpu_ms, *row.device_ms, *row.host_ms)):
                yield f"{row.model!r} has a processor or device time below 0 in {cell}"
