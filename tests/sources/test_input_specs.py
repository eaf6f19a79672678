from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from surgery.errors import InputError
from surgery.sources import parse_input, parse_inputs
from surgery.sources.input_specs import DTYPES, GRAMMAR


@pytest.mark.parametrize(
    ("spec", "name", "shape", "dtype"),
    [
        ("1x3x8x8", None, (1, 3, 8, 8), torch.float32),
        ("5", None, (5,), torch.float32),
        ("x=2x3:float16", "x", (2, 3), torch.float16),
        ("1x4:bfloat16", None, (1, 4), torch.bfloat16),
        ("1x4:complex64", None, (1, 4), torch.complex64),
        ("input_ids=1x128:int64", "input_ids", (1, 128), torch.int64),
        ("on=1x4:bool", "on", (1, 4), torch.bool),
        (" 1x4 ", None, (1, 4), torch.float32),
    ],
)
def test_shapes(spec: str, name: str | None, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    found, tensor = parse_input(spec)
    assert (found, tuple(tensor.shape), tensor.dtype) == (name, shape, dtype)
    assert torch.equal(parse_input(spec)[1], tensor)


def test_ranges() -> None:
    ids = parse_input("ids=8x64:int64[5,7]")[1]
    assert sorted(set(ids.flatten().tolist())) == [5, 6, 7]
    assert sorted(set(parse_input("ids=8x64:int64")[1].flatten().tolist())) == list(range(10))
    uniform = parse_input("8x64[-2,-1.5]")[1]
    assert -2 <= uniform.min() < uniform.max() <= -1.5
    assert parse_input("8x64")[1].std() == pytest.approx(1, abs=0.1)
    assert (parse_input("attention_mask=2x4:int64")[1] == 1).all()
    assert parse_input("2x4:bool")[1].all()
    assert not parse_input("2x4:bool[0,0]")[1].any()


def test_files(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a=b.npy", tensor.numpy())
    torch.save(tensor, tmp_path / "x.pt")
    torch.save({"x": tensor}, tmp_path / "y.pt")
    save_file({"x": tensor}, tmp_path / "x.safetensors")
    for name in ("a=b.npy", "x.pt", "y.pt", "x.safetensors"):
        assert parse_input(f"@{tmp_path / name}")[0] is None
        assert torch.equal(parse_input(f"@{tmp_path / name}")[1], tensor)
        assert parse_input(f"image=@{tmp_path / name}")[0] == "image"


def test_several() -> None:
    args, kwargs = parse_inputs(["1x2", "mask=1x2:int64", "1x2"])
    assert [tuple(tensor.shape) for tensor in args] == [(1, 2), (1, 2)]
    assert not torch.equal(args[0], args[1])
    assert list(kwargs) == ["mask"]
    with pytest.raises(InputError, match=r"^two inputs are named 'x'\n  -> give each input once$"):
        parse_inputs(["x=1", "x=2"])


@pytest.mark.parametrize(
    ("spec", "fact", "way_out"),
    [
        ("", "an input is empty", GRAMMAR),
        *(
            (spec, f"the input {spec!r} is not understood", GRAMMAR)
            for spec in (
                "1x",
                "x3",
                "1X3",
                "-1x3",
                "1,3",
                "1x3:",
                "ids=",
                "1x3[1]",
                "1x3[1,2",
                "1.5x2",
                "a b=1x3",
                "1=1x3",
            )
        ),
        ("1x0", "the input '1x0' has a dim of size 0", "give every dim at least 1"),
        ("1x3:int", "the input '1x3:int' has the unknown dtype 'int'", f"use {', '.join(DTYPES)}"),
        ("99999x99999x9", "the input '99999x99999x9' would take 335 GiB", "give a smaller shape"),
        ("1:int64[0,1.5]", "the range of the input '1:int64[0,1.5]' is not made of whole numbers", GRAMMAR),
        ("1[a,b]", "the range of the input '1[a,b]' is not made of numbers", GRAMMAR),
        ("1[0,nan]", "the range of the input '1[0,nan]' is empty", "give the lower end first"),
        ("1:int8[3,2]", "the range of the input '1:int8[3,2]' is empty", "give the lower end first"),
        ("1:uint8[0,256]", "the input '1:uint8[0,256]' has the range [0,256]", "uint8 holds 0 to 255"),
        ("1:bool[0,2]", "the input '1:bool[0,2]' has the range [0,2]", "bool holds 0 to 1"),
        ("@nowhere.npy", "there is no file 'nowhere.npy'", "check the path after @"),
        ("@nowhere.pt", "there is no file 'nowhere.pt'", "check the path"),
    ],
)
def test_refusals(spec: str, fact: str, way_out: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_input(spec)
    assert (caught.value.fact, caught.value.way_out) == (fact, way_out)


def test_files_that_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("not an array")
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "words.npy", np.array(["a"]))
    for name in ("objects", "text", "empty", "words"):
        with pytest.raises(InputError, match=r"cannot be read as one array: .*\n  -> numpy.save a plain array$"):
            parse_input(f"@{tmp_path / name}.npy")
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "two.safetensors")
    torch.save([1], tmp_path / "list.pt")
    for name in ("two.safetensors", "list.pt"):
        with pytest.raises(InputError, match=r"does not hold exactly one tensor\n  -> save the one tensor that is the"):
            parse_input(f"@{tmp_path / name}")
