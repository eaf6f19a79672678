"""Published nets of libraries lose whole blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import benchmarks.torchvision_cpu  # noqa: F401  # before torchvision
import surgery
from tests.depth_nets import silence_
from tests.exactness import BOUND_FLOAT32, BOUND_FLOAT64
from tests.nets import lively

PICTURE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
IDS = torch.randint(1, 50, (2, 6), generator=torch.Generator().manual_seed(2))


def torchvision_net(name: str, **settings: Any) -> nn.Module:
    import torchvision

    model: nn.Module = getattr(torchvision.models, name)(num_classes=5, **settings)
    return model


def timm_net(name: str, **settings: Any) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, num_classes=5, **settings)
    return model


def transformers_net(kind: str, config: str, **settings: Any) -> nn.Module:
    import transformers

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 50}
    model: nn.Module = getattr(transformers, kind)(getattr(transformers, config)(**sizes, **settings))
    return model


def llama(**settings: Any) -> nn.Module:
    more = {"num_hidden_layers": 4, "num_key_value_heads": 2, "pad_token_id": 0, **settings}
    return transformers_net("LlamaForCausalLM", "LlamaConfig", **more)


def gemma() -> nn.Module:
    kinds = ["sliding_attention", "full_attention"] * 3
    more = {"num_hidden_layers": 6, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4, "layer_types": kinds}
    return transformers_net("Gemma3ForCausalLM", "Gemma3TextConfig", **more)


def bert() -> nn.Module:
    return transformers_net("BertModel", "BertConfig", num_hidden_layers=3, max_position_embeddings=32)


NETS: dict[str, tuple[Callable[[], nn.Module], Tensor, tuple[str, ...], tuple[str, ...]]] = {
    "resnet18": (
        lambda: torchvision_net("resnet18"),
        PICTURE,
        ("layer1.0.bn2", "layer2.0.bn2", "layer4.1.bn2"),
        ("layer1.0", "layer4.1"),
    ),
    "resnet50": (
        lambda: torchvision_net("resnet50"),
        PICTURE,
        ("layer1.0.bn3", "layer2.1.bn3", "layer4.1.bn3"),
        ("layer2.1", "layer4.1"),
    ),
    "mobilenet_v2": (
        lambda: torchvision_net("mobilenet_v2", width_mult=0.35),
        PICTURE,
        ("features.3.conv.3", "features.9.conv.3"),
        ("features.3", "features.9"),
    ),
    "efficientnet_b0": (lambda: timm_net("efficientnet_b0"), PICTURE, ("blocks.1.1.bn3",), ("blocks.1.1",)),
    "vit": (
        lambda: timm_net("vit_tiny_patch16_224", img_size=64, init_values=1e-2, depth=4),
        PICTURE,
        ("blocks.1.ls1", "blocks.1.ls2", "blocks.2.attn.proj", "blocks.3.ls2"),
        (
            "blocks.1",
            "blocks.2.norm1",
            "blocks.2.attn",
            "blocks.2.ls1",
            "blocks.3.norm2",
            "blocks.3.mlp",
            "blocks.3.ls2",
        ),
    ),
    "convnext": (
        lambda: timm_net("convnext_atto", depths=(2, 2, 2, 2), dims=(8, 16, 24, 32)),
        PICTURE,
        ("stages.1.blocks.1.mlp.fc2",),
        ("stages.1.blocks.1",),
    ),
    "bert": (
        bert,
        IDS,
        ("encoder.layer.1.attention.output.dense", "encoder.layer.2.output.dense"),
        (
            "encoder.layer.1.attention.self",
            "encoder.layer.1.attention.output.dense",
            "encoder.layer.2.intermediate",
            "encoder.layer.2.output.dense",
        ),
    ),
    "llama": (
        llama,
        IDS,
        ("model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj", "model.layers.2.self_attn.o_proj"),
        ("model.layers.0", "model.layers.2.input_layernorm", "model.layers.2.self_attn"),
    ),
    "densenet": (lambda: torchvision_net("densenet121"), PICTURE, ("features.denseblock1.denselayer2.conv2",), ()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_what_does_nothing_goes(name: str, tmp_path: Path) -> None:
    make, example, nothing, gone = NETS[name]
    model = lively(make())
    silence_(model, *nothing)
    result = surgery.shrink(model, example, depth=True)
    assert {bypass.module for bypass in result.plan.bypasses} == set(gone)
    proof = result.proof
    assert proof is not None
    assert proof.passed
    assert proof.max_rel_error_float64 is not None
    assert proof.max_rel_error is not None
    assert proof.max_rel_error_float64 <= BOUND_FLOAT64
    assert proof.max_rel_error <= BOUND_FLOAT32
    lost = {key for key in model.state_dict() if any(key.startswith(f"{path}.") for path in gone)}
    assert model.state_dict().keys() - result.model.state_dict().keys() == lost
    if name in ("densenet", "resnet50"):
        return
    surgery.save(result, tmp_path / "slim")
    loaded = surgery.load(tmp_path / "slim", make).eval()
    assert surgery.verify(result.model, loaded, example).max_rel_error_float64 == 0
    if name in ("resnet18", "vit", "bert"):
        assert surgery.export(result.model, tmp_path / "slim.onnx", example).parity.passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "silent"),
    [(llama, (0,)), (llama, (1, 2)), (llama, (0, 1, 3)), (gemma, (0, 1)), (gemma, (3,)), (gemma, (2, 5))],
)
def test_text_is_generated_as_before(make: Callable[[], nn.Module], silent: tuple[int, ...]) -> None:
    """A cache of keys and values is asked how long it is by place: those of layers that went are not filled."""
    model: Any = lively(make())
    model.generation_config.eos_token_id = None
    layers = [f"model.layers.{number}" for number in silent]
    for layer in layers:
        silence_(model, f"{layer}.self_attn.o_proj", f"{layer}.mlp.down_proj")
        for name, part in model.get_submodule(layer).named_children():
            if name.startswith("post_") and make is gemma:
                silence_(part, "")
    slim: Any = surgery.shrink(model, IDS, depth=True).model
    assert all(not list(slim.get_submodule(layer).parameters()) for layer in layers)
    for settings in ({"do_sample": False}, {"num_beams": 2}):
        before = model.generate(IDS, max_new_tokens=9, **settings)
        assert torch.equal(before, slim.generate(IDS, max_new_tokens=9, **settings))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit", "bert", "llama"])
def test_blocks_are_chosen(name: str) -> None:
    make, example, _, _ = NETS[name]
    model = lively(make())
    plan = surgery.choose(model, example, depth=1, macs=0.7, data=[example])
    result = surgery.shrink(plan.mask(model), example, depth=True)
    assert plan.bypasses == result.plan.bypasses
    assert result.macs_after <= 0.7 * result.macs_before
    proof = result.proof
    assert proof is not None
    assert proof.passed
    assert proof.max_rel_error_float64 is not None
    assert proof.max_rel_error_float64 <= BOUND_FLOAT64
