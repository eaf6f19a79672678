"""Models, lively, and what they hold in shards of a few kilobytes, as `save_pretrained` writes them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

import surgery
from tests.criteria_nets import Residual

IDS = {"input_ids": torch.arange(7)[None] * 5 % 64}
IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def llama(*, tied: bool = True) -> nn.Module:
    """Two query heads to a key head; biases in its attention, so that constants are folded."""
    more = {"num_key_value_heads": 2, "max_position_embeddings": 64, "attention_bias": True}
    config = transformers.LlamaConfig(**SIZES, **more, **ENDS, tie_word_embeddings=tied)
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    return model


def bert() -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(**SIZES, **ENDS, max_position_embeddings=64))


def bert_with_head() -> nn.Module:
    return transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, **ENDS, max_position_embeddings=64))


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=64, **ENDS)
    return transformers.GPT2LMHeadModel(config)


def vit() -> nn.Module:
    return timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=5)


class Encoder(nn.Module):
    """Code that insists on its sizes: its captured graph is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layer(x))
        return y


@dataclasses.dataclass(frozen=True)
class Net:
    """How a model is made, and an example call of it."""

    make: Callable[[], nn.Module]
    args: Any = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


NETS = {
    "llama": Net(llama, (), IDS),
    "bert": Net(bert, (), IDS),
    "gpt2": Net(gpt2, (), IDS),
    "residual": Net(Residual, IMAGE),
    "vit": Net(vit, IMAGE),
    "recurrent": Net(lambda: nn.Sequential(nn.Linear(4, 6), nn.LSTM(6, 8, batch_first=True)), torch.ones(2, 5, 4)),
    "graph": Net(Encoder, torch.linspace(-1, 1, 80).reshape(1, 5, 16)),
}


def hollow(make: Callable[[], nn.Module]) -> nn.Module:
    """The model on the meta device."""
    with torch.device("meta"):
        return make()


def lively(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    """The model with weights as training leaves them: biases, statistics, a dead row here and a zero there."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.3, 1.5)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.dim() == 1 else 0.05))
            if parameter.dim() > 1:
                parameter[0] = 0
                parameter[torch.rand(parameter.shape) < 0.05] = 0
    return model.to(dtype)


def sharded(model: nn.Module, directory: Path, *, size_bytes: int = 6000, prefix: str = "") -> int:
    """Write the model's state in shards with an index; returns how many. Tied tensors are written once."""
    shards: list[dict[str, Tensor]] = [{}]
    seen = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if shards[-1] and sum(t.nbytes for t in shards[-1].values()) + tensor.nbytes > size_bytes:
            shards.append({})
        shards[-1][prefix + name] = tensor.detach().contiguous()
    names = [f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors" for number in range(len(shards))]
    weight_map = {}
    for name, tensors in zip(names, shards, strict=True):
        save_file(tensors, directory / name)
        weight_map |= dict.fromkeys(tensors, name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return len(shards)


def assert_same(plan: surgery.Plan, expected: surgery.Plan) -> None:
    """Equal plans. Of tensors that no checkpoint holds there is no checksum, and a graph's sizes of 1 are unknown."""
    assert plan.checksums.keys() <= expected.checksums.keys()
    assert {name: expected.checksums[name] for name in plan.checksums} == plan.checksums
    assert bool(plan.checksums) == bool(expected.checksums)
    assert (plan.graph is None) == (expected.graph is None)
    bare = [dataclasses.replace(one, checksums={}, graph=None) for one in (plan, expected)]
    assert bare[0] == bare[1]
