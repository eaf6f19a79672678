from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.conftest import IMAGE, CommandLine

DATA = """
import torch


def batches():
    torch.manual_seed(1)
    return [(torch.randn(4, 3, 9, 9), torch.zeros(4)) for _ in range(5)]


def first_score(model):
    with torch.no_grad():
        return model(batches()[0][0])[0, 0]


def broken():
    raise OSError("no such drive")
"""


@pytest.fixture(autouse=True)
def _data(surgery: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    (surgery.place / "cli_data.py").write_text(DATA)
    monkeypatch.syspath_prepend(str(surgery.place))
    monkeypatch.delitem(__import__("sys").modules, "cli_data", raising=False)


def test_a_model_with_data_from_a_factory(surgery: CommandLine) -> None:
    told = ("--data", "cli_data:batches", "--evaluate", "cli_data:first_score", "--min-cosine", "0.5")
    ran = surgery("quantize", "cli_zoo:masked", *IMAGE, *told, "-o", "q.onnx", "--json")
    assert ran.code == 0
    assert (ran.data["command"], ran.data["path"], ran.data["method"]) == ("quantize", "q.onnx", "static")
    assert (ran.data["calibrated"], ran.data["compared"]) == (15, 5)
    assert ran.data["share"] == {"quantised": 3, "total": 3, "left": []}
    in_float, in_int8 = ran.data["evaluated"]
    assert in_int8 == pytest.approx(in_float, abs=0.05)
    assert ran.data["float_parity"]["passed"] is True
    onnx.checker.check_model("q.onnx")

    ran = surgery("quantize", "cli_zoo:masked", *IMAGE, "--data", "cli_data:batches", "-o", "q.onnx")
    assert (ran.code, ran.out) == (2, "")
    assert ran.error == "error: 'q.onnx' exists already\n  -> pass --overwrite, or choose another path"


def test_a_file_with_samples_from_a_file(surgery: CommandLine) -> None:
    assert surgery("export", "cli_zoo:dense", *IMAGE, "--to", "float.onnx").code == 0
    np.save("samples.npy", np.random.default_rng(0).normal(size=(20, 3, 9, 9)).astype(np.float32))
    ran = surgery("quantize", "float.onnx", "--data", "@samples.npy", "-o", "q.onnx")
    assert ran.code == 0
    assert ran.out.startswith("q.onnx: int8 (static, calibrated on 15 samples; convolutions carry 100% of the MACs), ")

    far = ("quantize", "float.onnx", "--data", "@samples.npy", "-o", "far.onnx", "--min-cosine", "1")
    ran = surgery(*far, "--json")
    assert (ran.code, ran.data["error"]["kind"], ran.data["error"]["exit_code"]) == (1, "CheckError", 1)
    assert "(--min-cosine 1.0)" in ran.err
    assert not Path("far.onnx").exists()

    cases = {
        ("float.onnx",): "there is nothing to run the file on\n  -> pass --data or --input",
        (
            "float.onnx",
            *IMAGE,
        ): "static quantisation (convolutions carry 100% of the MACs) needs data to learn the ranges "
        "of activations from\n  -> pass --data, samples like those that the model will see; or --method dynamic, ",
        ("float.onnx", "--data", "@none.npy"): "there is no file 'none.npy'",
        ("float.onnx", "--data", "batches"): "'batches' names nothing to import\n  -> write package.module:name",
        ("float.onnx", "--data", "cli_data:none"): "'cli_data' has no 'none'",
        ("float.onnx", "--data", "cli_data:broken"): "'cli_data:broken' raised OSError: no such drive (cli_data.py:",
        ("float.onnx", "--data", "cli_data:first_score"): "'cli_data:first_score' needs arguments: model",
        ("float.onnx", "--data", "@samples.npy", "--evaluate", "cli_data:torch"): "'cli_data:torch' is a module, which",
        ("float.onnx", "--data", "@samples.npy", "--checkpoint", "a.pt"): "--checkpoint is for models",
        (
            "cli_zoo:dense",
            "--data",
            "@samples.npy",
        ): "a model is exported first, which needs an example\n  -> pass --input",
        ("q.onnx", "--data", "@samples.npy"): "'q.onnx' is quantised already",
    }
    for words, told in cases.items():
        ran = surgery("quantize", *words, "-o", "x.onnx")
        assert (ran.code, ran.out) == (2, ""), ran.err
        assert ran.error.removeprefix("error: ").startswith(told)
    assert not Path("x.onnx").exists()
