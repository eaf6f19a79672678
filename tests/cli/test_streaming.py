"""`surgery choose --stream`: MODEL without weights, and a checkpoint that is read one tensor at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.torchvision_cpu  # noqa: F401 (transformers looks for torchvision)
import surgery as package
from surgery.sources import load_model
from tests.cli.conftest import IMAGE, CommandLine
from tests.streaming.sharded import sharded

transformers = pytest.importorskip("transformers")


def test_shards_beside_a_factory(surgery: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    (surgery.place / "shards").mkdir()
    monkeypatch.chdir(surgery.place)
    real = load_model("cli_zoo:dense").model
    sharded(real, surgery.place / "shards", size_bytes=500)
    words = ("--stream", "--checkpoint", "shards", "--keep", "0.5")
    ran = surgery("choose", "cli_zoo:dense", *IMAGE, *words, "-o", "plan.json", "--json")
    assert ran.code == 0
    plan = package.Plan.read(surgery.place / "plan.json")
    assert plan == package.choose(real, torch.randn(2, 3, 9, 9), keep_ratio=0.5)
    assert ran.data["removed_channels"] == plan.removed_channels > 0


def test_a_directory_of_transformers_holds_its_own(surgery: CommandLine) -> None:
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4, "vocab_size": 20}
    model: Any = transformers.BertModel(transformers.BertConfig(num_hidden_layers=2, **sizes)).eval()
    model.save_pretrained(surgery.place / "from", max_shard_size="5KB")
    assert len(list((surgery.place / "from").glob("*.safetensors"))) > 3
    ran = surgery("choose", "from", "--stream", "--input", "input_ids=1x5:int64[0,19]", "-o", "plan.json")
    assert ran.code == 0
    plan = package.Plan.read(surgery.place / "plan.json")
    ids = torch.randint(0, 20, (1, 5))
    assert plan.groups == package.choose(model, (), {"input_ids": ids}).groups
    assert package.verify(plan.mask(model), plan.apply(model), (), {"input_ids": ids}).passed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("cli_zoo:dense", "--stream"), "add --checkpoint DIRECTORY"),
        (("cli_zoo:dense", "--stream", "--checkpoint", "nowhere"), "no file or directory 'nowhere'"),
        (("cli_zoo:dense", "--stream", "--checkpoint", "x", "--strip-prefix", "m."), "--strip-prefix does not go with"),
        (("cli_zoo:dense", "--stream", "--checkpoint", "x", "--factory", "m"), "--factory does not go with --stream"),
        (("saved", "--stream"), "was written by surgery"),
    ],
)
def test_what_does_not_go(surgery: CommandLine, words: tuple[str, ...], told: str) -> None:
    (surgery.place / "saved").mkdir()
    Path(surgery.place / "saved" / "surgery.json").write_text("{}")
    ran = surgery("choose", *words, *IMAGE)
    assert ran.code == 2
    assert told in ran.error
