"""The steps of the demo: each announces itself, does one thing as a user would, and says what came of it."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from surgery.demo.account import layers_of, reasons
from surgery.demo.digits import Digits
from surgery.demo.net import DigitNet
from surgery.demo.outcome import BATCHES, DENSE, HOOKS, RUNTIMES, SLIM, ZEROS
from surgery.demo.telling import Teller
from surgery.demo.training import accuracy, mask_half_, scores, train_
from surgery.export import Export, export
from surgery.latency import Benchmark, benchmark
from surgery.masks import bake
from surgery.proof.prove import Proof
from surgery.results import Result
from surgery.shrinking import shrink

SEED = 0
ROUND_TO = 8
EXAMPLES = 4
"""How many test pictures are shown to `shrink` and to the exporters as an example of an input."""


def train(teller: Teller, digits: Digits, epochs: int) -> tuple[nn.Module, Tensor]:
    """A net that reads digits, and its answers to the test pictures."""
    teller.step("Train a small net: residual blocks, a depthwise block, a concat, BatchNorm everywhere")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = DigitNet()
    train_(model, digits, epochs=epochs, learning_rate=3e-3, seed=SEED, what="training")
    answers = scores(model, digits.test_pictures)
    teller.say(
        f"Trained on {len(digits.pictures):,} handwritten digits of 8 x 8 pixels (scikit-learn's); right on "
        f"{accuracy(answers, digits.test_labels):.1%} of {len(answers)} others."
    )
    return model, answers


def mask(teller: Teller, dense: nn.Module, digits: Digits, epochs: int) -> tuple[nn.Module, Tensor]:
    """A copy with half the filters of every convolution masked, trained on; and its answers."""
    teller.step("Mask half the filters of every convolution with torch.nn.utils.prune.ln_structured, and train on")
    masked = copy.deepcopy(dense)
    mask_half_(masked)
    hurt = accuracy(scores(masked, digits.test_pictures), digits.test_labels)
    train_(masked, digits, epochs=epochs, learning_rate=2e-3, seed=SEED + 1, what="training under the mask")
    answers = scores(masked, digits.test_pictures)
    teller.say(
        f"Half of all filters are zero. That costs accuracy ({hurt:.1%} are right), but training on under the mask brings "
        f"it back: {accuracy(answers, digits.test_labels):.1%}. The net is as large and as slow as before: a zero is "
        "multiplied like any other number."
    )
    return masked, answers


def cut(teller: Teller, masked: nn.Module, digits: Digits) -> tuple[Result, Proof]:
    """The slim net, with what went, what stayed and why."""
    teller.step("Cut out what is dead, and prove that nothing else changed: surgery.shrink(model, example_inputs)")
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
    teller.say(
        f"{masks - gone} masked filters are stranded: they are zero, but cannot go without changing the answers."
    )
    for count, why, where in reasons(layers):
        teller.say(f"{why} ({', '.join(where)})", bullet=f"{count:>4} ")
    example = next((layer for layer in layers if layer.example is not None), None)
    if example is not None:
        name = f"{example.name}.weight"
        teller.say("Any channel can be asked about:")
        teller.say(f'>>> result.plan.explain("{name}", {example.example})', bullet="  ")
        teller.say(result.plan.explain(name, example.example), bullet="  ")
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


def compare(teller: Teller, answers: Tensor, slim: nn.Module, digits: Digits) -> Tensor:
    """The slim net's answers to the test pictures, beside the masked net's."""
    slim_answers = scores(slim, digits.test_pictures)
    same = int((answers.argmax(1) == slim_answers.argmax(1)).sum())
    teller.say(
        f"On the test pictures they name the same digit {same} times of {len(answers)}; no score differs by more than "
        f"{float((answers - slim_answers).abs().max()):.0e}."
    )
    return slim_answers


def save(teller: Teller, result: Result, place: Path, digits: Digits) -> float:
    """The largest difference between the slim net and what comes back from disk."""
    from surgery.checkpoints import load, save

    teller.step("Save the slim net, and load it into a fresh one: safetensors and JSON, no pickle")
    save(result, place / "slim")
    loaded = load(place / "slim", DigitNet).eval()
    before, after = (scores(model, digits.test_pictures) for model in (result.model, loaded))
    difference = float((before - after).abs().max())
    size = sum(file.stat().st_size for file in (place / "slim").iterdir())
    told = "answers exactly as before" if difference == 0 else f"answers differently, by up to {difference:.0e}"
    teller.say(f"slim/ takes {size / 1e6:.1f} MB; the net that was loaded from it {told}.")
    return difference


def export_all(teller: Teller, slim: nn.Module, place: Path, digits: Digits) -> tuple[Export, ...]:
    """The slim net as files for other runtimes."""
    teller.step("Export it to TorchScript and ONNX, and run both files to see that they agree with it")
    example = digits.test_pictures[:EXAMPLES]
    made = []
    for name in ("digits.pt", "digits.onnx"):
        exported = export(slim, place / name, example)
        made.append(exported)
        batches = " and ".join(str(size) for size in exported.parity.batch_sizes)
        teller.say(
            f"{name}: {exported.size_bytes / 1e6:.1f} MB, agrees to {exported.parity.max_rel_error:.0e} at batch {batches}."
        )
    return tuple(made)


def measure(teller: Teller, dense: nn.Module, masked: nn.Module, slim: nn.Module, digits: Digits) -> Benchmark:
    """The latencies of dense, masked (twice) and slim."""
    teller.step("Time dense, masked and slim in three runtimes, one call at a time in turn: about a minute")
    return benchmark(
        {DENSE: dense, HOOKS: masked, ZEROS: bake(masked), SLIM: slim},
        digits.test_pictures[:EXAMPLES],
        runtimes=tuple(RUNTIMES),
        batch_sizes=BATCHES,
        min_pairs=30,
        min_seconds=1.0,
        max_seconds=3.0,
    )
