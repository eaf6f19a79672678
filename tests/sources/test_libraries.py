from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import BertConfig, BertForSequenceClassification

from surgery.errors import InputError
from surgery.sources import is_library_model, load_model

RANDOM = "random weights (seed 0); give a checkpoint for trained ones"


@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "timm:test_resnet"])
def test_a_library_model_has_the_same_random_weights_every_time(spec: str) -> None:
    loaded = load_model(spec)
    torch.rand(1)
    state = torch.random.get_rng_state()
    again = load_model(spec)
    assert loaded.notes == (f"{spec}: {RANDOM}",)
    assert loaded.kind == spec.partition(":")[0]
    assert_close(loaded.model.state_dict(), again.model.state_dict(), rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert is_library_model(spec)


def test_a_checkpoint_takes_the_place_of_random_weights(tmp_path: Path) -> None:
    model = load_model("timm:test_resnet").model
    trained = {name: torch.full_like(tensor, 0.5) for name, tensor in model.state_dict().items()}
    save_file(trained, tmp_path / "trained.safetensors")
    loaded = load_model("timm:test_resnet", checkpoint=tmp_path / "trained.safetensors")
    assert loaded.notes == ()
    assert loaded.checkpoint == tmp_path / "trained.safetensors"
    assert_close(loaded.model.state_dict(), trained, rtol=0, atol=0)


def test_no_backbone_is_fetched_for_a_segmentation_model() -> None:
    assert load_model("torchvision:lraspp_mobilenet_v3_large").kind == "torchvision"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:resnet_18", "torchvision has no model 'resnet_18'\n  -> near: resnet18, "),
        ("timm:resnet_18", "timm has no model 'resnet_18'\n  -> near: resnet18, "),
        ("timm:@@@", "timm has no model '@@@'\n  -> timm lists its models with list_models()"),
    ],
)
def test_unknown_names(spec: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_model(spec)
    assert str(caught.value).startswith(message)


@pytest.mark.skipif(torch.version.cuda is not None, reason="torchvision's wheel fits this torch")
@pytest.mark.parametrize("spec", ["torchvision:resnet18", "timm:resnet18"])
def test_a_torchvision_for_another_torch_is_one_line(spec: str) -> None:
    code = f"from surgery.sources import load_model\nload_model({spec!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "surgery.errors.InputError: torchvision 0." in run.stderr
    assert "cannot be imported beside torch 2." in run.stderr
    assert "  -> its wheel was built for another torch (CUDA beside CPU): install both from one index" in run.stderr


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    settings = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=10, max_position_embeddings=8, **settings)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_transformers_directory_keeps_its_head(bert: Path) -> None:
    loaded = load_model(str(bert))
    assert type(loaded.model).__name__ == "BertForSequenceClassification"
    assert loaded.kind == "transformers"
    assert loaded.notes == (f"BertForSequenceClassification from {bert}",)
    trained = load_file(bert / "model.safetensors")
    assert_close({name: loaded.model.state_dict()[name] for name in trained}, trained, rtol=0, atol=0)
    assert not is_library_model(str(bert))


def test_a_directory_without_weights_says_so(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    first, again = load_model(str(bert)), load_model(str(bert))
    assert first.notes == (f"BertForSequenceClassification from {bert}: no weights in it, {RANDOM}",)
    assert_close(first.model.state_dict(), again.model.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_beside_a_directory(bert: Path) -> None:
    trained = {name: tensor + 1 for name, tensor in load_file(bert / "model.safetensors").items()}
    save_file(trained, bert / "other.safetensors")
    loaded = load_model(str(bert), checkpoint=bert / "other.safetensors")
    assert_close({name: loaded.model.state_dict()[name] for name in trained}, trained, rtol=0, atol=0)


def edit(bert: Path, **changes: object) -> None:
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps(config | changes))


def test_without_architectures_it_is_the_bare_model(bert: Path) -> None:
    edit(bert, architectures=None)
    assert load_model(str(bert)).notes == (f"BertModel from {bert}, 2 weights unused",)


def test_directories_that_are_refused(bert: Path) -> None:
    weights = load_file(bert / "model.safetensors")
    save_file(
        {name: weights[name] for name in weights if not name.startswith("classifier")}, bert / "model.safetensors"
    )
    with pytest.raises(InputError) as caught:
        load_model(str(bert))
    assert str(caught.value) == (
        f"the weights in {str(bert)!r} lack 2 of BertForSequenceClassification: classifier.bias, classifier.weight\n"
        "  -> correct `architectures` in config.json; weights saved masked go in as a checkpoint"
    )
    (bert / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"cannot be built: SafetensorError: .*\n  -> try it in the library"):
        load_model(str(bert))
    edit(bert, auto_map={"AutoModel": "modeling.Net"})
    with pytest.raises(
        InputError, match=r"holds Python code of its own \(auto_map in config.json\)\n  -> read it, and"
    ):
        load_model(str(bert))
    (bert / "config.json").write_text('{"model_type": ')
    with pytest.raises(
        InputError, match=r"config.json' cannot be read: Expecting value.*\n  -> copy the directory again"
    ):
        load_model(str(bert))
    (bert / "config.json").write_text("[]")
    with pytest.raises(InputError, match=r"names no model_type\n  -> give a directory that save_pretrained wrote"):
        load_model(str(bert))


def test_names_in_a_config_that_are_no_models(bert: Path) -> None:
    for odd in (["BertTokenizer"], [3], "BertModel", {"a": 1}, ["os"]):
        edit(bert, architectures=odd)
        assert load_model(str(bert)).notes == (f"BertModel from {bert}, 2 weights unused",)
    (bert / "config.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"config\.json' cannot be read"):
        load_model(str(bert))


def test_weights_in_another_form_are_not_replaced_by_random_ones(bert: Path) -> None:
    (bert / "model.safetensors").rename(bert / "model.fp16.safetensors")
    with pytest.raises(InputError, match=r"has no weights under a name .* but 'model\.fp16\.safetensors'"):
        load_model(str(bert))
    (bert / "model.fp16.safetensors").rename(bert / "model.safetensors")
    (bert / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="holds an adapter beside the model"):
        load_model(str(bert))
