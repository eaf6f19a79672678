"""Any two of {module, ONNX, TorchScript, pt2}: the same verdict whatever the door."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.errors import InputError
from tests.exporting.models import BatchInAFactor, LiveDropout, Scaled, convnet

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
FORMS = ("module", ".onnx", ".pt", ".pt2")


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, nn.Module | Path]:
    place = tmp_path_factory.mktemp("forms")
    return {"module": convnet(), **{s: surgery.export(convnet(), place / f"net{s}", X).path for s in FORMS[1:]}}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, nn.Module | Path]:
    """The same net with one bias a little off."""
    place, net = tmp_path_factory.mktemp("others"), convnet()
    with torch.no_grad():
        net[-1].bias[2] += 3e-4
    return {"module": net, **{s: surgery.export(net, place / f"net{s}", X).path for s in FORMS[1:]}}


@pytest.mark.parametrize(("a", "b"), [*product(FORMS, FORMS)])
def test_any_two(a: str, b: str, forms: dict[str, nn.Module | Path], others: dict[str, nn.Module | Path]) -> None:
    same = surgery.verify(forms[a], forms[b], X, trust=True)
    assert same.passed
    assert same.max_rel_error is not None
    assert same.max_rel_error <= same.bound < 2e-5
    assert same.n_inputs >= 7
    different = surgery.verify(forms[a], others[b], X, trust=True)
    assert not different.passed
    assert different.max_abs_error == pytest.approx(3e-4, rel=0.01)
    assert different.failure is not None
    if "module" in (a, b) and a != b:
        assert same.noise is not None
    elif a != b:
        assert any("neither runs in float64" in note for note in same.notes)


def test_what_a_file_promises_is_tried(tmp_path: Path) -> None:
    fixed = surgery.export(convnet(), tmp_path / "a.onnx", X, dynamic_shapes={}).path
    assert surgery.verify(convnet(), fixed, X).n_inputs == 6  # the example and fresh values, of batch 2
    shapes = {"input": {0: "batch", 2: "height", 3: "width"}}
    free = surgery.export(convnet(), tmp_path / "b.onnx", X, dynamic_shapes=shapes).path
    assert any("40" in shape for shape in surgery.verify(convnet(), free, X).shapes)
    assert surgery.verify(free, fixed, X).n_inputs == 6


def test_a_batch_that_a_trace_baked_in_is_found(tmp_path: Path) -> None:
    x = torch.randn(4, 8)
    path = surgery.export(BatchInAFactor(), tmp_path / "a.pt", x, dynamic_shapes={}).path
    proof = surgery.verify(BatchInAFactor(), path, x, trust=True)
    assert proof.failure is not None
    assert "on batch " in proof.failure


def test_inputs_are_found_by_name_else_by_position(tmp_path: Path) -> None:
    model, x, keep, scale = Scaled(), torch.randn(4, 4), torch.rand(4, 4), torch.randn(4, 1)
    for suffix in FORMS[1:]:
        path = surgery.export(model, tmp_path / f"a{suffix}", (x,), {"keep": keep, "scale": scale}).path
        assert surgery.verify(model, path, (x,), {"scale": scale, "keep": keep}, trust=True).passed
        assert surgery.verify(path, path, (x, keep, scale), trust=True).passed
    net = onnx.load(tmp_path / "a.onnx")
    values = list(net.graph.input)
    del net.graph.input[:]
    net.graph.input.extend(reversed(values))
    onnx.save(net, tmp_path / "c.onnx")
    assert surgery.verify(tmp_path / "a.onnx", tmp_path / "c.onnx", (x, keep, scale)).passed
    net = onnx.load(tmp_path / "a.onnx")
    for value, name in zip(net.graph.input, ("first", "second", "third"), strict=True):
        for node in net.graph.node:
            node.input[:] = [name if used == value.name else used for used in node.input]
        value.name = name
    onnx.save(net, tmp_path / "b.onnx")
    assert surgery.verify(tmp_path / "a.onnx", tmp_path / "b.onnx", (x,), {"keep": keep, "scale": scale}).passed


def test_a_program_that_others_saved_with_keywords_and_containers(tmp_path: Path) -> None:
    class Nested(nn.Module):
        def forward(self, pair: list[Tensor], *, scale: Tensor) -> dict[str, Tensor]:
            return {"sum": pair[0] + pair[1] * scale}

    pair, scale = [torch.randn(2, 4), torch.randn(2, 4)], torch.randn(4)
    torch.export.save(torch.export.export(Nested(), (pair,), {"scale": scale}), tmp_path / "a.pt2")
    assert surgery.verify(Nested(), tmp_path / "a.pt2", (pair,), {"scale": scale}, trust=True).passed


@pytest.mark.slow
def test_half_precision_between_two_files(tmp_path: Path) -> None:
    x = X.half()
    a = surgery.export(convnet().half(), tmp_path / "a.onnx", x).path
    b = surgery.export(convnet().half(), tmp_path / "a.pt", x).path
    proof = surgery.verify(a, b, x, trust=True)
    assert proof.passed
    assert proof.dtype == "float16"
    assert 1e-3 < proof.bound < 1


def test_what_does_not_fit(forms: dict[str, nn.Module | Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"net.onnx' cannot run on the example inputs: "):
        surgery.verify(forms[".onnx"], forms[".onnx"], torch.randn(2, 4, 8, 8))
    with pytest.raises(InputError, match="Sequential cannot run on the example inputs: "):
        surgery.verify(convnet(), forms[".onnx"], torch.randn(2, 4, 8, 8))
    with pytest.raises(InputError, match="answers the same input differently each time"):
        surgery.verify(LiveDropout(), forms[".onnx"], X)
    with pytest.raises(InputError, match=r"is a directory\n  -> pass surgery.load\(directory, model\)"):
        surgery.verify(convnet(), tmp_path, X)
    with pytest.raises(InputError, match=r"opening it can run any code\n  -> pass trust=True"):
        surgery.verify(convnet(), forms[".pt"], X)
    wrong = surgery.export(nn.Flatten(), tmp_path / "flat.onnx", X).path
    proof = surgery.verify(convnet(), wrong, X)
    assert proof.failure is not None
    assert "shape [2, 192] instead of [2, 5]" in proof.failure
