"""From a directory of transformers to a slim one, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import benchmarks.torchvision_cpu  # noqa: F401 (transformers looks for torchvision)
from surgery.cli import main

transformers = pytest.importorskip("transformers")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        num_hidden_layers=2, hidden_size=24, intermediate_size=40, num_attention_heads=4, vocab_size=20
    )
    model = transformers.BertModel(config)
    with torch.no_grad():
        for dead, layer in zip((10, 16), model.encoder.layer, strict=True):
            layer.output.dense.weight[:, :dead] = 0
    model.save_pretrained(tmp_path / "from")
    (tmp_path / "from" / "vocab.txt").write_text("a b c")
    return tmp_path / "from"


def test_uniform_and_not(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["shrink", str(directory), "--input", "input_ids=2x5:int64[0,19]"]
    assert main([*words, "-o", str(tmp_path / "slim")]) == 0
    assert f'surgery.load("{tmp_path}/slim") loads it (its widths' in capsys.readouterr().out
    assert main([*words, "-o", str(tmp_path / "plain"), "--uniform", "--export", "onnx", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["params_after"] == said["params_before"] - 2 * 10 * 49
    assert [(one["path"], one["parity"]["passed"]) for one in said["exports"]] == [("model.onnx", True)]
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["intermediate_size"] == 30
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == [
        "config.json",
        "model.onnx",
        "model.safetensors",
        "surgery.json",
        "vocab.txt",
    ]
    for name in ("slim", "plain"):  # neither needs to be told what it was made from
        where = ["--input", "input_ids=3x7:int64[0,19]"]
        assert main(["verify", str(directory), str(tmp_path / name), *where]) == 0


def test_an_export_needs_a_directory(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["shrink", str(directory), "--input", "input_ids=2x5:int64[0,19]"]
    assert main([*words, "--export", "onnx"]) == 2
    assert "add --output DIRECTORY" in capsys.readouterr().err
    assert main([*words, "--export", "zip"]) == 2
    assert "unknown export format 'zip'" in capsys.readouterr().err
