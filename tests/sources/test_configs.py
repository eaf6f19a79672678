"""What a transformers config stands for, found out by doubling its numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import benchmarks.torchvision_cpu  # noqa: F401 (transformers looks for torchvision)
from surgery.sources.configs import Configured

transformers = pytest.importorskip("transformers")

HEADS, KEYS, WIDTH, INNER = ("num_attention_heads",), ("num_key_value_heads",), ("head_dim",), ("intermediate_size",)


def mixtral(**changed: Any) -> nn.Module:
    settings = {
        "num_hidden_layers": 2,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "num_local_experts": 2,
        "vocab_size": 20,
    }
    torch.manual_seed(0)
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**settings | changed)).eval()


def of(model: nn.Module) -> Configured:
    found = Configured.of(model)
    assert found is not None
    return found.spoken()


def test_axes_and_the_numbers_that_stand_for_them() -> None:
    sized = of(mixtral()).sized_by
    layer = "model.layers.1."
    assert sized[f"{layer}self_attn.q_proj.weight", 0] == {HEADS, WIDTH}
    assert sized[f"{layer}self_attn.v_proj.weight", 0] == {KEYS, WIDTH}
    assert sized[f"{layer}self_attn.o_proj.weight", 1] == {HEADS, WIDTH}
    assert sized[f"{layer}mlp.experts.gate_up_proj", 1] == {INNER}
    assert sized[f"{layer}mlp.experts.gate_up_proj", 0] == {("num_local_experts",)}
    assert sized["model.norm.weight", 0] == {("hidden_size",)}


def test_what_a_config_leaves_open_is_put_into_words() -> None:
    assert mixtral().config.head_dim is None
    assert of(mixtral()).config.head_dim == 6


def test_entries_of_lists_and_factors() -> None:
    config = transformers.SwinConfig(image_size=32, patch_size=2, embed_dim=24, depths=[1, 1], num_heads=[2, 4])
    sized = of(transformers.SwinModel(config)).sized_by
    assert sized["encoder.layers.1.blocks.0.mlp.fc1.weight", 0] == {("embed_dim",), ("mlp_ratio",)}
    table = "encoder.layers.1.blocks.0.attention.relative_position_bias.relative_position_bias_table"
    assert sized[table, 1] == {("num_heads", 1)}


def test_a_number_that_comes_to_equal_another_is_known_all_the_same() -> None:
    """Doubled, the stem is as wide as the first stage, which then has no shortcut whose columns could be seen."""
    config = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[32, 48], depths=[1, 1])
    sized = of(transformers.ResNetModel(config)).sized_by
    assert sized["encoder.stages.0.layers.0.shortcut.convolution.weight", 1] == {("embedding_size",)}


def test_all_configs_that_fit_are_offered() -> None:
    slim = mixtral(num_attention_heads=4, num_key_value_heads=2, head_dim=6, intermediate_size=56)
    said = [
        {name: getattr(config, name) for name in ("num_attention_heads", "head_dim", "intermediate_size")}
        for config in of(mixtral()).fitting(slim, {})
    ]
    fewer = {"num_attention_heads": 4, "head_dim": 6, "intermediate_size": 56}
    narrower = {"num_attention_heads": 8, "head_dim": 3, "intermediate_size": 56}
    assert fewer in said
    assert narrower in said
    assert next(iter(of(mixtral()).fitting(mixtral(), {}))).to_dict() == of(mixtral()).config.to_dict()


def test_nothing_fits_what_no_number_can_say() -> None:
    slim = mixtral()
    slim.model.layers[0].self_attn.q_proj = nn.Linear(48, 24, bias=False)
    assert list(of(mixtral()).fitting(slim, {})) == []


def test_the_eps_of_norms_follows() -> None:
    slim = mixtral(rms_norm_eps=0.25)
    [config] = of(mixtral(rms_norm_eps=0.125)).fitting(slim, {0.125: 0.25})
    assert config.rms_norm_eps == 0.25


def test_other_models_have_no_config() -> None:
    assert Configured.of(nn.Linear(2, 2)) is None
