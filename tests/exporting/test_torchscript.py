from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

from surgery.errors import CheckError, InputError
from surgery.exporting import export
from surgery.version import __version__
from tests.exporting.models import BatchInAFactor, Counter, Scaled, Stretched, Tokens, convnet


def test_it_loads_without_this_package_and_says_where_it_comes_from(tmp_path: Path) -> None:
    model, x = convnet(), torch.randn(5, 3, 8, 8)
    done = export(model, tmp_path / "a.pt", x)
    extra = {"surgery.json": ""}
    loaded = torch.jit.load(str(done.path), _extra_files=extra)
    torch.testing.assert_close(loaded(x), model.eval()(x))
    assert json.loads(extra["surgery.json"]) == {
        "tool": "surgery",
        "version": __version__,
        "torch": torch.__version__,
        "source": "Sequential",
    }
    assert done.opset is None
    assert done.notes == ("TorchScript is deprecated upstream, but still loads",)


def test_inputs_keep_their_names_and_outputs_their_order(tmp_path: Path) -> None:
    x, keep, scale = torch.randn(4, 4), torch.rand(4, 4), torch.randn(4, 1)
    model = Scaled()
    done = export(model, tmp_path / "a.pt", (x,), {"keep": keep, "scale": scale})
    expected = model(x, keep=keep, scale=scale)
    first, second = torch.jit.load(str(done.path))(scale=scale, x=x, keep=keep)
    torch.testing.assert_close(first, expected["x"])
    torch.testing.assert_close(second, expected["parts"][0])
    assert "it returns a tuple: x_out, parts.0" in done.notes


def test_fields_name_the_outputs(tmp_path: Path) -> None:
    done = export(Tokens(), tmp_path / "a.pt", torch.randint(0, 20, (2, 7)))
    assert "it returns a tuple: logits, hidden" in done.notes


def test_tracing_does_not_advance_the_state_in_the_file(tmp_path: Path) -> None:
    model, x = Counter(), torch.randn(4, 8)
    done = export(model, tmp_path / "a.pt", x)
    loaded = torch.jit.load(str(done.path))
    torch.testing.assert_close(loaded(x), model.linear(x) * 2)
    torch.testing.assert_close(loaded(x), model.linear(x) * 3)


def test_a_batch_that_the_trace_baked_in_is_found(tmp_path: Path) -> None:
    x = torch.randn(4, 8)
    with pytest.raises(CheckError, match=r"relative error .*, bound 1.0e-05 \(output 'output', on batch") as refusal:
        export(BatchInAFactor(), tmp_path / "a.pt", x)
    assert "dynamic_shapes={} for a file that promises the example's shapes only" in refusal.value.way_out
    assert not list(tmp_path.iterdir())
    done = export(BatchInAFactor(), tmp_path / "a.pt", x, dynamic_shapes={})
    assert done.parity.batch_sizes == (4,)


def test_what_a_trace_promises_is_tried(tmp_path: Path) -> None:
    """A trace states no shapes; those that are asked for are compared, together and one by one."""
    shapes = {"input": {0: "batch", 2: "height", 3: "width"}}
    done = export(convnet(), tmp_path / "a.pt", torch.randn(2, 3, 8, 8), dynamic_shapes=shapes)
    assert done.parity.batch_sizes == (1, 2, 3, 5)
    assert done.parity.n_inputs == 9
    with pytest.raises(CheckError, match=r"on inputs of shape 2x40\)"):
        export(Stretched(), tmp_path / "b.pt", torch.randn(2, 8), dynamic_shapes={"x": {1: "length"}})
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_debug_records_are_gone(tmp_path: Path) -> None:
    export(convnet(), tmp_path / "a.pt", torch.randn(2, 3, 8, 8))
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert not [name for name in archive.namelist() if name.endswith(".debug_pkl")]


def test_what_cannot_be_traced_is_one_clear_error(tmp_path: Path) -> None:
    class Untraceable(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.jit.is_tracing():
                raise RuntimeError("first line\nsecond line")
            return x + 1

    with pytest.raises(InputError, match=r"Untraceable cannot be traced: first line\n  -> .*export to ONNX") as refusal:
        export(Untraceable(), tmp_path / "a.pt", torch.randn(4, 8))
    assert isinstance(refusal.value.__cause__, RuntimeError)
    assert not list(tmp_path.iterdir())
