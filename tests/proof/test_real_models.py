"""Library models as they are, with random weights: equal models pass, and cuts by hand that are wrong do not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from surgery.cutting.twins import float64_copy
from surgery.inputs import Inputs
from surgery.proof.cost import cost
from surgery.proof.prove import prove, verify


def reordered(model: nn.Module, producer: str, consumer: str) -> nn.Module:
    """A copy with the units between two linear layers in reverse order: the same function, other rounding."""
    model = copy.deepcopy(model)
    first, second = model.get_submodule(producer), model.get_submodule(consumer)
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(0))
        first.bias.copy_(first.bias.flip(0))
        second.weight.copy_(second.weight.flip(1))
    return model


def nudged(model: nn.Module, name: str) -> nn.Module:
    """A copy with one row of one weight off by a thousandth."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.get_parameter(name)[0] *= 1.001
    return model


def test_resnet18_at_two_resolutions() -> None:
    from torchvision.models import resnet18

    model = resnet18()
    x = torch.randn(1, 3, 32, 32)
    proof = verify(model, model, x)
    assert proof.passed, proof
    assert proof.shapes[-1] == "another size [1, 3, 64, 64]"
    wrong = verify(model, nudged(model, "layer2.0.conv1.weight"), x)
    assert not wrong.passed
    assert cost(model, Inputs.of(torch.randn(1, 3, 224, 224))).macs == 1_814_073_344
    assert cost(model, Inputs.of(x)).params == 11_689_512


def test_vit_tiny_takes_one_size_only() -> None:
    import timm

    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2)
    same = reordered(model, "blocks.0.mlp.fc1", "blocks.0.mlp.fc2")
    x = torch.randn(2, 3, 32, 32)
    proof = prove(model, same, Inputs.of(x), masked64=float64_copy(model), slim64=float64_copy(same))
    assert proof.passed, proof
    assert proof.notes == (
        "another size skipped: the masked model refuses it "
        "(AssertionError: Input height (64) doesn't match model (32).)",
    )
    assert not verify(model, nudged(model, "blocks.1.attn.qkv.weight"), x).passed
    assert cost(model, Inputs.of(x)).notes == ()


@pytest.fixture
def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )
    return BertModel(config)


def test_bert_with_tokens_and_a_left_padded_mask(bert: nn.Module) -> None:
    tokens = torch.randint(1, 50, (1, 10))
    keywords = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    same = reordered(bert, "encoder.layer.0.intermediate.dense", "encoder.layer.0.output.dense")
    inputs = Inputs.of((), keywords)
    proof = prove(bert, same, inputs, masked64=float64_copy(bert), slim64=float64_copy(same))
    assert proof.passed, proof
    assert proof.shapes[-1] == "another size [1, 15], [1, 15]"  # 42 tokens are more than it has positions
    wrong = verify(bert, nudged(bert, "encoder.layer.1.attention.self.value.weight"), (), keywords)
    assert not wrong.passed
    assert "output['" in (wrong.failure or "")


def test_a_decoder_that_casts_to_float32_inside_is_exact_in_float64() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        mlp_bias=True,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    same = copy.deepcopy(model)
    with torch.no_grad():
        mlp = same.model.layers[0].mlp
        for first in (mlp.gate_proj, mlp.up_proj):
            first.weight.copy_(first.weight.flip(0))
            first.bias.copy_(first.bias.flip(0))
        mlp.down_proj.weight.copy_(mlp.down_proj.weight.flip(1))
    inputs = Inputs.of(torch.randint(0, 50, (1, 8)))
    proof = prove(model, same, inputs, masked64=float64_copy(model), slim64=float64_copy(same))
    assert proof.passed, proof
    assert proof.max_rel_error_float64 is not None
    assert proof.max_rel_error_float64 < 1e-12
