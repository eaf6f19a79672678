"""The steps of the demo: each announces itself, does one thing as a user would, and says what came of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from surgery.demo.account import layers_of, reasons
from surgery.demo.digits import Digits
from surgery.demo.net import DigitNet
from surgery.demo.outcome import BATCHES, RUNTIMES
from surgery.demo.telling import Teller
from surgery.demo.training import accuracy, mask_half_, scores, train_
from surgery.exporting import Export, export
from surgery.latency import Benchmark, benchmark
from surgery.proof.prove import Proof
from surgery.results import Result
from surgery.shrinking import shrink

SEED = 0
ROUND_TO = 8
EXAMPLES = 4
"""How many test pictures are shown to `shrink` and to the exporters as an example of an input."""


def train(teller: Teller, digits: Digits, epochs: int) -> nn.Module:
    """A net that reads digits."""
    teller.step("Train a small net: residual blocks, a depthwise block, a concat, BatchNorm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = DigitNet()
    train_(model, digits, epochs=epochs, learning_rate=3e-3, seed=SEED, what="training")
    answers = scores(model, digits.test_pictures)
    teller.say(
        f"Trained on {len(digits.pictures):,} handwritten digits of 8 x 8 pixels (scikit-learn's); right on "
        f"{accuracy(answers, digits.test_labels):.1%} of {len(answers)} others."
    )
    return model


def mask(teller: Teller, dense: nn.Module, digits: Digits, epochs: int) -> nn.Module:
    """A copy with half the filters of every convolution masked, and trained on."""
    teller.step("Mask half of every convolution's filters (torch.nn.utils.prune.ln_structured)")
    masked = copy.deepcopy(dense)
    mask_half_(masked)
    hurt = accuracy(scores(masked, digits.test_pictures), digits.test_labels)
    train_(masked, digits, epochs=epochs, learning_rate=2e-3, seed=SEED + 1, what="training under the masks")
    answers = scores(masked, digits.test_pictures)
    teller.say(
        f"Half of all filters are zero now. That costs accuracy (only {hurt:.1%} are right); training on under the "
        f"masks brings it back: {accuracy(answers, digits.test_labels):.1%}. The net is as large and as slow as "
        "before, for a zero is multiplied like any other number."
    )
    return masked


def cut(teller: Teller, masked: nn.Module, digits: Digits) -> tuple[Result, Proof]:
    """The slim net, with what went, what stayed and why."""
    teller.step("Cut out what is dead, and prove that the function is the same: surgery.shrink")
    result = shrink(masked, digits.test_pictures[:EXAMPLES], round_to=ROUND_TO)
    assert result.proof is not None, "shrink was asked for a proof"
    layers = layers_of(masked, result.plan)
    filters, kept = (sum(getattr(layer, name) for layer in layers) for name in ("filters", "kept"))
    masks, gone = (sum(getattr(layer, name) for layer in layers) for name in ("masked", "masked_gone"))
    unread = filters - kept - gone
    teller.say(
        f"{masks} of {filters} filters were masked; {gone} of them are gone"
        + (f", and {unread} others with them, which nothing read any more." if unread else ".")
    )
    widths = (f"{layer.name} {layer.filters} -> {layer.kept}" for layer in layers if layer.kept < layer.filters)
    teller.say("Filters left: " + ", ".join(widths) + ".")
    teller.say(f"{masks - gone} masked filters are stranded, that is zero and still here. They")
    for count, why, where in reasons(layers):
        teller.say(f"{why} ({', '.join(where)})", bullet=f"{count:>4} ")
    teller.say("(result.plan.explain tells of any one channel; surgery.choose makes masks on which all layers agree.)")
    teller.say(_in_words(result.proof))
    return result, result.proof


def _in_words(proof: Proof) -> str:
    if not proof.passed:
        return str(proof)
    wide = "" if proof.max_rel_error_float64 is None else f"{proof.max_rel_error_float64:.0e} in float64, "
    return (
        f"Proof passed: on {proof.n_inputs} inputs, another picture size among them, masked and slim differ by {wide}"
        f"{proof.max_rel_error:.0e} in {proof.dtype}, relative to how much the answers vary. That is rounding."
    )


def compare(teller: Teller, masked: Tensor, slim: Tensor) -> tuple[int, float]:
    """How often two nets name the same digit, and the largest difference of a score; both `[n, 10]`."""
    same = int((masked.argmax(1) == slim.argmax(1)).sum())
    difference = float((masked - slim).abs().max())
    teller.say(
        f"On the test pictures they name the same digit {same} times of {len(slim)}; no score differs by more than "
        f"{difference:.0e}."
    )
    return same, difference


def save(teller: Teller, result: Result, place: Path, digits: Digits) -> float:
    """The largest difference between the slim net and what comes back from disk."""
    from surgery.checkpoints import load, save

    teller.step("Save the slim net (safetensors and JSON, no pickle) and load it again")
    save(result, place / "slim")
    loaded = load(place / "slim", DigitNet).eval()
    before, after = (scores(model, digits.test_pictures) for model in (result.model, loaded))
    difference = float((before - after).abs().max())
    size = sum(file.stat().st_size for file in (place / "slim").iterdir())
    told = "gives exactly the same scores" if difference == 0 else f"gives other scores, by up to {difference:.0e}"
    teller.say(f"Saved slim/: {size / 1e6:.1f} MB; the net that was loaded from it {told}.")
    return difference


def export_all(teller: Teller, slim: nn.Module, place: Path, digits: Digits) -> tuple[Export, ...]:
    """The slim net as files for other runtimes."""
    teller.step("Export it to TorchScript and ONNX, and run both files")
    example = digits.test_pictures[:EXAMPLES]
    made = []
    for name in ("digits.pt", "digits.onnx"):
        exported = export(slim, place / name, example)
        made.append(exported)
        batches = ", ".join(str(size) for size in exported.parity.batch_sizes)
        teller.say(
            f"Exported {name}: {exported.size_bytes / 1e6:.1f} MB; its runtime's answers agree with the slim net's to "
            f"{exported.parity.max_rel_error:.0e}, at batch sizes {batches}."
        )
    return tuple(made)


def measure(teller: Teller, models: Mapping[str, nn.Module], digits: Digits) -> Benchmark:
    """The latencies of dense, masked (twice) and slim."""
    teller.step("Time dense, masked and slim in three runtimes, in turn: about a minute")
    return benchmark(
        models,
        digits.test_pictures[:EXAMPLES],
        runtimes=tuple(RUNTIMES),
        batch_sizes=BATCHES,
        min_pairs=30,
        min_seconds=1.0,
        max_seconds=3.0,
    )
