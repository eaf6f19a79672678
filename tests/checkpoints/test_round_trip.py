from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

import surgery
from surgery.checkpoints import describe, load, save
from surgery.checkpoints.directories import sha256
from surgery.errors import InputError
from surgery.results import Result
from tests.checkpoints.nets import EXAMPLE, Net, masked, masked_tied, result


@pytest.fixture(scope="module")
def cut() -> Result:
    return result()


def same(loaded: nn.Module, expected: nn.Module, *inputs: torch.Tensor) -> None:
    with torch.no_grad():
        assert_close(loaded.eval()(*inputs), expected.eval()(*inputs), rtol=0, atol=0)


def test_a_fresh_model_becomes_the_slim_one(cut: Result, tmp_path: Path) -> None:
    save(cut, tmp_path / "slim", source="nets:Net")
    fresh = Net()
    before = copy.deepcopy(fresh.state_dict())
    loaded = load(tmp_path / "slim", fresh)
    assert cut.plan.folds
    assert cut.plan.carries
    assert isinstance(loaded, Net)
    assert (loaded.width, loaded.grouped.in_channels, loaded.grouped.groups) == (4, 4, 2)
    assert isinstance(loaded.grouped.bias, nn.Parameter)  # made by a fold
    assert loaded.training
    same(loaded, cut.model, EXAMPLE)
    same(loaded, cut.model, torch.rand(1, 3, 21, 13))
    assert_close(fresh.state_dict(), before, rtol=0, atol=0)
    assert fresh.width == 6


def test_what_is_not_stored_is_the_fresh_models(cut: Result, tmp_path: Path) -> None:
    save(cut, tmp_path / "slim")
    fresh = Net().eval()
    fresh.head.train()
    fresh.first.weight.requires_grad_(False)
    fresh.scale += 1
    fresh.shift += 1
    loaded = load(tmp_path / "slim", fresh)
    assert_close((loaded.scale, loaded.shift), (fresh.scale, fresh.shift))
    fresh.scale += 1
    fresh.shift += 1
    assert_close((loaded.scale, loaded.shift), (fresh.scale - 1, fresh.shift - 1))  # its own memory
    assert [name for name, module in loaded.named_modules() if module.training] == ["head"]
    assert [name for name, p in loaded.named_parameters() if not p.requires_grad] == ["first.weight"]


def test_a_factory_and_a_model_without_weights(cut: Result, tmp_path: Path) -> None:
    save(cut, tmp_path / "slim")
    same(load(str(tmp_path / "slim"), Net), cut.model, EXAMPLE)
    fresh = Net()
    for module in fresh.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                setattr(module, name, nn.Parameter(parameter.to("meta")))
    loaded = load(tmp_path / "slim", fresh)
    assert not any(t.is_meta for t in (*loaded.parameters(), *loaded.buffers()))
    same(loaded, cut.model, EXAMPLE)


def test_ties_are_stored_once_and_stay_ties(tmp_path: Path) -> None:
    net = masked_tied()
    x = torch.rand(3, 5)
    cut = surgery.shrink(net, x)
    assert cut.plan.removed_channels == 2
    save(cut, tmp_path / "slim")
    assert describe(tmp_path / "slim").manifest.ties == {"b.weight": "a.weight"}
    for fresh in (type(net)(), type(net)()):
        loaded = load(tmp_path / "slim", fresh)
        assert loaded.a.weight is loaded.b.weight
        same(loaded, cut.model, x)
    fresh.b.weight = nn.Parameter(torch.zeros(7, 7))  # the saved model decides
    loaded = load(tmp_path / "slim", fresh)
    assert loaded.a.weight is loaded.b.weight


def test_a_fresh_model_may_wear_what_the_saved_one_wore(tmp_path: Path) -> None:
    def dressed() -> nn.Sequential:
        net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        parametrizations.weight_norm(net[0])
        nn.utils.prune.ln_structured(net[2], "weight", amount=2, n=2, dim=1)
        return net

    torch.manual_seed(3)
    x = torch.rand(5, 4)
    cut = surgery.shrink(dressed(), x)
    assert cut.plan.removed_channels == 2
    save(cut, tmp_path / "slim")
    same(load(tmp_path / "slim", dressed), cut.model, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_is_the_saved_ones(dtype: torch.dtype, tmp_path: Path) -> None:
    cut = surgery.shrink(masked().to(dtype), EXAMPLE.to(dtype), prove=False)
    cut.model.shift = cut.model.shift.to(dtype)
    save(cut, tmp_path / "slim")
    loaded = load(tmp_path / "slim", Net)
    assert {t.dtype for t in (*loaded.parameters(), loaded.scale)} == {dtype}
    loaded.shift = loaded.shift.to(dtype)
    same(loaded, cut.model, EXAMPLE.to(dtype))


def test_nothing_removed_and_nothing_proven(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.rand(2, 3)
    cut = surgery.shrink(net, x, prove=False)
    assert cut.plan.empty
    save(cut, tmp_path / "slim")
    same(load(tmp_path / "slim", copy.deepcopy(net)), net, x)
    assert describe(tmp_path / "slim").manifest.proof is None
    assert ", not proven (surgery " in str(describe(tmp_path / "slim"))


def test_a_model_trained_further_is_saved_as_it_is(cut: Result, tmp_path: Path) -> None:
    tuned = copy.deepcopy(cut.model)
    with torch.no_grad():
        tuned.head.weight += 1
    save(replace(cut, model=tuned), tmp_path / "slim")
    same(load(tmp_path / "slim", Net), tuned, EXAMPLE)


def test_a_recurrent_models_flat_weights_follow(tmp_path: Path) -> None:
    torch.manual_seed(0)
    nothing = surgery.shrink(nn.Linear(1, 1), torch.rand(2, 1), prove=False)
    recurrent = nn.LSTM(4, 5, num_layers=2)
    save(replace(nothing, model=recurrent), tmp_path / "slim")
    x = torch.rand(3, 2, 4)
    loaded = load(tmp_path / "slim", nn.LSTM(4, 5, num_layers=2))
    assert_close(loaded(x), recurrent(x), rtol=0, atol=0)


def test_describe(cut: Result, tmp_path: Path) -> None:
    save(cut, tmp_path / "slim", source="timm:resnet18")
    saved = describe(tmp_path / "slim")
    assert saved.plan == cut.plan
    assert saved.manifest.source == "timm:resnet18"
    assert saved.manifest.torch_version == torch.__version__
    assert saved.manifest.proof == msgspec.json.decode(msgspec.json.encode(cut.proof))
    assert str(saved) == (
        f"{tmp_path / 'slim'}: parameters 924 -> 470, macs 111,664 -> 54,560, proven, made from timm:resnet18 "
        f"(surgery {surgery.__version__})"
    )
    assert sorted(path.name for path in (tmp_path / "slim").iterdir()) == ["model.safetensors", "surgery.json"]
    modes = {path.stat().st_mode for path in (tmp_path / "slim").iterdir()}
    assert len(modes) == 1  # the umask's, for both


def test_exports_are_kept_with_their_parity(cut: Result, tmp_path: Path) -> None:
    exports = [surgery.export(cut.model, tmp_path / name, EXAMPLE) for name in ("net.onnx", "net.pt")]
    save(cut, tmp_path / "slim", exports=exports)
    manifest = describe(tmp_path / "slim").manifest
    assert {name: record.format for name, record in manifest.exports.items()} == {
        "net.onnx": "onnx",
        "net.pt": "torchscript",
    }
    assert manifest.exports["net.onnx"].parity == exports[0].as_dict()["parity"]
    assert manifest.files["net.pt"] == sha256(tmp_path / "net.pt") == sha256(tmp_path / "slim" / "net.pt")
    with pytest.raises(InputError, match=r"two files of the directory would be named 'net\.pt'"):
        save(cut, tmp_path / "slim", exports=exports[1:] * 2, overwrite=True)
    (tmp_path / "net.pt").unlink()
    with pytest.raises(InputError, match=r"the export '.*net\.pt' is not there any more"):
        save(cut, tmp_path / "slim", exports=exports, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "slim").iterdir()) == [
        "model.safetensors",
        "net.onnx",
        "net.pt",
        "surgery.json",
    ]


def test_where_the_weights_came_from_is_recorded(tmp_path: Path) -> None:
    one, same, other = (surgery.shrink(masked(seed), EXAMPLE) for seed in (0, 0, 1))
    assert one.source_sha256 == same.source_sha256 != other.source_sha256
    save(one, tmp_path / "slim")
    assert describe(tmp_path / "slim").manifest.source_sha256 == one.source_sha256
