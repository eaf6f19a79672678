"""Masked, then slim, then int8: what each step gains and costs.

    python -m benchmarks.quantized                 # ten minutes; writes benchmarks/results/quantized.json
    python -m benchmarks.quantized digits --seconds 0.2 --epochs 1 --output quick.json

Two nets: that of `surgery demo`, trained on handwritten digits as the demo trains it, whose accuracy counts; and a
torchvision ResNet-18 of random weights at 224 x 224 with half of every group zeroed, whose outputs are compared with
those of the slim float net (random weights have none of the redundancy that training brings: a hard case for int8). The
files run in ONNX Runtime, interleaved in one process, on one thread; dense and masked also in eager mode, in a process
of their own. Every raw sample is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import surgery
from benchmarks import torchvision_cpu  # noqa: F401  # before torchvision
from benchmarks.prepared import prepare_
from surgery.demo import steps
from surgery.demo.digits import load_digits
from surgery.demo.story import EPOCHS
from surgery.demo.telling import Teller
from surgery.demo.training import accuracy
from surgery.latency import Benchmark
from surgery.masks import bake
from surgery.proof.cost import size_bytes
from surgery.quantizing.float_file import FloatFile, runner
from surgery.quantizing.running import AsModule

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "quantized.json"
SIZE = 224
IMAGES = 128
"""Random images for the ResNet: three in four to calibrate with, the others to compare on."""

FILES = ("masked", "slim", "int8")
"""What runs in ONNX Runtime."""


@dataclass(frozen=True)
class Trio:
    """A net in three states, and what it is run on."""

    net: str
    dense: nn.Module
    masked: nn.Module
    slim: nn.Module
    data: Tensor
    test: tuple[Tensor, Tensor] | None
    batches: tuple[int, ...]


def digits(epochs: tuple[int, int]) -> Trio:
    """The net of the demo, trained, masked and cut as there; ranges are learnt from pictures of the training."""
    found, teller = load_digits(), Teller(silent=True)
    dense = steps.train(teller, found, epochs[0])
    masked = steps.mask(teller, dense, found, epochs[1])
    slim = steps.cut(teller, masked, found)[0].model
    test = (found.test_pictures, found.test_labels)
    return Trio("digits", dense, bake(masked), slim, found.pictures, test, (1, 64))


def resnet18(size: int = SIZE) -> Trio:
    """A ResNet-18 with half of the channels of every group zeroed, chosen as in `benchmarks.masked_vs_slim`."""
    import torchvision

    torch.manual_seed(0)
    dense = prepare_(torchvision.models.resnet18(weights=None))
    images = _images(size)
    masked = surgery.choose(dense, images[:1], keep_ratio=0.5, round_to=8).mask(dense)
    _settle_(masked, images)
    slim = surgery.shrink(masked, images[:1], round_to=8).model
    return Trio("resnet18", dense, masked, slim, images, None, (1, 8))


def _images(size: int) -> Tensor:
    """Random patches of colour with a little noise: pure noise looks the same everywhere to a mean over the image."""
    patches = F.interpolate(torch.randn(IMAGES, 3, 7, 7), size=(size, size), mode="bicubic")
    return patches + 0.1 * torch.randn(IMAGES, 3, size, size)


def _settle_(net: nn.Module, images: Tensor) -> None:
    """Give BatchNorms the statistics of the images, as training does: else the outputs of a random net hardly vary.

    Channels that are zero keep theirs, and so what they send on, by which the plan was made.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    net.train()
    with torch.no_grad():
        for part in images.split(32):
            net(part)
        for norm, old in zip(norms, before, strict=True):
            zero = norm.get_buffer("running_var") == 0
            for name in ("running_mean", "running_var"):
                norm.get_buffer(name)[zero] = old[name][zero]
    net.eval()


def measured(trio: Trio, *, seconds: float, max_seconds: float) -> dict[str, Any]:
    """Everything about one net, ready for JSON."""
    example = trio.data[:2]
    with tempfile.TemporaryDirectory() as name:
        paths = {state: Path(name) / f"{state}.onnx" for state in FILES}
        surgery.export(trio.masked, paths["masked"], example)
        surgery.export(trio.slim, paths["slim"], example)
        done = surgery.quantize(paths["slim"], paths["int8"], example, data=trio.data)
        print(done)
        clock: dict[str, Any] = {"min_pairs": 20, "min_seconds": seconds, "max_seconds": max_seconds}
        files = surgery.benchmark(paths, example, batch_sizes=trio.batches, **clock)
        found = {state: path.stat().st_size for state, path in paths.items()}
        right = {} if trio.test is None else dict(_accuracies(trio, paths))
    eager = surgery.benchmark(
        {"dense": trio.dense, "masked": trio.masked},
        example,
        runtimes=("eager",),
        batch_sizes=trio.batches,
        **clock,
    )
    return {
        "net": trio.net,
        "bytes": {"dense": size_bytes(trio.dense), **found},
        "accuracy": right,
        "quantized": done.as_dict() | {"path": done.path.name},
        "eager": json.loads(eager.to_json()),
        "onnxruntime": json.loads(files.to_json()),
    }


def _accuracies(trio: Trio, paths: Mapping[str, Path]) -> Iterator[tuple[str, float]]:
    """Of the dense net, and of every file, on pictures that none of them has seen."""
    assert trio.test is not None, "the caller asks only where there are labels"
    pictures, labels = trio.test
    with torch.no_grad():
        yield "dense", accuracy(trio.dense(pictures), labels)
        slots = FloatFile.open(paths["slim"]).slots
        for state, path in paths.items():
            answers = AsModule(runner(path), slots)(pictures)
            assert isinstance(answers, Tensor), "these nets have one output"
            yield state, accuracy(answers, labels)


def table(facts: dict[str, Any]) -> str:
    """The results as markdown."""
    lines = [
        "| net | model | size | right, or int8 beside float | batch | median | times faster (95 % interval) |",
        "|---|---|---|---|---|---|---|",
    ]
    for net in facts["nets"]:
        lines += _lines(net)
    timed = [Benchmark.from_json(json.dumps(net[name])) for net in facts["nets"] for name in ("eager", "onnxruntime")]
    known = [load for one in timed for load in (one.load_start, one.load_end) if load is not None]
    notes = [_net_note(net) for net in facts["nets"]]
    rounds = min(cell.rows[0].summary().n for one in timed for cell in one.cells)
    how = (
        "Times faster than the masked float file in ONNX Runtime. Eager mode runs in a process of its own: its ratio "
        "is that of the medians, without an interval."
    )
    load = f"load average {min(known):.1f} to {max(known):.1f}" if known else "load unknown"
    where = f"Measured on {timed[0].machine}; one thread, {load}, {rounds} rounds or more"
    return "\n".join([*lines, "", *notes, "", how, "", f"{where}; `python -m benchmarks.quantized`."])


def _lines(net: dict[str, Any]) -> Iterator[str]:
    """A line per batch and model."""
    eager, files = (Benchmark.from_json(json.dumps(net[name])) for name in ("eager", "onnxruntime"))
    for one, cell in zip(eager.cells, files.cells, strict=True):
        masked_ms = cell.row("masked").summary().p50_ms
        for state in ("dense", "masked"):
            ms = one.row(state).summary().p50_ms
            yield _line(net, state, f"{state}, eager", cell.batch, ms, f"{masked_ms / ms:.2f}")
        for state, told in zip(FILES, ("masked float", "slim float", "slim int8"), strict=True):
            ms = cell.row(state).summary().p50_ms
            ratio = files.ratio_in(cell, "masked", state) if state != "masked" else None
            gain = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "1"
            if ratio is not None and ratio.verdict not in ("faster", "slower"):
                gain += f", {ratio.verdict}"
            yield _line(net, state, f"{told}, ONNX Runtime", cell.batch, ms, gain)


def _line(net: dict[str, Any], state: str, told: str, batch: int | None, ms: float, gain: str) -> str:
    size = net["bytes"]["dense" if told.endswith("eager") else state]
    if net["accuracy"]:
        alike = f"{net['accuracy'][state]:.1%}"
    elif state == "int8":
        (agreement,) = net["quantized"]["agreement"]
        alike = f"cosine {agreement['mean_cosine']:.4f}"
    else:
        alike = "same" if state != "dense" else ""
    digits = 3 if ms < 1 else 2 if ms < 10 else 1
    return f"| {net['net']} | {told} | {size / 1e6:.1f} MB | {alike} | {batch} | {ms:.{digits}f} ms | {gain} |"


def _net_note(net: dict[str, Any]) -> str:
    """How the int8 file of one net came about."""
    done = net["quantized"]
    (agreement,) = done["agreement"]
    return (
        f"* {net['net']}: {done['method']}, {done['share']['quantised']} of {done['share']['total']} convolutions and "
        f"matrix products in int8, calibrated on {done['calibrated']} samples; on {done['compared']} others cosine "
        f"{agreement['min_cosine']:.4f} at least, {agreement['mean_cosine']:.4f} on average, error "
        f"{agreement['error']:.1%} of what the outputs vary, same top-1 on {agreement['top1']:.1%}."
        + ("" if net["accuracy"] else " Its weights are random: its outputs are much alike, and little decides top-1.")
    )


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=["digits", "resnet18"], help="digits, resnet18; both by default")
    parser.add_argument("--seconds", type=float, default=5.0, help="the least time spent on each cell")
    parser.add_argument("--max-seconds", type=float, default=30.0)
    parser.add_argument("--epochs", type=int, nargs=2, default=EPOCHS, help="of training, and under the mask")
    parser.add_argument("--size", type=int, default=SIZE, help="height and width of the ResNet's images")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    makers = {"digits": lambda: digits(tuple(given.epochs)), "resnet18": lambda: resnet18(given.size)}
    torch.set_num_threads(1)
    sys.path.insert(0, str(HERE / "worker_site"))  # the process that times eager mode needs torchvision's classes, too
    facts: dict[str, Any] = {"nets": []}
    for name in given.nets:
        facts["nets"].append(measured(makers[name](), seconds=given.seconds, max_seconds=given.max_seconds))
        given.output.write_text(json.dumps(facts) + "\n")
    print(table(facts))


if __name__ == "__main__":
    main()
