"""Masked against slim: half the channels of every group of a ResNet-18, timed interleaved in each runtime.

    python -m benchmarks.masked_vs_slim            # a few minutes; writes benchmarks/results/masked_vs_slim.json

The masked net has its zeros baked in; the slim one is `shrink` of it. Ratios are medians of paired ratios with a 95 %
interval, above 1 where the slim net is faster.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

import surgery
from benchmarks import torchvision_cpu  # noqa: F401  # before torchvision
from benchmarks.prepared import prepare_

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "masked_vs_slim.json"


def main() -> None:
    """Choose, mask, shrink, time, and keep every raw sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=3.0, help="the least time spent on each cell")
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()

    sys.path.insert(0, str(HERE / "worker_site"))  # the processes that time need torchvision's classes, too
    import torchvision

    torch.manual_seed(0)
    dense = prepare_(torchvision.models.resnet18(weights=None))
    image = torch.randn(1, 3, options.size, options.size)
    plan = surgery.choose(dense, image, keep_ratio=0.5, round_to=options.round_to)
    masked = plan.mask(dense)
    result = surgery.shrink(masked, image, round_to=options.round_to)
    print(result)
    timed = surgery.benchmark(
        {"masked": masked, "slim": result.model}, image, batch_sizes=options.batch, min_seconds=options.seconds
    )
    print(timed.table())
    options.output.parent.mkdir(exist_ok=True)
    facts = {
        "net": "torchvision resnet18",
        "round_to": options.round_to,
        "params": [result.params_before, result.params_after],
        "macs": [result.macs_before, result.macs_after],
        "relative_error_float64": result.proof.max_rel_error_float64 if result.proof else None,
        "relative_error": result.proof.max_rel_error if result.proof else None,
        "benchmark": json.loads(timed.to_json()),
    }
    options.output.write_text(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
