"""`surgery export` of several forms, and `surgery verify` of exported files."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import IMAGE, CommandLine

THREE = ("--to", "a.onnx", "--to", "b.pt", "--to", "c.pt2")


def test_one_command_writes_several_forms_as_a_table(surgery: CommandLine) -> None:
    ran = surgery("export", "cli_zoo:dense", *IMAGE, *THREE)
    assert ran.code == 0, ran.err
    head, _, *rows = ran.out.splitlines()
    assert head.split() == ["file", "form", "size", "load", "parity"]
    assert [row.split()[:2] for row in rows[:3]] == [["a.onnx", "onnx,"], ["b.pt", "torchscript"], ["c.pt2", "pt2"]]
    assert all(" kB " in row and " ms " in row and "agrees with the model: " in row for row in rows[:3])
    assert "note: b.pt: TorchScript is deprecated upstream, but still loads" in rows
    ran = surgery("export", "cli_zoo:dense", *IMAGE, *THREE, "--overwrite", "--json")
    assert ran.data["failed"] == []
    assert [one["format"] for one in ran.data["exports"]] == ["onnx", "torchscript", "pt2"]
    assert all(one["load_ms"] > 0 and one["parity"]["batch_sizes"] == [1, 2, 3, 5] for one in ran.data["exports"])


def test_a_form_that_cannot_be_made_does_not_stop_the_others(surgery: CommandLine) -> None:
    ran = surgery("export", "cli_zoo:Branches", "--input", "2x4", *THREE, "--json")
    assert ran.code == 1  # the trace disagrees, which weighs more than what cannot be made
    assert [(one["path"], one["exit_code"]) for one in ran.data["failed"]] == [("a.onnx", 2), ("b.pt", 1), ("c.pt2", 2)]
    assert "torch.export cannot capture Branches: " in ran.data["failed"][0]["fact"]
    assert "the exported file disagrees with the model: " in ran.data["failed"][1]["fact"]
    assert not [path for path in surgery.place.iterdir() if path.suffix in {".onnx", ".pt", ".pt2"}]


def test_what_failed_stands_in_the_table_with_its_reason(surgery: CommandLine) -> None:
    ran = surgery("export", "cli_zoo:dense", *IMAGE, "--to", "a.onnx", "--to", "b.pt", "--dynamic", "1:channels")
    assert ran.code == 2
    assert "\n b.pt " in ran.out
    assert "\n a.onnx " in ran.out
    assert " not written" in ran.out
    assert "failed: a.onnx: torch.export cannot capture Net: Constraints violated" in ran.out
    assert "\n  -> check --dynamic, or leave it out" in ran.out
    assert "note: b.pt: no other size of dim 1 of the input 2x3x9x9 could be compared" in ran.out
    assert (Path("a.onnx").exists(), Path("b.pt").exists()) == (False, True)


def test_dims_that_are_free(surgery: CommandLine) -> None:
    shapes = "0:batch,2:height,3:width"
    for word in (shapes, f"x={shapes}"):
        ran = surgery("export", "cli_zoo:dense", *IMAGE, "--to", "a.onnx", "--dynamic", word, "--overwrite", "--json")
        assert ran.code == 0, ran.err
        assert ran.data["exports"][0]["parity"]["n_inputs"] == 9
    dims = onnx.load("a.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, "height", "width"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ("--dynamic", "0:batch", "--static"),
            "--static and --dynamic say opposite things",
        ),
        (("--dynamic", "batch"), "--dynamic 'batch' cannot be read at 'batch'\n  -> write it as in x=0:batch,2:height"),
        (("--dynamic", "x=0:batch,1"), "--dynamic 'x=0:batch,1' cannot be read at '1'"),
        (("--dynamic", "-1:width"), "--dynamic '-1:width' cannot be read at '-1:width'"),
        (("--dynamic", "x=0:b", "--dynamic", "x=1:c"), "--dynamic names 'x' twice"),
        (("--dynamic", "x=0:b", "--dynamic", "1:c"), "--dynamic has a name for some inputs only"),
        (("--dynamic", "y=0:b"), "--dynamic names 'y', which is no tensor input"),
        (("--dynamic", "7:b"), "--dynamic names dim 7 of the input x, which has 4 dims"),
    ],
)
def test_dims_that_make_no_sense(words: tuple[str, ...], error: str, surgery: CommandLine) -> None:
    ran = surgery("export", "cli_zoo:dense", *IMAGE, "--to", "a.pt", *words)
    assert ran.code == 2
    assert ran.error.startswith(f"error: {error}")
    assert not Path("a.pt").exists()


def test_verify_takes_exported_files(surgery: CommandLine) -> None:
    assert surgery("export", "cli_zoo:masked", *IMAGE, *THREE).code == 0
    ran = surgery("shrink", "cli_zoo:masked", *IMAGE, "-o", "slim")
    ran = surgery("verify", "slim", "a.onnx", *IMAGE, "--factory", "cli_zoo:dense")
    assert ran.code == 0, ran.err
    assert "proof passed" in ran.out
    assert "compared as Net and 'a.onnx' (onnx)" in ran.out
    ran = surgery("verify", "a.onnx", "c.pt2", *IMAGE)
    assert (ran.code, ran.out) == (2, "")
    assert ran.error == (
        "error: 'c.pt2' is a torch.export program: opening it can run any code\n"
        "  -> pass --trust if you know where it comes from"
    )
    ran = surgery("verify", "a.onnx", "c.pt2", *IMAGE, "--trust", "--json")
    assert ran.code == 0
    assert ran.data["proof"]["passed"] is True
    ran = surgery("verify", "cli_zoo:other", "b.pt", *IMAGE, "--trust")
    assert ran.code == 1
    assert "proof FAILED" in ran.out
    ran = surgery("verify", "a.onnx", "d.onnx", *IMAGE)
    assert ran.error == "error: there is no file 'd.onnx'\n  -> check the path"
    ran = surgery("verify", "a.onnx", "a.onnx", *IMAGE, "--checkpoint", "w.pt")
    assert ran.error.startswith("error: 'a.onnx' is an exported file, which has its own weights")
    Path("b.pt").write_bytes(Path("b.pt").read_bytes()[:500])
    ran = surgery("verify", "a.onnx", "b.pt", *IMAGE, "--trust", "--json")
    assert ran.code == 2
    assert "'b.pt' (500 bytes) is cut short or damaged" in ran.data["error"]["fact"]
