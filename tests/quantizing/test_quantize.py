from __future__ import annotations

import hashlib
import json
import logging
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import surgery
from tests.quantizing.nets import convnet, pictures, tokens, transformer


def props(path: Path) -> dict[str, object]:
    (one,) = onnx.load(path).metadata_props
    assert one.key == "surgery"
    said: dict[str, object] = json.loads(one.value)
    return said


def test_a_convolutional_net_from_a_module(tmp_path: Path) -> None:
    loader = torch.utils.data.DataLoader(list(zip(pictures(), torch.arange(40), strict=True)), batch_size=7)
    net = convnet().train()
    done = surgery.quantize(net, tmp_path / "q.onnx", pictures(2), data=loader)
    assert net.training
    assert (done.method, done.why) == ("static", "convolutions carry 100% of the MACs")
    assert (done.calibrated, done.compared, done.compared_on) == (30, 10, "held back from the calibration")
    assert (done.share.quantised, done.share.total, done.share.left) == (4, 4, ())
    assert done.float_parity is not None
    assert done.float_parity.passed
    (found,) = done.agreement
    assert found.min_cosine is not None
    assert found.min_cosine > 0.99
    assert found.error is not None
    assert 0 < found.error < 0.1
    assert found.top1 is not None
    assert found.top1 >= 0.9
    assert "the model takes 1 of the 2 tensors in each item of the data" in done.notes
    assert [file.name for file in tmp_path.iterdir()] == ["q.onnx"]
    assert "4 of 4 convolutions and matrix products run in int8" in str(done)
    json.dumps(done.as_dict())

    session = onnxruntime.InferenceSession(str(done.path))
    for batch in (1, 5):
        x = pictures(batch, seed=9)
        (answer,) = session.run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(answer), net.eval()(x).detach(), atol=0.05, rtol=0.05)


def test_weights_are_int8_per_channel_and_activations_uint8(tmp_path: Path, conv_file: Path) -> None:
    done = surgery.quantize(conv_file, tmp_path / "q.onnx", data=pictures())
    graph = onnx.load(done.path).graph
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 3
    for node in convolutions:
        weight = made[node.input[1]]
        assert (made[node.input[0]].op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert arrays[weight.input[0]].dtype == np.int8
        assert arrays[weight.input[1]].shape == (16,)
        assert arrays[made[node.input[0]].input[2]].dtype == np.uint8


def test_what_the_file_says_of_itself(tmp_path: Path, conv_file: Path) -> None:
    done = surgery.quantize(conv_file, tmp_path / "q.onnx", data=pictures())
    said = props(done.path)
    float_sha256 = hashlib.sha256(conv_file.read_bytes()).hexdigest()
    assert done.float_sha256 == said["float_sha256"] == float_sha256
    assert (said["precision"], said["method"], said["calibration_samples"]) == ("int8", "static", 30)
    assert said["source"] == "Convnet"
    assert done.size_bytes == done.path.stat().st_size < done.float_size_bytes == conv_file.stat().st_size
    assert {opset.domain for opset in onnx.load(done.path).opset_import} == {""}
    held = done.path.read_bytes()
    for place in (tmp_path, conv_file.parent, Path.cwd(), Path(__file__).parent):
        assert str(place).encode() not in held


def test_a_transformer_is_dynamic_and_needs_no_data(tmp_path: Path) -> None:
    done = surgery.quantize(transformer(), tmp_path / "q.onnx", (), tokens())
    assert (done.method, done.calibrated) == ("dynamic", 0)
    assert done.compared_on == "the example and fresh inputs like it"
    assert done.compared == 16
    assert done.share.quantised == 5  # in, out, up, down and the head; products of activations stay
    assert len(done.share.left) == 2
    assert all(name.startswith(("MatMul ", "FusedMatMul ")) for name in done.share.left)
    logits, pooled = done.agreement
    assert (logits.name, pooled.name) == ("logits", "pooled")
    assert logits.min_cosine is not None
    assert pooled.min_cosine is not None
    assert done.min_cosine == min(logits.min_cosine, pooled.min_cosine)
    assert done.min_cosine > 0.99
    assert done.size_bytes < 0.6 * done.float_size_bytes
    assert props(done.path)["method"] == "dynamic"
    answers = onnxruntime.InferenceSession(str(done.path)).run(None, {k: v.numpy() for k, v in tokens(5).items()})
    assert [answer.shape for answer in answers] == [(5, 6, 20), (5, 24)]


def test_either_method_can_be_named(tmp_path: Path, token_file: Path, conv_file: Path) -> None:
    batches = [tokens(2, seed) for seed in range(8)]
    done = surgery.quantize(token_file, tmp_path / "a.onnx", data=batches, method="static")
    assert (done.method, done.why, done.calibrated, done.compared) == ("static", "as asked", 12, 4)
    assert done.share.left == ()
    done = surgery.quantize(conv_file, tmp_path / "b.onnx", data=pictures(), method="dynamic")
    assert (done.method, done.calibrated, done.compared, done.compared_on) == ("dynamic", 0, 40, "the given data")
    assert (done.share.quantised, done.share.total) == (1, 4)  # convolutions stay float


def test_the_users_own_measure_sees_float_and_int8(tmp_path: Path, conv_file: Path) -> None:
    seen: list[Tensor] = []

    def evaluate(model: nn.Module) -> Tensor:
        seen.append(model.eval()(pictures(6)))
        return seen[-1].sum()

    done = surgery.quantize(conv_file, tmp_path / "q.onnx", data=pictures(), evaluate=evaluate)
    float_out, int8_out = seen
    torch.testing.assert_close(float_out, convnet().eval()(pictures(6)).detach())
    assert not torch.equal(float_out, int8_out)
    assert done.evaluated == (float(float_out.sum()), float(int8_out.sum()))
    assert "evaluated: " in str(done)


def test_too_far_from_float_leaves_nothing(tmp_path: Path, conv_file: Path) -> None:
    with pytest.raises(surgery.errors.CheckError, match=r"int8 is too far from float: output: cosine 0\.99") as refusal:
        surgery.quantize(conv_file, tmp_path / "q.onnx", data=pictures(), min_cosine=1.0)
    assert refusal.value.exit_code == 1
    assert not list(tmp_path.iterdir())
    (tmp_path / "q.onnx").write_text("mine")
    with pytest.raises(surgery.errors.CheckError):
        surgery.quantize(conv_file, tmp_path / "q.onnx", data=pictures(), min_cosine=1.0, overwrite=True)
    assert (tmp_path / "q.onnx").read_text() == "mine"
    assert surgery.quantize(conv_file, tmp_path / "r.onnx", data=pictures(), min_cosine=0.9).min_cosine


def test_ranges_learnt_from_other_data_are_seen(tmp_path: Path, conv_file: Path) -> None:
    """Calibrated on pictures that are far too dark, everything bright is cut off: the comparison must show it."""
    dark_and_bright = pictures()
    dark_and_bright[torch.arange(40) % 4 != 3] *= 0.01
    done = surgery.quantize(conv_file, tmp_path / "q.onnx", data=dark_and_bright)
    (found,) = done.agreement
    assert found.error is not None
    assert found.error > 0.5


def test_both_are_timed_side_by_side(tmp_path: Path, conv_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from surgery.quantizing import door

    briefly = partial(surgery.benchmark, min_pairs=5, min_seconds=0.0, max_seconds=0.1)
    monkeypatch.setattr(door, "benchmark", briefly)
    done = surgery.quantize(conv_file, tmp_path / "q.onnx", pictures(3), data=pictures(), measure=True)
    assert done.benchmark is not None
    (cell,) = done.benchmark.cells
    assert (cell.runtime, cell.threads, cell.batch) == ("onnxruntime", 1, 3)
    assert [row.model for row in cell.rows] == ["float", "int8"]
    assert done.ratio is not None
    assert done.ratio.n >= 5
    assert done.as_dict()["ratio"]["median"] == done.ratio.median
    assert "float over int8 (onnxruntime, 1 thread, cpu, batch 3): " in str(done)


def test_the_rest_of_the_program_is_left_alone(
    tmp_path: Path, token_file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root, "handlers", [])
    surgery.quantize(token_file, "q.onnx", data=[tokens()], method="static")
    assert [file.name for file in tmp_path.iterdir()] == ["q.onnx"]
    assert logging.root.handlers == []
    assert not logging.root.disabled
    out, err = capfd.readouterr()
    assert out == ""
    assert "WARNING" not in err


class Positions(nn.Module):
    """A table of positions, cut to the length of the input: symbolic shape inference cannot follow that."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)
        self.register_buffer("table", torch.randn(16, 8))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids) + self.table[: ids.shape[1]])


def test_free_lengths_stay_free_and_nothing_is_left_in_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shapes = {"ids": {0: "batch", 1: "tokens"}}
    surgery.quantize(Positions(), "q.onnx", tokens()["ids"], dynamic_shapes=shapes)
    assert [file.name for file in tmp_path.iterdir()] == ["q.onnx"]
    session = onnxruntime.InferenceSession("q.onnx")
    assert session.run(None, {"ids": np.ones((3, 9), np.int64)})[0].shape == (3, 9, 3)
