"""Models of transformers: plain directories where the config can say the widths, slim ones where it cannot."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import benchmarks.torchvision_cpu  # noqa: F401 (transformers looks for torchvision)
import surgery
from surgery.checkpoints import describe
from surgery.checkpoints.directories import sha256
from surgery.checkpoints.manifest import digested
from surgery.errors import InputError
from tests.checkpoints.tampering import Bomb

transformers = pytest.importorskip("transformers")

IDS = torch.tensor([[1, 5, 9, 2, 7, 11, 3], [4, 4, 8, 6, 1, 2, 9]])
INPUTS = {"input_ids": IDS}

FRESH = """
import sys, json, torch
import benchmarks.torchvision_cpu
from transformers import AutoModel{head}
model = AutoModel{head}.from_pretrained(sys.argv[1]).eval()
assert not any(name.startswith("surgery") for name in sys.modules)
with torch.no_grad():
    print(json.dumps(model(torch.tensor({ids}))[0].flatten().tolist()))
"""


def llama(**changed: Any) -> nn.Module:
    settings = {
        "num_hidden_layers": 2,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 20,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings | changed)).eval()


def bert() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        num_hidden_layers=2, hidden_size=48, intermediate_size=80, num_attention_heads=4, vocab_size=20
    )
    return transformers.BertModel(config).eval()


def shrunk(model: nn.Module, **settings: Any) -> surgery.Result:
    masked = surgery.choose(model, (), INPUTS, keep_ratio=0.5, **settings).mask(model)
    return surgery.shrink(masked, (), INPUTS, **settings)


def answers(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**INPUTS)[0]


def in_a_fresh_process(directory: Path, head: str) -> torch.Tensor:
    code = FRESH.format(head=head, ids=IDS.tolist())
    run = subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return torch.tensor(json.loads(run.stdout.splitlines()[-1]))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory as people download it: weights, tokenizer, a cache's links, code, a card."""
    directory = tmp_path / "from"
    bert().save_pretrained(directory)
    for name in ("tokenizer.json", "vocab.txt", "1_Pooling/config.json", "chat_template.jinja", "train.py", "card.md"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(f"{{{name}}}")
    blob = tmp_path / "blob"
    blob.write_text("pieces")
    (directory / "spiece.model").symlink_to(blob)
    (directory / "pytorch_model.bin.index.json").write_text("{}")
    return directory


@pytest.mark.parametrize(
    ("make", "head", "said"),
    [
        (bert, "", {"intermediate_size": 40}),
        (
            llama,
            "ForCausalLM",
            {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2},
        ),
    ],
)
def test_uniform_widths_make_a_plain_directory(make: Any, head: str, said: dict[str, int], tmp_path: Path) -> None:
    model = make()
    cut = shrunk(model, uniform=True)
    surgery.save(cut, tmp_path / "slim")
    config = json.loads((tmp_path / "slim" / "config.json").read_text())
    changed = {
        name: config[name]
        for name, value in model.config.to_dict().items()
        if type(value) is int and config.get(name, value) != value
    }
    assert changed == said
    expected = answers(cut.model)
    assert_close(in_a_fresh_process(tmp_path / "slim", head), expected.flatten(), rtol=0, atol=1e-6)
    plain = surgery.load(tmp_path / "slim")
    assert type(plain) is type(model)
    assert_close(answers(plain), expected, rtol=0, atol=1e-6)
    replayed = surgery.load(tmp_path / "slim", make)  # on a fresh model, as any other
    assert_close(answers(replayed), expected, rtol=0, atol=0)


def test_a_captured_graph_may_be_a_plain_directory_too(tmp_path: Path) -> None:
    model = bert()
    forward = type(model.encoder.layer[0].output).forward

    class Insists(type(model.encoder.layer[0].output)):  # type: ignore[misc]
        def forward(self, hidden: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
            assert hidden.shape[-1] == 80
            return forward(self, hidden, given)

    for layer in model.encoder.layer:
        layer.output.__class__ = Insists
    cut = shrunk(model, uniform=True)
    assert cut.kind == "graph"
    surgery.save(cut, tmp_path / "slim")
    plain = surgery.load(tmp_path / "slim")
    assert type(plain) is type(model)
    assert_close(answers(plain), cut.model(**INPUTS)[0], rtol=0, atol=1e-6)


def test_other_widths_make_a_slim_directory_that_needs_no_model(tmp_path: Path) -> None:
    cut = shrunk(bert())
    surgery.save(cut, tmp_path / "slim")
    assert not (tmp_path / "slim" / "config.json").exists()
    again = surgery.load(tmp_path / "slim")
    assert type(again) is type(cut.model)
    assert_close(answers(again), answers(cut.model), rtol=0, atol=0)
    text = (tmp_path / "slim" / "source" / "config.json").read_text()
    (tmp_path / "slim" / "source" / "config.json").write_text(text.replace("48", "64"))
    with pytest.raises(InputError, match=r"source/config\.json' .* is not the file that was saved"):
        surgery.load(tmp_path / "slim")


def test_a_number_that_does_not_say_it_all_stays(tmp_path: Path) -> None:
    """T5's cross attention got narrower heads where the others have fewer: `num_heads` cannot say both."""
    torch.manual_seed(0)
    config = transformers.T5Config(num_layers=1, d_model=40, d_ff=72, d_kv=12, num_heads=4, vocab_size=20)
    inputs = INPUTS | {"decoder_input_ids": IDS[:, :4]}
    model = transformers.T5ForConditionalGeneration(config).eval()
    masked = surgery.choose(model, (), inputs, keep_ratio=0.5, uniform=True).mask(model)
    cut = surgery.shrink(masked, (), inputs, uniform=True)
    surgery.save(cut, tmp_path / "slim")
    said = json.loads((tmp_path / "slim" / "config.json").read_text())
    assert (said["num_heads"], said["d_ff"]) == (4, 36)
    with torch.no_grad():
        plain = surgery.load(tmp_path / "slim")(**inputs).logits
        assert_close(plain, cut.model(**inputs).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("uniform", [True, False])
def test_the_cache_of_a_slim_decoder_is_of_its_width(uniform: bool, tmp_path: Path) -> None:
    model = llama()
    masked = surgery.choose(model, (), INPUTS, keep_ratio=0.5, uniform=uniform).mask(model)
    cut = surgery.shrink(masked, (), INPUTS, uniform=uniform)
    surgery.save(cut, tmp_path / "slim")
    slim = surgery.load(tmp_path / "slim")
    settings = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with torch.no_grad():
        expected = masked.generate(IDS, use_cache=False, **settings)
        assert torch.equal(slim.generate(IDS, use_cache=True, **settings), expected)
        cache = slim(IDS, use_cache=True).past_key_values
    keys = cache.layers[0].keys
    assert keys.shape[1] * keys.shape[3] == slim.model.layers[0].self_attn.k_proj.out_features < 24


def test_tokenizers_go_along(source: Path, tmp_path: Path) -> None:
    surgery.save(shrunk(bert(), uniform=True), tmp_path / "slim", source=str(source))
    kept = {path.relative_to(tmp_path / "slim").as_posix() for path in (tmp_path / "slim").rglob("*") if path.is_file()}
    own = {"config.json", "model.safetensors", "surgery.json"}
    theirs = {"tokenizer.json", "vocab.txt", "1_Pooling/config.json", "chat_template.jinja", "spiece.model"}
    assert kept == own | theirs
    assert (tmp_path / "slim" / "spiece.model").read_text() == "pieces"
    assert not (tmp_path / "slim" / "spiece.model").is_symlink()
    assert json.loads((tmp_path / "slim" / "surgery.json").read_text())["files"].keys() == kept - own | {"config.json"}


def test_a_directory_with_more_files_is_replaced_unless_one_was_changed(source: Path, tmp_path: Path) -> None:
    cut = shrunk(bert())
    slim = tmp_path / "slim"
    surgery.save(cut, slim, source=str(source))
    surgery.save(cut, slim, overwrite=True)
    assert sorted(path.name for path in slim.iterdir()) == ["model.safetensors", "source", "surgery.json"]
    surgery.save(cut, slim, source=str(source), overwrite=True)
    (slim / "vocab.txt").write_text("mine now")
    (slim / "source" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"or that were changed since: source/notes\.txt, vocab\.txt"):
        surgery.save(cut, slim, overwrite=True)
    assert (slim / "vocab.txt").read_text() == "mine now"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_library_is_named(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    image = torch.randn(1, 3, 64, 64)
    torch.manual_seed(0)
    net = timm.create_model("resnet18", num_classes=7).eval()
    cut = surgery.shrink(surgery.choose(net, image).mask(net), image)
    surgery.save(cut, tmp_path / "slim")
    with pytest.raises(InputError, match="was made from a model that it does not name"):
        surgery.load(tmp_path / "slim")
    again = surgery.load(tmp_path / "slim", timm.create_model("resnet18", num_classes=7))
    with torch.no_grad():
        assert_close(again.eval()(image), cut.model(image), rtol=0, atol=1e-6)
    surgery.save(cut, tmp_path / "slim", source="timm:resnet18", overwrite=True)
    with pytest.raises(InputError, match=r"fc\.weight is \[1000, 512\], the plan was made for \[7, 512\]"):
        surgery.load(tmp_path / "slim")


def test_a_second_round_names_the_first(tmp_path: Path) -> None:
    first = shrunk(bert())
    surgery.save(first, tmp_path / "one")
    second = shrunk(surgery.load(tmp_path / "one"))
    surgery.save(second, tmp_path / "two", source=str(tmp_path / "one"))
    with pytest.raises(InputError, match=r"two' was made from '.*one', which has to be opened first"):
        surgery.load(tmp_path / "two")
    again = surgery.load(tmp_path / "two", surgery.load(tmp_path / "one"))
    assert_close(answers(again), answers(second.model), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"two does not fit the model: .*\[48"):
        surgery.load(tmp_path / "two", bert)


def test_a_plain_directory_is_not_nearly_the_same(tmp_path: Path) -> None:
    """One eps for all norms: those that lost channels have another now, those that did not need the old one."""
    torch.manual_seed(0)
    model = llama(rms_norm_eps=1e-4)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, :8] = 0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[:8] = 0
            layer.mlp.down_proj.weight[:8] = 0
    cut = surgery.shrink(model, (), INPUTS, uniform=True)
    surgery.save(cut, tmp_path / "slim")
    assert json.loads((tmp_path / "slim" / "config.json").read_text())["hidden_size"] == 40
    for layer in cut.model.model.layers:
        layer.input_layernorm.variance_epsilon *= 1.01  # what no config can say
    surgery.save(cut, tmp_path / "other")
    assert not (tmp_path / "other" / "config.json").exists()
    assert describe(tmp_path / "other").manifest.transformers == "source"


def test_a_hostile_plain_directory_runs_nothing(tmp_path: Path) -> None:
    """Somebody who can write all its files, hashes included, gets no code to run and no class of his."""
    slim, mark = tmp_path / "slim", tmp_path / "mark"
    surgery.save(shrunk(bert(), uniform=True), slim)
    manifest, weights = slim / "surgery.json", slim / "model.safetensors"
    whole = {path: path.read_bytes() for path in (manifest, weights, slim / "config.json")}

    def rewritten(files: dict[str, bytes], **changed: Any) -> None:
        for path, content in whole.items():
            path.write_bytes(content)
        for name, content in files.items():
            (slim / name).write_bytes(content)
        data = json.loads(manifest.read_text()) | changed
        data["files"] |= {name: sha256(slim / name) for name in files}
        manifest.write_bytes(digested(json.dumps(data).encode()))

    bomb = io.BytesIO()
    torch.save({"embeddings.word_embeddings.weight": Bomb(mark)}, bomb)
    rewritten({"pytorch_model.bin": bomb.getvalue()}, weights_sha256="")
    weights.unlink()
    with pytest.raises(InputError, match="cannot be built"):
        surgery.load(slim)
    (slim / "pytorch_model.bin").unlink()

    config = json.loads(whole[slim / "config.json"])
    code = json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}).encode()
    rewritten({"config.json": code, "evil.py": f"open({str(mark)!r}, 'w')".encode()})
    with pytest.raises(InputError, match="holds Python code of its own"):
        surgery.load(slim)
    (slim / "evil.py").unlink()

    rewritten({"config.json": json.dumps(config | {"vocab_size": 10**13}).encode()})
    with pytest.raises(InputError, match=r"cannot be built|lack"):
        surgery.load(slim)
    assert not mark.exists()


def test_settings_that_transformers_would_not_write_are_kept(tmp_path: Path) -> None:
    """Llama 2's own: a temperature, though nothing is sampled."""
    model = llama()
    model.generation_config.temperature = 0.9
    uniform = shrunk(model, uniform=True)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[:, :50] = 0
    for number, cut in enumerate((uniform, shrunk(model))):
        surgery.save(cut, tmp_path / f"slim{number}")
        assert (describe(tmp_path / f"slim{number}").manifest.transformers == "plain") == (cut is uniform)
        assert surgery.load(tmp_path / f"slim{number}").generation_config.temperature == 0.9


@pytest.mark.parametrize("uniform", [True, False])
def test_how_a_model_generates_goes_along(uniform: bool, tmp_path: Path) -> None:
    model = llama()
    model.generation_config.update(eos_token_id=[3, 7], repetition_penalty=1.7, max_new_tokens=7, pad_token_id=0)
    model.save_pretrained(tmp_path / "from")
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "from").eval()
    if not uniform:
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight[:, :50] = 0
    cut = shrunk(model, uniform=uniform)
    for number, source in enumerate((None, str(tmp_path / "from"))):
        surgery.save(cut, tmp_path / f"slim{number}", source=source)
        assert (describe(tmp_path / f"slim{number}").manifest.transformers == "plain") == uniform
        slim = surgery.load(tmp_path / f"slim{number}")
        assert slim.generation_config.eos_token_id == [3, 7]
        assert torch.equal(slim.generate(IDS), cut.model.generate(IDS))
    if not uniform:
        (tmp_path / "slim0" / "generation_config.json").write_text("{")
        with pytest.raises(InputError, match=r"generation_config\.json' cannot be read"):
            surgery.load(tmp_path / "slim0")


def test_what_a_model_is_made_from_is_not_replaced_by_it(source: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    surgery.save(shrunk(bert()), one, source=str(source))
    again = shrunk(surgery.load(one))
    with pytest.raises(InputError, match="is what the model is made from: it would be lost"):
        surgery.save(again, one, source=str(one), overwrite=True)
    assert (one / "source" / "config.json").is_file()
    surgery.save(again, tmp_path / "two", source=str(one))
    assert (tmp_path / "two" / "tokenizer.json").is_file()
    assert not (tmp_path / "two" / "source").exists()


def test_a_source_with_a_directory_of_that_name(source: Path, tmp_path: Path) -> None:
    (source / "source").mkdir()
    (source / "source" / "notes.json").write_text("{}")
    surgery.save(shrunk(bert()), tmp_path / "slim", source=str(source))
    assert [path.name for path in (tmp_path / "slim" / "source").iterdir()] == ["config.json"]
