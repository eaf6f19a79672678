from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torch.nn.utils import prune, weight_norm
from torch.testing import assert_close

from surgery.errors import InputError
from surgery.masks import bake
from surgery.sources import load_checkpoint_, load_weights_


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embed.weight


def test_masks_in_a_file_are_merged(tmp_path: Path) -> None:
    trained = Net()
    prune.ln_structured(trained.conv, "weight", 0.5, n=2, dim=0)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "x.pt")
    model = Net()
    notes = load_checkpoint_(model, tmp_path / "x.pt")
    assert_close(model.state_dict(), bake(trained).state_dict(), rtol=0, atol=0)
    assert model.head.weight is model.embed.weight
    assert notes == (
        "x.pt: took the weights under 'state_dict'",
        "x.pt: 1 masked or normalised weights were merged into plain ones",
    )


def test_a_model_in_the_same_coat_keeps_it() -> None:
    trained, model = Net(), Net()
    prune.ln_structured(trained.conv, "weight", 0.5, n=2, dim=0)
    prune.identity(model.conv, "weight")
    weight_norm(trained.head, "bias")
    weight_norm(model.head, "bias")
    assert load_weights_(model, trained.state_dict()) == ()
    assert_close(model.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_one_name_of_a_tie_is_enough(tmp_path: Path) -> None:
    trained, model = Net(), Net()
    save_model(trained, tmp_path / "x.safetensors")
    assert load_checkpoint_(model, tmp_path / "x.safetensors") == ()
    assert_close(model.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_a_torn_tie_is_refused() -> None:
    state = dict(Net().state_dict())
    state["head.weight"] = state["head.weight"] + 1
    with pytest.raises(InputError) as caught:
        load_weights_(Net(), state, source="x.pt")
    assert str(caught.value) == (
        "'embed.weight' and 'head.weight' are one shared parameter of the model, but differ in x.pt\n"
        "  -> untie them in the model, or make them equal in the file"
    )


def test_a_cast_is_said_aloud() -> None:
    state = {name: t.half() if t.is_floating_point() else t for name, t in Net().state_dict().items()}
    notes = load_weights_(Net(), state, source="x.pt")
    assert notes == ("x.pt: 9 tensors were cast from torch.float16 to the model's torch.float32",)


def test_a_prefix_is_stripped_when_asked_and_suggested_when_not(tmp_path: Path) -> None:
    trained, model = Net(), Net()
    state = {f"module.{name}": tensor.clone() for name, tensor in trained.state_dict().items()}
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(
        InputError, match=r"\n  -> strip the prefix 'module.' from the names \(--strip-prefix module.\)$"
    ):
        load_checkpoint_(model, tmp_path / "x.safetensors")
    assert load_checkpoint_(model, tmp_path / "x.safetensors", strip_prefix="module.") == ()
    assert_close(model.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_a_part_of_a_checkpoint_is_taken_by_its_prefix_and_suggested(tmp_path: Path) -> None:
    trained, model = Net(), Net()
    state = {f"net.{name}": tensor.clone() for name, tensor in trained.state_dict().items()}
    save_file({"loss.weight": torch.ones(3), **state}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"strip the prefix 'net.' from the names \(--strip-prefix net.\)$"):
        load_checkpoint_(model, tmp_path / "x.safetensors")
    notes = load_checkpoint_(model, tmp_path / "x.safetensors", strip_prefix="net.")
    assert notes == ("x.safetensors: 1 name not under 'net.' left out: loss.weight",)
    assert_close(model.state_dict(), trained.state_dict(), rtol=0, atol=0)
    with pytest.raises(InputError, match=r"names? missing"):
        load_checkpoint_(model, tmp_path / "x.safetensors", strip_prefix="loss.")
    with pytest.raises(InputError, match=r"do not start with 'nets.'"):
        load_checkpoint_(model, tmp_path / "x.safetensors", strip_prefix="nets.")


def test_missing_and_extra_names() -> None:
    state = dict(Net().state_dict())
    state["conv.weights"] = state.pop("conv.weight")
    with pytest.raises(InputError) as caught:
        load_weights_(Net(), state, source="x.pt")
    assert str(caught.value) == (
        "x.pt does not fit the model:\n"
        "  1 name missing: conv.weight (near: conv.weights)\n"
        "  1 name not in the model: conv.weights (near: conv.weight)\n"
        "  -> build the very model that the weights were saved from"
    )


def test_five_names_are_listed() -> None:
    with pytest.raises(
        InputError, match=r"7 names missing: 0.weight, 1.weight, 2.weight, 3.weight, 4.weight and 2 more\n"
    ):
        load_weights_(nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(7)), {})


def test_shapes_are_refused_before_anything_is_written() -> None:
    model = Net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in before.items()}
    state |= {"conv.weight": torch.ones(5, 3, 3, 3), "conv.bias": [1.0]}
    with pytest.raises(InputError) as caught:
        load_weights_(model, state, source="x.pt")
    assert str(caught.value) == (
        "x.pt does not fit the model:\n"
        "  2 other shapes: conv.bias is a list, [4] in the model, "
        "conv.weight is [5, 3, 3, 3], [4, 3, 3, 3] in the model\n"
        "  -> build the model in the same size"
    )
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
