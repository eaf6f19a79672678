"""Every form of a slim net against the net itself, at batch 1 and 5; files in a process that never saw its class."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

import surgery
from surgery.exporting.flat import FlatModel
from surgery.inputs import Inputs
from tests.exporting.matrix_nets import FAMILIES, LIBRARIES, fresh, slim

BATCHES = (1, 5)
SUFFIXES = (".onnx", ".pt", ".pt2")
QUICK = ("resnet",)
MIXED = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]

STRANGER = """
import json, sys, warnings
import torch

warnings.simplefilter("ignore")  # TorchScript is deprecated
torch.set_num_threads(1)


def opened(path):
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return lambda x: [torch.from_numpy(y) for y in session.run(None, {n: t.numpy() for n, t in x.items()})]
    if path.endswith(".aoti.pt2"):
        model = torch._inductor.aoti_load_package(path)
    elif path.endswith(".pt2"):
        model = torch.export.load(path).module()
    else:
        model = torch.jit.load(path)
    return lambda x: model(*x.values())


todo, libraries, out = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
answers = {}
for path, example in todo:
    run = opened(path)
    with torch.no_grad():
        found = [run(inputs) for inputs in torch.load(example, weights_only=True)]
    answers[path] = [[y] if isinstance(y, torch.Tensor) else list(y) for y in found]
known = {name.partition(".")[0] for name in sys.modules}
assert not known & {*libraries, "surgery", "tests"}, known
torch.save(answers, out)
"""
"""What somebody does who has the files, PyTorch and ONNX Runtime only."""


def examples(name: str) -> list[dict[str, Tensor]]:
    torch.manual_seed(3)
    return [FAMILIES[name].inputs(batch) for batch in BATCHES]


def answers_of(model: torch.nn.Module, inputs: Sequence[Mapping[str, Tensor]]) -> list[list[Tensor]]:
    """The model's output tensors per input, in order."""
    return [FlatModel(model, Inputs((), x)).outputs(list(x.values())) for x in inputs]


def judge(name: str, answers: Sequence[Sequence[Tensor]]) -> None:
    """Hold answers against the slim net's own, over their spread, to max(1e-5, 4 x its rounding)."""
    model, inputs = slim(name).model, examples(name)
    double = [{k: t.double() if t.is_floating_point() else t for k, t in x.items()} for x in inputs]
    with torch.no_grad():
        expected = answers_of(model, inputs)
        exact = answers_of(copy.deepcopy(model).double(), double)
    assert len(answers) == len(BATCHES)
    for j in range(len(expected[0])):
        rows = torch.cat([outputs[j] for outputs in expected])
        spread = float((rows.amax(0) - rows.amin(0)).max())
        assert spread > 0.01  # an output that hardly varies shows nothing
        noise = max(float((a[j] - b[j]).abs().max()) for a, b in zip(expected, exact, strict=True)) / spread
        for own, other in zip(expected, answers, strict=True):
            assert len(other) == len(own)
            assert other[j].dtype == own[j].dtype
            torch.testing.assert_close(other[j], own[j], rtol=0, atol=max(1e-5, 4 * noise) * spread)


def asked(files: Sequence[tuple[str, Path]], folder: Path) -> dict[str, list[list[Tensor]]]:
    """What the files answer in a process of their own."""
    todo = []
    for name, path in files:
        torch.save(examples(name), folder / f"{name}.inputs")
        todo.append((str(path), str(folder / f"{name}.inputs")))
    words = [sys.executable, "-c", STRANGER, json.dumps(todo), json.dumps(LIBRARIES), str(folder / "out")]
    ran = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=250, check=False)
    assert ran.returncode == 0, ran.stderr
    answers: dict[str, list[list[Tensor]]] = torch.load(folder / "out", weights_only=True)
    return answers


@pytest.mark.parametrize("name", MIXED)
def test_the_slim_directory_replays_on_a_fresh_instance(name: str, tmp_path: Path) -> None:
    surgery.save(slim(name), tmp_path / "slim")
    model = surgery.load(tmp_path / "slim", fresh(name)).eval()
    with torch.no_grad():
        judge(name, answers_of(model, examples(name)))


@pytest.mark.parametrize("name", MIXED)
def test_every_file_answers_as_the_slim_net_does_in_a_process_without_its_class(name: str, tmp_path: Path) -> None:
    files = []
    for suffix in SUFFIXES:
        done = surgery.export(slim(name).model, tmp_path / f"{name}{suffix}", (), FAMILIES[name].inputs(2))
        assert done.parity.batch_sizes == (1, 2, 3, 5)
        assert done.load_ms > 0
        files.append((name, done.path))
    answers = asked(files, tmp_path)
    assert len(answers) == len(SUFFIXES)
    for found in answers.values():
        judge(name, found)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_decoder_of_any_length(suffix: str, tmp_path: Path) -> None:
    shapes = {name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask")}
    example = FAMILIES["decoder"].inputs(2)
    done = surgery.export(slim("decoder").model, tmp_path / f"a{suffix}", (), example, dynamic_shapes=shapes)
    assert done.parity.batch_sizes == (1, 2, 3, 5)
    assert done.parity.n_inputs == 7  # example, 2 fresh, 3 batches, one other length, of ids and mask alike
    assert done.notes == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_compiled_package_does_too(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"{name}.aoti.pt2"
    done = surgery.export(slim(name).model, path, (), FAMILIES[name].inputs(2))
    assert done.parity.batch_sizes == (1, 2, 3, 5)
    assert capfd.readouterr().out == ""
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    (found,) = asked([(name, path)], tmp_path).values()
    judge(name, found)
