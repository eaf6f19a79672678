from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from surgery.checkpoints import describe, load, save
from surgery.errors import InputError
from tests.checkpoints.nets import EXAMPLE, Net, result
from tests.checkpoints.tampering import AGAIN, NOT_OURS, SAME, edit, refusal, rehash


def test_weights_that_are_not_those_that_were_saved(slim: Path) -> None:
    weights = slim / "model.safetensors"
    whole = weights.read_bytes()
    damaged = r"'DIR/model.safetensors' \(\d+ bytes\) is not the file that was saved: its sha256 is \w{12}..., surgery"
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    save_file({"other": torch.zeros(3)}, slim.parent / "other.safetensors")
    for content in (whole[:-1], b"", bytes(flipped), (slim.parent / "other.safetensors").read_bytes()):
        weights.write_bytes(content)
        fact, way_out = refusal(slim)
        assert re.match(damaged, fact)
        assert way_out == AGAIN
    weights.unlink()
    assert refusal(slim) == ("there is no file 'DIR/model.safetensors'", "copy the whole directory")
    os.mkfifo(weights)  # would never end
    assert refusal(slim) == ("there is no file 'DIR/model.safetensors'", "copy the whole directory")


def test_weights_that_no_hash_protects(slim: Path) -> None:
    weights = slim / "model.safetensors"
    tensors = load_file(weights)
    for content in (b"not safetensors", b"\xff" * 64, weights.read_bytes()[:-4]):
        weights.write_bytes(content)
        rehash(slim)
        fact, way_out = refusal(slim)
        assert fact.startswith("'DIR/model.safetensors' cannot be read: ")
        assert way_out == AGAIN
    for change, told in {
        "lacks": "1 tensor missing in the file: head.bias",
        "has more": "1 tensor not in the model: head.more",
        "wider": "1 tensor of another shape: head.bias is [5], [4] in the model",
    }.items():
        other = dict(tensors)
        bias = other.pop("head.bias")
        other |= {
            "lacks": {},
            "has more": {"head.bias": bias, "head.more": bias.clone()},
            "wider": {"head.bias": torch.zeros(5)},
        }[change]
        save_file(other, weights)
        rehash(slim)
        assert refusal(slim) == (f"DIR does not fit the model: {told}", SAME)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        (b"", "Input data was truncated"),
        (b"{", "Input data was truncated"),
        (b"[" * 100_000, "Input data was truncated|maximum recursion depth exceeded|Expected `object`, got `array`"),
        (b'{"a":' * 100_000, "maximum recursion depth exceeded|Input data was truncated"),
        (b"\xff\xfe", "invalid"),
        (b"null", "Expected `object`, got `null`"),
        (b"{}", "Object missing required field `tool`"),
        (b'{"tool": "other", "format_version": 1}', r"Invalid enum value 'other' - at `\$.tool`"),
        (b'{"tool": "surgery", "format_version": "1"}', r"Expected `int`, got `str` - at `\$.format_version`"),
        (b'{"tool": "surgery", "format_version": 1}', "Object missing required field `weights_sha256`"),
    ],
)
def test_a_broken_manifest(slim: Path, text: bytes, fact: str) -> None:
    (slim / "surgery.json").write_bytes(text)
    told, way_out = refusal(slim)
    assert re.match(f"'DIR/surgery.json' is damaged: .*({fact})", told)
    assert way_out == NOT_OURS


def test_what_only_concerns_weights_is_of_no_consequence(slim: Path) -> None:
    expected = load(slim, Net).state_dict()
    edit(slim, lambda d: d["plan"]["zeros"][0].update(positions=[10**6]))
    edit(slim, lambda d: d["plan"]["carries"][0].update(take=[10**6], onto=-7))
    assert_close(load(slim, Net).state_dict(), expected, rtol=0, atol=0)


def test_a_newer_format(slim: Path) -> None:
    edit(slim, lambda d: d.update(format_version=4, weights_sha256=["no", "longer", "a", "string"]))
    assert refusal(slim) == ("'DIR/surgery.json' has format 4, this version reads up to 3", "upgrade surgery")


def test_an_older_format(slim: Path) -> None:
    def aged(d: dict[str, Any]) -> None:
        d.update(format_version=1)
        for name in ("files", "exports", "source_sha256", "anatomy", "transformers"):
            del d[name]

    expected = load(slim, Net).state_dict()
    edit(slim, aged)
    text = (slim / "surgery.json").read_text()
    (slim / "surgery.json").write_text(re.sub(r'"digest": "\w+", ', "", text))
    assert_close(load(slim, Net).state_dict(), expected, rtol=0, atol=0)


def test_a_manifest_that_was_changed(slim: Path) -> None:
    text = (slim / "surgery.json").read_bytes()
    for place in range(40, len(text), len(text) // 150):
        flipped = text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :]
        (slim / "surgery.json").write_bytes(flipped)
        fact, way_out = refusal(slim)
        assert fact.startswith("'DIR/surgery.json' is damaged: "), (place, text[place - 20 : place + 20])
        assert way_out == NOT_OURS
    (slim / "surgery.json").write_bytes(text.replace(b'"macs_after":', b'"macs_after":1', 1))
    told = "it was changed after it was written: its digest is not that of its text"
    assert refusal(slim)[0] == f"'DIR/surgery.json' is damaged: {told}"


def test_no_saved_directory(tmp_path: Path, slim: Path) -> None:
    assert refusal(tmp_path / "none") == ("there is no directory 'DIR'", NOT_OURS)
    assert refusal(slim / "surgery.json")[0] == "there is no directory 'DIR'"
    assert refusal(tmp_path) == ("the directory 'DIR' has no surgery.json: surgery did not write it", NOT_OURS)
    with pytest.raises(InputError, match=r"has no surgery\.json"):
        describe(tmp_path)


class Wider(Net):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 9)


class More(Net):
    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(2, 2)


class Fewer(Net):
    def __init__(self) -> None:
        super().__init__()
        del self.norm


class Renumbered(Net):
    def __init__(self) -> None:
        super().__init__()
        self.width = 7


class Less(Net):
    def __init__(self) -> None:
        super().__init__()
        del self.idle


class Smoother(Net):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()


class Strided(Net):
    def __init__(self) -> None:
        super().__init__()
        self.point.stride = (2, 2)


class Steady(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm.eps = 1e-3


class Otherwise(nn.Module):
    """The same attributes; what another forward would do nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        vars(self).update(vars(Net()))


class Trained(Net):
    """Nothing of this matters in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Dropout(0.3)
        self.norm.momentum = 0.2
        self.act.inplace = True


def test_what_only_training_notices_is_of_no_consequence(slim: Path) -> None:
    assert_close(load(slim, Trained).eval()(EXAMPLE), load(slim, Net).eval()(EXAMPLE), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("model", "fact"),
    [
        (Wider, "DIR does not fit the model: head.weight is [9, 6], the plan was made for [4, 6]"),
        (More, "DIR is of another model: only the given model has a module 'more'"),
        (Less, "DIR is of another model: only the model that was saved has a module 'idle'"),
        (Smoother, "DIR is of another model: act was torch.nn.ReLU, here torch.nn.GELU"),
        (Strided, "DIR is of another model: point had stride=(1, 1), here (2, 2)"),
        (Steady, "DIR is of another model: norm had eps=1e-05, here 0.001"),
        (Otherwise, "DIR is of another model: the model itself was Net, here Otherwise"),
        (Fewer, "DIR does not fit the model: the model has no norm.weight"),
        (Renumbered, "DIR does not fit the model: .width is 7, the plan expects 6"),
    ],
)
def test_a_foreign_model(slim: Path, model: type[nn.Module], fact: str) -> None:
    assert refusal(slim, model) == (fact, SAME)
    assert refusal(slim, model()) == (fact, SAME)


def test_a_slim_model_is_not_a_fresh_one(slim: Path) -> None:
    assert refusal(slim, load(slim, Net))[0].startswith(
        "DIR does not fit the model: first.weight is [6, 3, 3, 3], the plan"
    )


def test_factories_that_fail(slim: Path) -> None:
    def broken() -> nn.Module:
        raise ValueError("no width\nmore")

    def leaves() -> nn.Module:
        raise SystemExit("bye")

    first = "make the factory work on its own first"
    assert refusal(slim, broken) == ("the factory raised ValueError: no width", first)
    assert refusal(slim, leaves) == ("the factory raised SystemExit: bye", first)
    assert refusal(slim, lambda: 3) == (
        "the factory returned a int, not an nn.Module",
        "return the fresh model from it",
    )
    assert refusal(slim, 3) == ("model is a int", "pass a fresh nn.Module, or a function that makes one")
    fact, way_out = refusal(slim, nn.LazyLinear(3))
    assert (fact, way_out) == ("weight is lazy: it has no shape yet", "call the model once before you pass it")


def test_nothing_stays_on_the_meta_device(slim: Path) -> None:
    with torch.device("meta"):
        fresh = Net()
    fact, way_out = refusal(slim, fresh)
    assert fact == "scale has no values: it is not stored, and on the meta device in the model that was given"
    assert way_out.startswith("build the fresh model on the CPU")
    fresh.scale = torch.zeros(1)
    assert refusal(slim, fresh)[0].startswith("shift has no values: it is not stored")


def test_results_that_cannot_be_stored(tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return {"a": 1}

    cut = result()
    cases = [
        (Extra(2, 2), "the model's state holds '_extra_state', a dict, which is not a tensor"),
        (nn.Linear(2, 2, device="meta"), "weight has no values: it is on the meta device"),
    ]
    sparse = nn.Module()
    sparse.register_buffer("b", torch.eye(3).to_sparse())
    cases.append((sparse, "b has the layout torch.sparse_coo"))
    for model, fact in cases:
        with pytest.raises(InputError, match=r".") as caught:
            save(replace(cut, model=model), tmp_path / "slim")
        assert caught.value.fact == fact
        assert list(tmp_path.iterdir()) == []
