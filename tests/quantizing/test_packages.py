from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import surgery
from surgery.errors import CheckError, InputError, MissingExtraError
from surgery.quantizing import packages
from surgery.quantizing.agreement import Agreement
from surgery.quantizing.inductor import require_faithful
from surgery.quantizing.packages import _whole_batches
from tests.quantizing.nets import convnet, pictures, tokens

needs_torchao = pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="the extra quantize-torchao")


@needs_torchao
@pytest.mark.slow
def test_a_package_computes_what_its_graph_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    briefly = partial(surgery.benchmark, min_pairs=5, min_seconds=0.0, max_seconds=0.1)
    monkeypatch.setattr(packages, "benchmark", briefly)
    net = convnet()
    done = surgery.quantize(
        net,
        tmp_path / "q.aoti.pt2",
        pictures(4),
        data=pictures(),
        evaluate=lambda model: model(pictures(7)).shape[0],
        measure=True,
        min_cosine=0.99,
    )
    assert (done.method, done.calibrated, done.compared) == ("static", 30, 10)
    assert (done.share.quantised, done.share.total) == (4, 4)
    (found,) = done.agreement
    assert found.error is not None
    assert 0 < found.error < 0.1
    assert done.evaluated == (7, 7)
    assert done.benchmark is not None
    assert done.benchmark.cells[0].batch == 4
    assert done.ratio is not None
    assert "inputs of shape [4, 3, 12, 12] only" in done.notes[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["q.aoti.pt2"]
    package: Any = torch._inductor.aoti_load_package(str(done.path))
    x = pictures(4, seed=9)
    torch.testing.assert_close(package(x), net.eval()(x).detach(), atol=0.05, rtol=0.05)
    assert package.get_metadata()["precision"] == "int8"
    out, err = capfd.readouterr()
    assert out == ""
    assert "torchao" not in err.replace("(torchao)", "")


def test_a_missing_torchao_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization.pt2e.quantize_pt2e", None)
    with pytest.raises(MissingExtraError, match=r"'torchao' is not installed\n.*surgery\[quantize-torchao\]"):
        surgery.quantize(convnet(), tmp_path / "q.aoti.pt2", pictures(2), data=pictures())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "example", "settings", "told"),
    [
        ("float.onnx", pictures(2), {}, "an AOTInductor package is made from a module"),
        (convnet(), None, {}, "a module is captured first"),
        (convnet(), pictures(2), {"data": None}, "static quantisation needs data"),
        (
            convnet(),
            pictures(2),
            {"dynamic_shapes": {"x": {0: "batch"}}},
            "dynamic_shapes has no meaning for an",
        ),
        (convnet(), pictures(2), {"method": "dynamic"}, "AOTInductor packages are static here"),
        (convnet(), pictures(2), {"data": torch.zeros(9, 12, 12)}, "item 0 of the data: input 'x' has shape"),
        (convnet(), tokens()["ids"], {}, "Convnet cannot run on the example inputs"),
    ],
)
def test_what_a_package_cannot_be_made_from(
    tmp_path: Path, model: Any, example: Any, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        surgery.quantize(model, tmp_path / "q.aoti.pt2", example, **{"data": pictures(), **settings})
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_further_from_float_than_its_graph_is_refused() -> None:
    graph = Agreement("scores", 0.99, 0.999, 0.02, 1.0)
    require_faithful([graph], [replace(graph, error=0.035)])
    require_faithful([replace(graph, error=None)], [replace(graph, error=None)])
    for error in (0.05, float("nan")):
        with pytest.raises(CheckError, match=r"scores is off by .* of what it varies, the graph by 2\.0%"):
            require_faithful([graph], [replace(graph, error=error)])


def test_calls_of_any_size_are_made_of_whole_batches() -> None:
    sizes = []

    def run(feed: Any) -> list[Any]:
        sizes.append(len(feed["x"]))
        return [feed["x"] * 2]

    x = np.arange(7.0)
    (doubled,) = _whole_batches(run, 3)({"x": x})
    np.testing.assert_array_equal(doubled, 2 * x)
    (doubled,) = _whole_batches(run, 3)({"x": x[:1]})
    np.testing.assert_array_equal(doubled, 2 * x[:1])
    assert set(sizes) == {3}
