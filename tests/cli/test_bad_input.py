from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from surgery.cli import benching, choosing, exporting, shrinking
from tests.cli.conftest import IMAGE, CommandLine

ROOT = Path(__file__).resolve().parents[2]


def refused(surgery: CommandLine, *words: str) -> str:
    ran = surgery(*words)
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert "Traceback" not in ran.err
    return ran.error.removeprefix("error: ")


def test_models_that_are_none(surgery: CommandLine) -> None:
    here = str(surgery.place)
    cases = {
        "cli_zoo:mask": "'cli_zoo' has no 'mask'\n  -> did you mean 'masked'?",
        "nowhere:make": f"there is no module 'nowhere' in {here} or among the installed packages\n  -> run from",
        "resnet18": "the model 'resnet18' is none of the known forms, and no directory\n  -> a model is",
        "torchvision:resnet19": "torchvision has no model 'resnet19'\n  -> near: ",
        ".": "the directory '.' holds neither config.json nor surgery.json\n  -> a model is",
    }
    for spec, told in cases.items():
        assert refused(surgery, "shrink", spec, *IMAGE).startswith(told)


def test_checkpoints_that_do_not_fit(surgery: CommandLine) -> None:
    names = {"conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "conv2.weight": (4, 8, 3, 3), "conv2.bias": (4,)}
    tensors = {name: torch.zeros(shape) for name, shape in names.items()}
    save_file(tensors, "missing.safetensors")
    head = {"head.weight": torch.zeros(2, 4), "head.bias": torch.zeros(2)}
    torch.save(tensors | head | {"tail.weight": torch.zeros(1)}, "extra.pt")
    torch.save(tensors | {"head.weight": torch.zeros(2, 4), "head.bias": torch.nn.Linear(1, 1)}, "code.pt")
    save_file(tensors | {"head.weight": torch.zeros(3, 4), "head.bias": torch.zeros(2)}, "wide.safetensors")
    Path("cut.safetensors").write_bytes(Path("wide.safetensors").read_bytes()[:-9])
    cases = {
        "missing.safetensors": "missing.safetensors does not fit the model:\n  2 names missing: head.weight, head",
        "extra.pt": "extra.pt does not fit the model:\n  1 name not in the model: tail.weight",
        "code.pt": "'code.pt' needs the code of torch.nn.modules.linear.Linear to be loaded",
        "wide.safetensors": "wide.safetensors does not fit the model:\n  1 other shape: head.weight is [3, 4], [2, 4]",
        "cut.safetensors": "'cut.safetensors' (",
        "none.pt": "there is no file 'none.pt'\n  -> did you mean 'code.pt'?",
    }
    for file, told in cases.items():
        assert refused(surgery, "shrink", "cli_zoo:dense", *IMAGE, "--checkpoint", file).startswith(told)


def test_inputs_that_do_not_fit(surgery: CommandLine) -> None:
    cases = {
        (
            "--input",
            "2x4x9x9",
        ): r"Net does not accept the example inputs \(\(2, 4, 9, 9\)\): RuntimeError: Given groups=1.*\n"
        r"  -> pass inputs as the model receives them; on the command line --input NAME=SHAPE",
        ("--input", "2x3"): r"Net does not accept the example inputs \(\(2, 3\)\): ",
        (
            "--input",
            "2x3x9x9:float23",
        ): r"the input '2x3x9x9:float23' has the unknown dtype 'float23'\n  -> use float64",
        ("--input", "large"): r"the input 'large' is not understood\n  -> write \[NAME=\]SHAPE",
        ("--input", "y=2x3x9x9"): r"Net does not accept the example inputs \(\(2, 3, 9, 9\)\): TypeError: ",
        ("--input", "2x3x9x9", "--input", "2x3x9x9"): r"Net does not accept the example inputs .*: TypeError: ",
        (): r"Missing option '--input'\.?\n  -> see surgery shrink --help",
    }
    for words, told in cases.items():
        assert re.match(told, refused(surgery, "shrink", "cli_zoo:dense", *words)), words


def test_models_that_cannot_be_cut(surgery: CommandLine) -> None:
    cases = {
        (
            "cli_zoo:Branches",
            "2x4",
        ): r"torch.export cannot capture Branches at cli_zoo.py:[0-9]+: .*\n  -> remove the data-dependent Python",
        ("cli_zoo:Whole", "3:int64[0,2]"): r"Whole has no parameters\n  -> pass a model with weights to cut",
        ("cli_zoo:Nothing", "2x4"): r"ReLU has no parameters\n  -> pass a model with weights to cut",
        ("cli_zoo:nan", "2x3x9x9"): r"2 tensors hold NaN or Inf: conv2.weight \(1 NaN\), head.bias \(1 Inf\)\n"
        r"  -> take a checkpoint from before the training diverged",
    }
    for (spec, shape), told in cases.items():
        assert re.match(told, refused(surgery, "shrink", spec, "--input", shape)), spec
        assert re.match(told, refused(surgery, "explain", spec, "--input", shape)), spec
        assert re.match(told, refused(surgery, "choose", spec, "--input", shape)), spec


def test_a_model_of_integers_is_refused(surgery: CommandLine) -> None:
    told = refused(surgery, "shrink", "cli_zoo:Integers", "--input", "3:int64[0,2]")
    assert "Integers has no floating-point parameters\n  -> pass a model with weights to cut" in told


def test_options_out_of_range(surgery: CommandLine) -> None:
    model = ("cli_zoo:dense", *IMAGE)
    cases = {
        ("shrink", *model, "--tolerance", "-1"): "tolerance is -1.0\n  -> give an absolute magnitude of at least 0",
        ("shrink", *model, "--round-to", "0"): "round_to is 0\n  -> give a whole number of channels, at least 1",
        ("shrink", *model, "--round-to", "x"): "Invalid value for '--round-to': Input should be a valid int",
        ("shrink", *model, "--plan", "none.json"): "cannot read the plan none.json: No such file or directory\n",
        ("choose", *model, "--keep-ratio", "0"): "keep_ratio is 0.0\n  -> give the share of channels to keep",
        ("choose", *model, "--importance", "l3"): "unknown importance 'l3'\n  -> choose one of l1, l2",
        ("choose", *model, "--macs", "0.5", "--size", "1MB"): "2 budgets were given: macs, size_bytes\n  -> give one",
        ("choose", *model, "--params", "12ms"): "params is '12ms'\n  -> write it as '0.5', '50%', '3500000' or",
        ("choose", *model, "--params", "30"): "params of at most 30 cannot be reached: with all that may go gone, ",
        ("choose", *model, "--protect", "conv9"): "protect names 'conv9', which Net has not\n  -> did you mean conv",
        ("choose", *model, "--min-keep", "few"): "--min-keep is 'few'\n  -> give a whole number of channels, or",
        (
            "choose",
            *model,
            "--importance",
            "taylor",
        ): "importance 'taylor' looks at data, and none was given",
        ("choose", *model, "--importance", "taylor", "--data", "cli_zoo:nothing"): "the data is empty\n  -> pass at",
        ("choose", *model, "--importance", "taylor", "--data", "cli_zoo:batches"): "there is no loss: none was given",
        (
            "choose",
            *model,
            "--importance",
            "wanda",
            "--data",
            "cli_zoo:wrong",
        ): "Net fails on item 0 of the data (",
        ("align", *model, "--agreement", "all"): "unknown agreement 'all'\n  -> choose one of any, average",
        ("align", *model, "--round-to", "0"): "round_to is 0\n  -> give a whole number of channels, at least 1",
        ("align", *model): "no channel is zeroed in Net: there are no masks to align\n  -> mask it first",
        ("export", *model, "--to", "model.tflite"): "",
        ("export", *model, "--to", "a.pt", "--to", "a.pt"): "'a.pt' is named 2 times\n  -> name each file once",
        ("export", *model, "--to", "no/a.pt"): "the directory 'no' does not exist\n  -> create it first",
        ("export", *model): "Missing option '--to'",
        ("shrunk",): "No such command 'shrunk'",
        ("shrink", *model, "--prune"): "No such option: --prune",
    }
    for words, told in cases.items():
        said = refused(surgery, *words)
        assert said.startswith(told), said
        assert "\n  -> " in said


def test_what_exists_is_found_before_the_work(surgery: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert surgery("shrink", "cli_zoo:masked", *IMAGE, "-o", "slim", "--no-prove").code == 0
    assert surgery("shrink", "cli_zoo:masked", *IMAGE, "-o", "slim", "--no-prove", "--overwrite").code == 0
    Path("mine").mkdir()
    Path("mine/thesis.tex").touch()
    Path("plan.json").touch()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model was opened first")

    for command in (benching, choosing, exporting, shrinking):
        monkeypatch.setattr(command, "opened", never)
    model = ("cli_zoo:masked", *IMAGE)
    said = refused(surgery, "shrink", *model, "-o", "slim")
    assert said == "'slim' exists already\n  -> pass --overwrite, or choose another path"
    said = refused(surgery, "shrink", *model, "-o", "mine", "--overwrite")
    assert said.startswith("'mine' was not written by surgery: it has no surgery.json of ours")
    said = refused(surgery, "shrink", *model, "-o", "no/slim")
    assert said == f"the directory {str(surgery.place / 'no')!r} does not exist\n  -> create it first"
    for words in (("choose", *model), ("align", *model), ("bench", f"a={model[0]}", *IMAGE)):
        said = refused(surgery, *words, "-o", "plan.json")
        assert said == "'plan.json' exists already\n  -> pass --overwrite, or choose another path"
        assert refused(surgery, *words, "-o", "mine") == "'mine' is a directory\n  -> give the path of a file"


def test_a_damaged_saved_directory(surgery: CommandLine) -> None:
    assert surgery("shrink", "cli_zoo:masked", *IMAGE, "-o", "slim", "--no-prove").code == 0
    weights = Path("slim/model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = refused(surgery, "explain", "slim", *IMAGE, "--factory", "cli_zoo:dense")
    assert said.startswith("'slim/model.safetensors' (")
    assert "is not the file that was saved" in said
    weights.write_bytes(whole)
    said = refused(surgery, "explain", "slim", *IMAGE, "--factory", "cli_zoo:Branches")
    assert said.startswith("slim does not fit the model: the model has no conv1.weight")


def test_internal_errors(surgery: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("explain", "cli_zoo:Fault", "--input", "2x4")
    ran = surgery(*words)
    assert (ran.code, ran.out) == (70, "")
    assert re.fullmatch(
        r"error: internal error: RuntimeError: no such thing \(cli_zoo.py:\d+\)\n"
        r"  -> run it again with --traceback, and report the traceback to the project, with surgery \S+ and the model "
        r"that shows it",
        ran.error,
    )
    assert "Traceback" not in ran.err
    ran = surgery(*words, "--traceback", "--json")
    assert "Traceback (most recent call last)" in ran.err
    assert "  -> report the traceback" in ran.error
    assert ran.data["error"]["exit_code"] == 70
    monkeypatch.setenv("SURGERY_TRACEBACK", "1")
    assert "Traceback (most recent call last)" in surgery(*words).err
    assert "Traceback (most recent call last)" in surgery("explain", "cli_zoo:nan", *IMAGE).err
    monkeypatch.setenv("SURGERY_TRACEBACK", "0")
    assert "Traceback" not in surgery(*words).err


def test_interrupted(surgery: CommandLine) -> None:
    ran = surgery("explain", "cli_zoo:interrupted", *IMAGE)
    assert (ran.code, ran.out, ran.error) == (130, "", "error: interrupted")


def test_help_and_version(surgery: CommandLine) -> None:
    ran = surgery("--help")
    assert ran.code == 0
    for command in ("shrink", "choose", "prune", "align", "explain", "export", "bench", "verify", "demo"):
        assert f"\n  {command} " in ran.out
        assert surgery(command, "--help").code == 0
    assert re.fullmatch(r"surgery \d+\.\d+\.\d+\n", surgery("--version").out)


CHILDREN = """
import os, resource, signal, sys
import torch, torch.export
from surgery.checkpoints import saving
from surgery.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell starts without
WORDS = ["shrink", "cli_zoo:masked", "--input", "2x3x9x9", "-o", "slim", "--overwrite", "--no-prove"]

def half(number):
    def save_file(tensors, path, metadata):
        path.write_bytes(b"half")
        signal.raise_signal(number)  # in this thread, before it goes on
        raise AssertionError("it goes on")
    return save_file

for ending in ("full", "interrupt", "kill"):
    if (child := os.fork()) == 0:
        error = os.open(ending + ".err", os.O_CREAT | os.O_WRONLY)
        os.dup2(error, 2)
        if ending == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        else:
            saving.save_file = half(signal.SIGKILL if ending == "kill" else signal.SIGINT)
        code = main(WORDS)
        sys.stdout.flush()
        os._exit(code)
    print(ending, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sorted(os.listdir("slim")), flush=True)
    print([name for name in os.listdir() if name.startswith(".slim") and ending != "kill"], flush=True)
"""


def test_a_command_that_ends_early_loses_nothing(surgery: CommandLine) -> None:
    assert surgery("shrink", "cli_zoo:dense", *IMAGE, "-o", "slim", "--no-prove").code == 0
    before = {path.name: path.read_bytes() for path in Path("slim").iterdir()}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILDREN],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    files = "['model.safetensors', 'surgery.json']"
    told = [f"full 2 {files}", f"interrupt 130 {files}", f"kill -9 {files}"]
    assert run.stdout.splitlines() == [line for one in told for line in (one, "[]")]
    assert Path("interrupt.err").read_text().endswith("error: interrupted\n")
    full = Path("full.err").read_text()
    assert "error: cannot write model.safetensors: " in full
    assert full.endswith("File too large (os error 27)\n  -> make room, or choose another place\n")
    assert {path.name: path.read_bytes() for path in Path("slim").iterdir()} == before


def test_the_module_is_the_command(surgery: CommandLine) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "surgery", "explain", "none"],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "error: Missing option '--input'.\n  -> see surgery explain --help\n"
