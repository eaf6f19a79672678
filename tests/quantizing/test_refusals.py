from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.errors import InputError
from surgery.quantizing import float_file, source
from tests.quantizing.nets import convnet, pictures, tokens


def changed(source: Path, place: Path, change: Any) -> Path:
    """A copy of a file with its proto changed."""
    proto = onnx.load(source)
    change(proto)
    onnx.save(proto, place)
    return place


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"method": "int4"}, r"there is no method 'int4'\n  -> choose one of static, dynamic"),
        ({"samples": 0}, "samples is 0"),
        ({"min_cosine": 1.5}, "min_cosine is 1.5"),
        ({"data": None}, "there is nothing to run the file on"),
        ({"data": None, "example_inputs": pictures(2)}, r"static quantisation \(convolutions carry .* needs data"),
        (
            {"data": None, "example_inputs": pictures(2), "method": "static"},
            r"static quantisation \(as asked\) needs data",
        ),
        ({"example_inputs": (pictures(2), pictures(2))}, "the example has 2 tensors, the file takes x"),
        ({"example_inputs": torch.zeros(2, 3, 5, 5)}, r"the example: input 'x' has shape \[2, 3, 5, 5\]"),
        ({"dynamic_shapes": {}}, "dynamic_shapes is for modules"),
        ({"evaluate": lambda model: "good"}, "evaluate returned a str"),
    ],
)
def test_arguments_that_cannot_be_used(tmp_path: Path, conv_file: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        surgery.quantize(conv_file, tmp_path / "q.onnx", **{"data": pictures(), **settings})
    assert not list(tmp_path.iterdir())


def test_other_things_than_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        surgery.quantize(tmp_path / "none.onnx", tmp_path / "q.onnx", data=pictures())
    (tmp_path / "bad.onnx").write_bytes(b"not a model at all")
    with pytest.raises(InputError, match=r"bad\.onnx' is not an ONNX file"):
        surgery.quantize(tmp_path / "bad.onnx", tmp_path / "q.onnx", data=pictures())
    with pytest.raises(InputError, match="the model is a int"):
        surgery.quantize(3, tmp_path / "q.onnx", data=pictures())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a module needs example inputs"):
        surgery.quantize(convnet(), tmp_path / "q.onnx", data=pictures())
    with pytest.raises(InputError, match=r"q\.tflite' ends in neither \.onnx nor \.aoti\.pt2"):
        surgery.quantize(convnet(), tmp_path / "q.tflite", data=pictures())


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path, conv_file: Path) -> None:
    (tmp_path / "q.onnx").write_text("mine")
    with pytest.raises(InputError, match=r"q\.onnx' exists already"):
        surgery.quantize(conv_file, tmp_path / "q.onnx", data=pictures())
    assert (tmp_path / "q.onnx").read_text() == "mine"
    surgery.quantize(conv_file, tmp_path / "q.onnx", data=pictures(), overwrite=True)
    with pytest.raises(InputError, match=r"q\.onnx' is quantised already \(\d+ nodes"):
        surgery.quantize(tmp_path / "q.onnx", tmp_path / "again.onnx", data=pictures())


def test_a_dynamic_file_is_quantised_already(tmp_path: Path, token_file: Path) -> None:
    done = surgery.quantize(token_file, tmp_path / "q.onnx", data=[tokens()])
    with pytest.raises(InputError, match="is quantised already"):
        surgery.quantize(done.path, tmp_path / "again.onnx", data=[tokens()])


def test_above_2_gb(tmp_path: Path, conv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_file, "LARGEST_BYTES", 1000)
    monkeypatch.setattr(source, "export", None)  # a module is refused before minutes go into its export
    for model in (conv_file, convnet()):
        with pytest.raises(InputError, match=r"the model takes 0\.0 GB, and the quantiser of .* ends at 2 GB"):
            surgery.quantize(model, tmp_path / "q.onnx", pictures(2), data=pictures())


def test_weights_beside_the_file_count(tmp_path: Path, conv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(
        onnx.load(conv_file), tmp_path / "beside.onnx", save_as_external_data=True, location="w", size_threshold=64
    )
    held = sum((tmp_path / name).stat().st_size for name in ("beside.onnx", "w"))
    found = float_file.FloatFile.open(tmp_path / "beside.onnx")
    assert 0.9 * held < found.size_bytes <= held
    done = surgery.quantize(tmp_path / "beside.onnx", tmp_path / "q.onnx", data=pictures())
    assert done.share.quantised == 4
    assert onnx.load(done.path, load_external_data=False).graph.initializer[0].data_location == 0
    monkeypatch.setattr(float_file, "LARGEST_BYTES", (tmp_path / "beside.onnx").stat().st_size + 10)
    with pytest.raises(InputError, match="ends at 2 GB"):
        float_file.FloatFile.open(tmp_path / "beside.onnx")


def test_old_opsets_and_half_precision(tmp_path: Path, conv_file: Path) -> None:
    def old(proto: onnx.ModelProto) -> None:
        proto.opset_import[0].version = 12

    with pytest.raises(InputError, match=r"is of opset 12; int8 weights per channel need 13"):
        surgery.quantize(changed(conv_file, tmp_path / "old.onnx", old), tmp_path / "q.onnx", data=pictures())

    def half(proto: onnx.ModelProto) -> None:
        proto.graph.initializer[0].data_type = onnx.TensorProto.FLOAT16

    with pytest.raises(InputError, match=r"is FLOAT16, not float32\n  -> quantise model\.float\(\)"):
        surgery.quantize(changed(conv_file, tmp_path / "half.onnx", half), tmp_path / "q.onnx", data=pictures())


def test_nothing_to_quantise(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing of the model would run in int8"):
        surgery.quantize(nn.ReLU(), tmp_path / "q.onnx", torch.randn(2, 5))
    assert not list(tmp_path.iterdir())


def test_integers_have_no_cosine(tmp_path: Path, conv_file: Path) -> None:
    def decide(proto: onnx.ModelProto) -> None:
        proto.graph.node.append(onnx.helper.make_node("ArgMax", [proto.graph.output[0].name], ["class"], axis=1))
        del proto.graph.output[:]
        proto.graph.output.append(onnx.helper.make_tensor_value_info("class", onnx.TensorProto.INT64, ["batch", 1]))

    path = changed(conv_file, tmp_path / "class.onnx", decide)
    with pytest.raises(InputError, match="all outputs are integers, which have no cosine"):
        surgery.quantize(path, tmp_path / "q.onnx", data=pictures(), min_cosine=0.5)
    (found,) = surgery.quantize(path, tmp_path / "q.onnx", data=pictures()).agreement
    assert found.top1 is not None
    assert found.top1 >= 0.9


def test_tokens_beyond_the_vocabulary(tmp_path: Path, token_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = tokens() | {"ids": torch.full((2, 6), 99)}
    with pytest.raises(InputError, match=r"the model cannot run on the data \(ids \[1, 6\], mask \[1, 6\]\): "):
        surgery.quantize(token_file, tmp_path / "q.onnx", data=[wrong])
    assert "sequential_executor" not in capfd.readouterr().err


def test_the_users_own_code_that_fails(tmp_path: Path, conv_file: Path) -> None:
    def boom(model: nn.Module) -> float:
        return 1 / 0

    def broken() -> Iterator[Tensor]:
        yield pictures(4)
        raise OSError("the disk is gone")

    good = pictures(16)
    cases: list[tuple[Any, Any, str]] = [
        (good, boom, "evaluate raised ZeroDivisionError: division by zero on the float model"),
        (good, lambda model: float("nan"), "evaluate returned NaN for the float model"),
        (broken(), None, "the data raised OSError: the disk is gone at item 1"),
    ]
    for data, evaluate, told in cases:
        with pytest.raises(InputError, match=told):
            surgery.quantize(conv_file, tmp_path / "int8.onnx", data=data, evaluate=evaluate)
        assert not (tmp_path / "int8.onnx").exists()
    whole = conv_file.read_bytes()
    with pytest.raises(InputError, match="is the float file itself"):
        surgery.quantize(conv_file, conv_file, data=good, overwrite=True)
    assert conv_file.read_bytes() == whole
