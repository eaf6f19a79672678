from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from surgery.errors import InputError
from surgery.exporting import export
from surgery.exporting import onnx as target
from tests.exporting.models import Eigenvalues, Scaled, Tokens, convnet


def test_the_file_runs_in_onnx_runtime_under_its_own_names(tmp_path: Path) -> None:
    model = Scaled()
    x, keep, scale = torch.randn(4, 4), torch.rand(4, 4), torch.randn(4, 1)
    done = export(model, tmp_path / "a.onnx", (x,), {"keep": keep, "scale": scale})
    session = onnxruntime.InferenceSession(str(done.path))
    feed = {"x": x[:2].numpy(), "keep": keep[:2].numpy(), "scale": scale[:2].numpy()}
    first, second = (torch.from_numpy(output) for output in session.run(["x_out", "parts.0"], feed))
    expected = model(x[:2], keep=keep[:2], scale=scale[:2])
    torch.testing.assert_close(first, expected["x"])
    torch.testing.assert_close(second, expected["parts"][0])


def test_opset_provenance_and_the_free_batch_are_in_the_file(tmp_path: Path) -> None:
    done = export(convnet(), tmp_path / "a.onnx", torch.randn(2, 3, 8, 8))
    proto = onnx.load(done.path)
    assert done.opset == next(opset.version for opset in proto.opset_import if opset.domain == "")
    (metadata,) = proto.metadata_props
    assert metadata.key == "surgery"
    assert json.loads(metadata.value)["source"] == "Sequential"
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, 8, 8]
    assert not [node.name for node in proto.graph.node if node.doc_string or node.metadata_props]
    assert done.notes == ()


def test_other_dims_may_be_free_and_are_then_tried(tmp_path: Path) -> None:
    shapes = {"input": {0: "batch", 2: "height", 3: "width"}}
    done = export(convnet(), tmp_path / "a.onnx", torch.randn(2, 3, 8, 8), dynamic_shapes=shapes)
    dims = onnx.load(done.path).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, "height", "width"]
    assert done.parity.n_inputs == 9


def test_empty_shapes_fix_the_example(tmp_path: Path) -> None:
    done = export(convnet(), tmp_path / "a.onnx", torch.randn(2, 3, 8, 8), dynamic_shapes={})
    dims = onnx.load(done.path).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [2, 3, 8, 8]
    assert done.parity.batch_sizes == (2,)


def test_a_shape_that_the_model_cannot_free_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torch.export cannot capture Sequential: Constraints violated") as refusal:
        export(convnet(), tmp_path / "a.onnx", torch.randn(2, 3, 8, 8), dynamic_shapes={"input": {1: "channels"}})
    assert refusal.value.way_out == "check dynamic_shapes, or leave it out"


def test_integer_tokens_with_a_free_length(tmp_path: Path) -> None:
    shapes = {"ids": {0: "batch", 1: "tokens"}}
    done = export(Tokens(), tmp_path / "a.onnx", torch.randint(0, 20, (2, 7)), dynamic_shapes=shapes)
    assert done.parity.n_inputs == 7


def test_large_models_have_their_weights_in_a_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "EXTERNAL_BYTES", 1000)
    model, x = nn.Linear(64, 64), torch.randn(2, 64)
    done = export(model, tmp_path / "a.onnx", x)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "a.onnx.data"]
    assert done.size_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert "the weights are in a.onnx.data, which must stay beside the file" in done.notes
    (output,) = onnxruntime.InferenceSession(str(done.path)).run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), model(x).detach())
    done.path.unlink()
    with pytest.raises(InputError, match=r"a.onnx.data' exists already"):
        export(model, tmp_path / "a.onnx", x)


def test_an_unknown_operator_is_one_clear_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="Eigenvalues cannot be translated to ONNX: No ONNX function found") as refusal:
        export(Eigenvalues(), tmp_path / "a.onnx", torch.randn(4, 8))
    assert refusal.value.way_out == "replace that operator in the model, or export to TorchScript"
    assert "\x1b" not in str(refusal.value)
    out, err = capfd.readouterr()
    assert out == ""
    assert "def forward" not in err
    assert not list(tmp_path.iterdir())


def test_complex_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ONNX has no complex inputs"):
        export(nn.Identity(), tmp_path / "a.onnx", torch.randn(4, 8).to(torch.complex64))


def test_a_recurrent_net(tmp_path: Path) -> None:
    done = export(nn.LSTM(4, 6, batch_first=True), tmp_path / "a.onnx", torch.randn(2, 5, 4))
    assert done.parity.batch_sizes == (1, 2, 3, 5)


def test_a_number_minus_whole_numbers(tmp_path: Path) -> None:
    class Inverted(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return x * (1.0 - mask) + (2 - mask)

    done = export(Inverted(), tmp_path / "a.onnx", (torch.randn(4, 3), torch.randint(0, 5, (4, 3))))
    assert done.parity.max_rel_error < 1e-6
