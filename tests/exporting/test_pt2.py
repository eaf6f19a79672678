from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

from surgery.errors import InputError
from surgery.exporting import export
from surgery.version import __version__
from tests.exporting.models import Counter, Scaled, Undecided, convnet


def test_it_loads_without_this_package_and_says_where_it_comes_from(tmp_path: Path) -> None:
    model, x = convnet(), torch.randn(5, 3, 8, 8)
    done = export(model, tmp_path / "a.pt2", x)
    assert (done.format, done.opset, done.notes) == ("pt2", None, ())
    extra = {"surgery.json": ""}
    loaded = torch.export.load(done.path, extra_files=extra).module()
    torch.testing.assert_close(loaded(x[:4]), model.eval()(x[:4]))
    assert json.loads(extra["surgery.json"]) == {
        "tool": "surgery",
        "version": __version__,
        "torch": torch.__version__,
        "source": "Sequential",
    }


def test_the_users_example_is_not_in_the_file(tmp_path: Path) -> None:
    x = torch.full((2, 3, 8, 8), 1.2345)
    export(convnet(), tmp_path / "a.pt2", x)
    assert torch.export.load(tmp_path / "a.pt2").example_inputs is None
    with zipfile.ZipFile(tmp_path / "a.pt2") as archive:
        members = [archive.read(name) for name in archive.namelist()]
    assert not any(x[0, 0, 0].numpy().tobytes() in member for member in members)


def test_inputs_and_outputs_keep_their_names_and_order(tmp_path: Path) -> None:
    x, keep, scale = torch.randn(4, 4), torch.rand(4, 4), torch.randn(4, 1)
    model = Scaled()
    done = export(model, tmp_path / "a.pt2", (x,), {"keep": keep, "scale": scale})
    loaded = torch.export.load(done.path)
    assert loaded.graph_signature.user_inputs == ("x", "keep", "scale")
    first, second = loaded.module()(x, keep, scale)
    expected = model(x, keep=keep, scale=scale)
    torch.testing.assert_close(first, expected["x"])
    torch.testing.assert_close(second, expected["parts"][0])
    assert "it returns a tuple: x_out, parts.0" in done.notes


def test_dims_that_were_asked_for_are_free_and_tried_one_by_one(tmp_path: Path) -> None:
    shapes = {"input": {0: "batch", 2: "height", 3: "width"}}
    done = export(convnet(), tmp_path / "a.pt2", torch.randn(2, 3, 8, 8), dynamic_shapes=shapes)
    assert done.parity.batch_sizes == (1, 2, 3, 5)
    assert done.parity.n_inputs == 9  # example, 2 fresh, 3 batches, both dims, height, width
    torch.export.load(done.path).module()(torch.randn(7, 3, 11, 6))


def test_dims_of_one_name_change_together_even_where_the_model_does_not_tie_them(tmp_path: Path) -> None:
    class Apart(torch.nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x * 2, mask + 1

    inputs = (torch.randn(2, 6), torch.rand(2, 6))
    for mask_length, n_inputs in (("tokens", 7), ("others", 9)):  # together; together and each alone
        shapes = {"x": {0: "batch", 1: "tokens"}, "mask": {0: "batch", 1: mask_length}}
        done = export(Apart(), tmp_path / "a.pt2", inputs, dynamic_shapes=shapes, overwrite=True)
        assert done.parity.batch_sizes == (1, 2, 3, 5)
        assert done.parity.n_inputs == n_inputs


def test_capturing_does_not_advance_the_state_in_the_file(tmp_path: Path) -> None:
    model, x = Counter(), torch.randn(4, 8)
    loaded = torch.export.load(export(model, tmp_path / "a.pt2", x).path).module()
    torch.testing.assert_close(loaded(x), model.linear(x) * 2)
    torch.testing.assert_close(loaded(x), model.linear(x) * 3)


def test_what_cannot_be_captured_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torch.export cannot capture Undecided: .*data-dependent"):
        export(Undecided(), tmp_path / "a.pt2", torch.randn(4, 8))
    assert not list(tmp_path.iterdir())


def test_a_dim_that_the_example_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"names dim 4 of the input input, which has 4 dims\n  -> count from 0 to 3"):
        export(convnet(), tmp_path / "a.pt2", torch.randn(2, 3, 8, 8), dynamic_shapes={"input": {4: "depth"}})
