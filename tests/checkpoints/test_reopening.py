"""A saved directory, loaded to be trained, and written again: as it was, with other weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import benchmarks.torchvision_cpu  # noqa: F401 (transformers looks for torchvision)
import surgery
from surgery.checkpoints import describe, lineage, reopen
from surgery.errors import InputError
from surgery.results import Result
from tests.checkpoints import nets

transformers = pytest.importorskip("transformers")

IDS = torch.tensor([[1, 5, 9, 2, 7, 11, 3], [4, 4, 8, 6, 1, 2, 9]])
RUN = {"epochs": 2}


def trained(result: Result) -> Result:
    """With other weights, and a record of it."""
    with torch.no_grad():
        for number, parameter in enumerate(result.model.parameters()):
            parameter.add_(0.01 * (number + 1))
    return replace(result, training=(*result.training, RUN))


def bert(path: Path, *, uniform: bool) -> Path:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        num_hidden_layers=2, hidden_size=48, intermediate_size=80, num_attention_heads=4, vocab_size=20
    )
    model = transformers.BertModel(config).eval()
    model.save_pretrained(path / "from")
    (path / "from" / "vocab.txt").write_text("a b c")
    plan = surgery.choose(model, (), {"input_ids": IDS}, keep_ratio=0.5, uniform=uniform)
    result = surgery.shrink(plan.mask(model), (), {"input_ids": IDS}, uniform=uniform)
    surgery.save(result, path / "slim", source=str(path / "from"))
    return path / "slim"


@pytest.mark.parametrize("uniform", [True, False])
def test_a_transformers_directory_keeps_all_but_its_weights(tmp_path: Path, uniform: bool) -> None:
    slim = bert(tmp_path, uniform=uniform)
    assert describe(slim).plain is uniform
    (slim / "tokenizer.json").write_text("put there since")
    result = trained(reopen(slim))
    surgery.save(result, tmp_path / "out")
    before, after = describe(slim), describe(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in slim.iterdir()}
    for name in ("config.json", "source/config.json", "vocab.txt", "tokenizer.json"):
        if (slim / name).is_file():
            assert (tmp_path / "out" / name).read_bytes() == (slim / name).read_bytes()
    assert after.plan == before.plan
    assert after.manifest.proof == before.manifest.proof
    assert after.manifest.training == (RUN,)
    assert after.manifest.weights_sha256 != before.manifest.weights_sha256
    ways = (surgery.load, transformers.AutoModel.from_pretrained) if uniform else (surgery.load,)
    for way in ways:
        assert_close(way(tmp_path / "out").state_dict(), result.model.state_dict(), rtol=0, atol=0)


def test_a_model_of_the_users_own(tmp_path: Path) -> None:
    made = surgery.shrink(nets.masked(), nets.EXAMPLE)
    surgery.save(made, tmp_path / "slim", source="nets:Net")
    again = reopen(tmp_path / "slim", nets.Net)
    assert again.proof == made.proof
    assert (again.params_after, again.macs_after, again.plan) == (made.params_after, made.macs_after, made.plan)
    surgery.save(trained(again), tmp_path / "slim", overwrite=True)
    once = reopen(tmp_path / "slim", nets.Net)
    assert_close(once.model(nets.EXAMPLE), again.model(nets.EXAMPLE), rtol=0, atol=0)
    assert describe(tmp_path / "slim").manifest.source == "nets:Net"
    surgery.save(trained(once), tmp_path / "twice")
    assert describe(tmp_path / "twice").manifest.training == (RUN, RUN)
    assert "proven, then trained, made from nets:Net" in str(describe(tmp_path / "twice"))


def test_exports_of_the_weights_before_are_left_out(tmp_path: Path) -> None:
    made = surgery.shrink(nets.masked(), nets.EXAMPLE)
    done = surgery.export(made.model, tmp_path / "model.pt2", nets.EXAMPLE)
    surgery.save(made, tmp_path / "slim", exports=[done])
    surgery.save(trained(reopen(tmp_path / "slim", nets.Net)), tmp_path / "out")
    assert not (tmp_path / "out" / "model.pt2").exists()
    manifest = describe(tmp_path / "out").manifest
    assert not manifest.exports
    assert "the weights before training, and were left out" in manifest.notes[-1]


def test_a_file_that_went_missing_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    slim = bert(tmp_path, uniform=False)
    result = trained(reopen(slim))
    (slim / "source" / "config.json").unlink()
    with pytest.raises(InputError, match=r"source/config\.json' cannot be read"):
        surgery.save(result, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "slim"]


def test_rounds_are_followed_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x = torch.randn(4, 6)
    model: nn.Module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    source = "zoo:dense"
    for name in ("one", "two", "three"):
        result = surgery.shrink(surgery.choose(model, x, keep_ratio=0.7).mask(model), x)
        surgery.save(result, name, source=source)
        model, source = result.model, name
    assert [saved.directory.name for saved in lineage(describe("three"))] == ["one", "two", "three"]
    assert [saved.directory.name for saved in lineage(describe("one"))] == ["one"]
    manifest = json.loads(Path("three", "surgery.json").read_text())
    assert manifest["source"] == "two"
    monkeypatch.chdir("/")
    assert [saved.directory.name for saved in lineage(describe(tmp_path / "three"))] == ["three"]
