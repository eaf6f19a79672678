"""Decoders and encoders of transformers, tiny: grouped queries, caches, generation, tied embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from tests.nets import zero_

transformers = pytest.importorskip("transformers")

IDS = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(3))
WIDTH = 6
SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def lively(model: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(drawn * 1.2 / parameter.shape[-1] ** 0.5)
            elif name.endswith("bias"):
                parameter.copy_(drawn * 0.3)
            else:
                parameter.add_(drawn * 0.2)
    return model.eval()


def decoder(kind: str, attention: str = "sdpa", **options: Any) -> Any:
    """Two query heads for each of two key heads, the default cache on."""
    options = {**SIZES, "attn_implementation": attention, "tie_word_embeddings": False, **options}
    if kind in ("Qwen3", "Gemma"):
        options["head_dim"] = WIDTH
    config = getattr(transformers, f"{kind}Config")(**options)
    assert config.use_cache
    return lively(getattr(transformers, f"{kind}ForCausalLM")(config))


def silence_(net: Any, heads: tuple[int, ...], neurons: int = 8) -> Any:
    """Nobody reads these query heads, nor the first neurons of each MLP."""
    for layer in net.model.layers:
        columns = [head * WIDTH + i for head in heads for i in range(WIDTH)]
        zero_(layer.self_attn.o_proj.weight, columns, dim=1)
        zero_(layer.mlp.down_proj.weight, range(neurons), dim=1)
    return net


ONE_OF_EACH = 2 * WIDTH * 24 * 2
KEY_HEAD = 2 * WIDTH * 24 * 2 + 2 * WIDTH * 24
NEURONS = 8 * 3 * 24


@pytest.mark.parametrize(("heads", "count"), [((1, 2), ONE_OF_EACH), ((2, 3), KEY_HEAD)], ids=["queries", "key head"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "Mistral", "Gemma"])
def test_two_query_heads_to_a_key_head(kind: str, attention: str, heads: tuple[int, ...], count: int) -> None:
    """Others never end. The slim model generates what the masked one does, padded on the left as well."""
    net = silence_(decoder(kind, attention), heads)
    result = surgery.shrink(net, IDS)
    assert result.kind == "class"
    assert not result.notes
    assert result.proof is not None
    assert result.proof.passed
    assert result.params_before - result.params_after == 2 * (count + NEURONS)
    padded = IDS.clone()
    padded[1, :4] = 0
    for ids in (IDS, padded):
        same_tokens(net, result.model, ids)


def same_tokens(net: Any, slim: Any, ids: Tensor) -> None:
    options = {"attention_mask": (ids != 0).long(), "max_new_tokens": 8, "do_sample": False}
    expected = net.generate(ids, **options)
    assert len(expected[:, ids.shape[1] :].unique()) > 3, "a test that could not fail"
    assert torch.equal(slim.generate(ids, **options), expected)


def test_the_number_of_copies_is_set_where_only_other_inputs_need_it() -> None:
    """Without a mask sdpa copies key heads itself; with one the model's code does, by a number of its own."""
    slim = surgery.shrink(silence_(decoder("Llama"), (1, 2)), IDS, prove=False).model
    assert slim.model.layers[0].self_attn.num_key_value_groups == 1
    assert slim.config.num_attention_heads == 4, "what modules share is not touched"


@pytest.mark.parametrize("kind", ["Llama", "Gemma"])
def test_zero_dims_of_the_stream(kind: str) -> None:
    """2 of 24 dims are zero wherever they are written: gains and eps make up for the width, or they stay explained."""
    net = decoder(kind)
    zero_(net.model.embed_tokens.weight, [3, 20], dim=1)
    for layer in net.model.layers:
        zero_(layer.self_attn.o_proj.weight, [3, 20])
        zero_(layer.mlp.down_proj.weight, [3, 20])
    result = surgery.shrink(net, IDS)
    assert result.proof is not None
    assert result.proof.passed
    per_layer = 24 + 2 * 12 + 24 + 3 * 20 + 2
    assert result.params_before - result.params_after == 2 * (50 + 2 * per_layer + 1 + 50)
    same_tokens(net, result.model, IDS)


def test_tied_embedding_and_head() -> None:
    """One tensor before, one tensor after; untied in every run of others."""
    net = silence_(decoder("Llama", tie_word_embeddings=True), (1, 2))
    assert net.lm_head.weight is net.model.embed_tokens.weight
    result = surgery.shrink(net, IDS)
    assert result.model.lm_head.weight is result.model.model.embed_tokens.weight
    assert result.params_before - result.params_after == 2 * (ONE_OF_EACH + NEURONS)
    zero_(net.model.embed_tokens.weight, [3], dim=1)
    for layer in net.model.layers:
        zero_(layer.self_attn.o_proj.weight, [3])
        zero_(layer.mlp.down_proj.weight, [3])
    slim = surgery.shrink(net, IDS).model
    assert slim.lm_head.weight is slim.model.embed_tokens.weight
    assert slim.lm_head.weight.shape == (50, 23)


def test_gpt2() -> None:
    """Its layers hold their weights the other way round (`Conv1D`): others remove nothing, silently."""
    config = transformers.GPT2Config(vocab_size=50, n_positions=32, n_embd=24, n_layer=2, n_head=4, n_inner=20)
    net = lively(transformers.GPT2LMHeadModel(config))
    for block in net.transformer.h:
        zero_(block.attn.c_proj.weight, range(6, 12))
        zero_(block.mlp.c_proj.weight, range(8))
    result = surgery.shrink(net, IDS)
    assert result.proof is not None
    assert result.proof.passed
    head, neuron = 6 * (3 * 25 + 24), 24 + 1 + 24
    assert result.params_before - result.params_after == 2 * (head + 8 * neuron)
    with torch.no_grad():
        ids = torch.randint(3, 50, (3, 14))
        torch.testing.assert_close(result.model(ids)["logits"], net(ids)["logits"], rtol=1e-5, atol=1e-5)


def test_bert_with_a_padded_batch() -> None:
    """Heads whose values are constant go only where no mask could hide everything; unread ones always."""
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20
    )
    net = lively(transformers.BertModel(config, add_pooling_layer=False))
    for layer in net.encoder.layer:
        zero_(layer.attention.output.dense.weight, range(6, 12), dim=1)
        zero_(layer.output.dense.weight, range(8), dim=1)
    mask = torch.ones_like(IDS)
    mask[1, :4] = 0
    result = surgery.shrink(net, (IDS, mask))
    assert result.kind == "class"
    assert result.proof is not None
    assert result.proof.passed
    assert result.params_before - result.params_after == 2 * (6 * (3 * 25 + 24) + 8 * (25 + 24))
    with torch.no_grad():
        ids, mask = torch.randint(3, 50, (3, 14)), (torch.arange(14) >= torch.tensor([[0], [5], [9]])).long()
        a, b = net(ids, mask)[0], result.model(ids, mask)[0]
    torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)


def test_a_model_without_weights_is_analysed() -> None:
    """On the meta device: groups, pins and sizes are known, what is dead is not."""
    sizes = {**SIZES, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 1000}
    with torch.device("meta"):
        net = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
    assert {p.device.type for p in net.parameters()} == {"meta"}
    analysis = surgery.analyze(net, torch.zeros(2, 9, dtype=torch.long, device="meta"))
    assert analysis.dead is None
    assert analysis.stranded is None
    assert not analysis.unruled_ops
    channels = {group.name: group.channels for group in analysis.groups}
    assert [channels[f"model.layers.{i}.mlp.gate_proj.weight"] for i in range(3)] == [96] * 3
    assert 64 in channels.values(), "the stream"
    assert str(analysis)
