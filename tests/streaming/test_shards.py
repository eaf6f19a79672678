"""What can be wrong with a checkpoint, each in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import surgery
from surgery.errors import InputError
from surgery.streaming.shards import DTYPES, places_in
from tests.streaming.sharded import hollow, sharded

X = torch.ones(1, 4)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def first(place: Path) -> Path:
    return min(place.glob("*.safetensors"))


def lose_a_shard(place: Path) -> None:
    first(place).unlink()


def lose_a_shard_and_the_index(place: Path) -> None:
    first(place).unlink()
    only_shards(place)


def only_shards(place: Path) -> None:
    (place / "model.safetensors.index.json").unlink()


def truncate(place: Path) -> None:
    raw = first(place).read_bytes()
    first(place).write_bytes(raw[:-10])


def empty_file(place: Path) -> None:
    first(place).write_bytes(b"")


def pointer(place: Path) -> None:
    first(place).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")


def change(place: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = {name: tensor for path in place.glob("*.safetensors") for name, tensor in load_file(path).items()}
    edit(tensors)
    for path in [*place.glob("*.safetensors"), *place.glob("*.json")]:
        path.unlink()
    save_file(tensors, place / "model.safetensors")


def lose_a_tensor(place: Path) -> None:
    change(place, lambda tensors: tensors.pop("2.bias"))


def another_shape(place: Path) -> None:
    change(place, lambda tensors: tensors.update({"2.weight": torch.ones(2, 7)}))


def one_more(place: Path) -> None:
    change(place, lambda tensors: tensors.update({"3.weight": torch.ones(2, 7)}))


def eight_bits(place: Path) -> None:
    change(place, lambda tensors: tensors.update({n: t.to(torch.float8_e4m3fn) for n, t in tensors.items()}))


def pickled(place: Path) -> None:
    for path in place.iterdir():
        path.unlink()
    torch.save(net().state_dict(), place / "pytorch_model.bin")


def nothing(place: Path) -> None:
    for path in place.iterdir():
        path.unlink()


def doubled(place: Path) -> None:
    only_shards(place)
    save_file(load_file(first(place)), place / "model-00009-of-00002.safetensors")


def unnumbered(place: Path) -> None:
    only_shards(place)
    save_file({"a": torch.ones(1)}, place / "other.safetensors")


def index_of(place: Path, weight_map: object) -> None:
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lose_a_shard, r"index.json' names model-00001-of-0000\d.safetensors, which is not in"),
        (lose_a_shard_and_the_index, r"lacks 1 of \d shards, the first of them number 1"),
        (truncate, r"cut short or damaged: SafetensorError"),
        (empty_file, r"\(0 bytes\) is cut short or damaged"),
        (pointer, "git-lfs pointer"),
        (lose_a_tensor, r"1 name missing: 2\.bias"),
        (another_shape, r"1 other shape: 2\.weight is \[2, 7\], \[2, 6\] in the model"),
        (one_more, r"1 name not in the model: 3\.weight"),
        (eight_bits, r"float8_e4m3fn: they are quantized"),
        (pickled, r"pickled weights \(pytorch_model\.bin\)"),
        (nothing, r"holds no \.safetensors file"),
        (doubled, r"is in .* and in "),
        (unnumbered, r"\d \.safetensors files and no index"),
        (lambda place: index_of(place, {"0.weight": "../x.safetensors"}), "names a file elsewhere"),
        (lambda place: index_of(place, {"9.weight": first(place).name}), r"says that 9\.weight is in"),
        (lambda place: index_of(place, [1]), "is no index of shards"),
    ],
)
def test_it_is_refused(spoil: Callable[[Path], None], told: str, tmp_path: Path) -> None:
    sharded(net(), tmp_path, size_bytes=60)
    spoil(tmp_path)
    with pytest.raises(InputError, match=told) as caught:
        surgery.choose(hollow(net), X, checkpoint=tmp_path)
    assert caught.value.way_out


@pytest.mark.parametrize(
    ("name", "told"), [("nowhere", "no file or directory"), ("x.bin", "is pickled"), ("x.onnx", "has the suffix")]
)
def test_files_that_are_none(name: str, told: str, tmp_path: Path) -> None:
    if name != "nowhere":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=told):
        surgery.choose(hollow(net), X, checkpoint=tmp_path / name)


@pytest.mark.parametrize("form", ["index", "shards alone", "one file", "a directory with one file"])
def test_forms_of_a_checkpoint(form: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    real = net()
    sharded(real, tmp_path, size_bytes=60)
    where = tmp_path
    if form == "index":
        where = tmp_path / "model.safetensors.index.json"
    elif form == "shards alone":
        only_shards(tmp_path)
    else:
        change(tmp_path, lambda tensors: None)
        where = tmp_path / "model.safetensors" if form == "one file" else tmp_path
    assert surgery.choose(hollow(net), X, checkpoint=where) == surgery.choose(real, X)


@pytest.mark.parametrize("kind", DTYPES)
def test_every_type_is_read_as_safetensors_reads_it(kind: str, tmp_path: Path) -> None:
    raw = torch.arange(48, dtype=torch.uint8)
    tensor = (raw % 2).bool() if kind == "BOOL" else raw.view(DTYPES[kind])
    save_file(
        {"a": torch.ones(3, dtype=torch.uint8), "b": tensor, "none": torch.empty(0, 3)}, tmp_path / "x.safetensors"
    )
    expected = load_file(tmp_path / "x.safetensors")
    for name, place in places_in(tmp_path).items():
        made = place.read()
        assert (made.dtype, made.shape) == (expected[name].dtype, expected[name].shape)
        assert torch.equal(made.view(torch.uint8), expected[name].view(torch.uint8))


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    sharded(net(), tmp_path, size_bytes=60)
    places = places_in(tmp_path)
    truncate(tmp_path)
    last = max((place for place in places.values() if place.file == first(tmp_path)), key=lambda place: place.start)
    with pytest.raises(InputError, match="became shorter while"):
        last.read()


def test_a_prefix_of_all_names(tmp_path: Path) -> None:
    real = net()
    sharded(real, tmp_path, prefix="module.")
    assert surgery.choose(hollow(net), X, checkpoint=tmp_path) == surgery.choose(real, X)


def test_tied_weights_that_differ(tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        made = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        made[2].weight = made[0].weight
        return made

    save_file(
        {
            f"{i}.{n}": torch.full((4, 4) if n == "weight" else (4,), i + 1.0)
            for i in (0, 2)
            for n in ("weight", "bias")
        },
        tmp_path / "x.safetensors",
    )
    with pytest.raises(InputError, match=r"'0\.weight' and '2\.weight' are one shared parameter"):
        surgery.choose(hollow(tied), X, checkpoint=tmp_path)
