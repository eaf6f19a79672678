"""Masked against slim: nets with half of their channels zeroed, and the same with those gone, timed in each runtime.

    python -m benchmarks.masked_vs_slim               # an hour; writes benchmarks/results/masked_vs_slim.json
    python -m benchmarks.masked_vs_slim --missing     # only the nets that the results do not have yet
    python -m benchmarks.masked_vs_slim --nets ResNet-18 BERT-base --runtimes onnxruntime --output quick.json
    python -m benchmarks.masked_vs_slim --devices cuda --batch 1 64 --precisions float32 fp16 --output cuda.json

The masked net has its zeros baked in; the slim one is `shrink` of it, proven. Both are timed interleaved, on one
thread, in a process per runtime. Ratios are medians of paired ratios with a 95 % interval, above 1 where the slim net
is faster. Results are written after each net, so that an interrupt keeps those that are done.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import surgery
from benchmarks.headline_nets import NETS, Net, Sizes
from benchmarks.keeping import keep, kept
from benchmarks.masked_vs_slim_table import rows_of
from surgery.errors import CheckError, SurgeryError
from surgery.exporting.target import first_line

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "masked_vs_slim.json"


def timed(net: Net, sizes: Sizes, round_to: int, **clock: Any) -> dict[str, Any]:
    """Mask, shrink, time: the facts of one net.

    Args:
        net: What to time.
        sizes: Of its inputs.
        round_to: The multiple of slim widths.
        **clock: As `surgery.benchmark` takes them.

    Raises:
        SurgeryError: The slim net is not proven, or a runtime computes something else.
    """
    example = net.called(sizes)
    masked = net.mask(net.dense(sizes), example, round_to)
    result = surgery.shrink(masked, example.args, example.kwargs, round_to=round_to)
    proof = result.proof
    if proof is None or not proof.passed:
        raise CheckError(f"the slim {net.name} is not proven", "see what surgery.shrink prints of it")
    models = {"masked": masked, "slim": result.model}
    benchmark = surgery.benchmark(models, example.args, example.kwargs, **clock)
    print(f"{net.name}: {result}", benchmark.table(), sep="\n", flush=True)
    return {
        "shapes": [list(tensor.shape) for tensor in example.tensors()],
        "round_to": round_to,
        "params": [result.params_before, result.params_after],
        "macs": [result.macs_before, result.macs_after],
        "relative_error_float64": proof.max_rel_error_float64,
        "relative_error": proof.max_rel_error,
        "benchmark": json.loads(benchmark.to_json()),
    }


def main() -> int:
    """Time net after net, and keep every raw sample; 1 where one could not be timed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=tuple(NETS), default=[*NETS], metavar="NET", help=", ".join(NETS))
    parser.add_argument("--missing", action="store_true", help="only nets that the results do not have yet")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--tokens", type=int, default=128, help="length of the texts")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--runtimes", nargs="+", default=["eager", "torchscript", "onnxruntime"])
    parser.add_argument("--precisions", nargs="+", default=["float32"])
    parser.add_argument("--devices", nargs="+", default=["cpu"])
    parser.add_argument("--pairs", type=int, default=50, help="the least number of rounds in each cell")
    parser.add_argument("--seconds", type=float, default=3.0, help="the least time spent on each cell")
    parser.add_argument("--max-seconds", type=float, default=30.0, help="the most, where the rounds are done")
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()

    sys.path.insert(0, str(HERE / "worker_site"))  # the processes that time need torchvision's classes, too
    sizes = Sizes(options.size, options.tokens)
    rows = rows_of(kept(options.output))
    names = [name for name in options.nets if not (options.missing and name in rows)]
    failed = []
    for number, name in enumerate(names, 1):
        print(f"{number} of {len(names)}: {name}", file=sys.stderr, flush=True)
        try:
            rows[name] = timed(
                NETS[name],
                sizes,
                options.round_to,
                runtimes=options.runtimes,
                precisions=options.precisions,
                batch_sizes=options.batch,
                devices=options.devices,
                min_pairs=options.pairs,
                min_seconds=options.seconds,
                max_seconds=max(options.max_seconds, options.seconds),
            )
        except SurgeryError as error:  # the other nets go on
            failed.append(f"{name} was not timed: {first_line(error)}")
            print(failed[-1], file=sys.stderr, flush=True)
            continue
        keep(options.output, {"nets": {name: rows[name] for name in NETS if name in rows}}, indent=None)
    print(*failed, sep="\n", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
