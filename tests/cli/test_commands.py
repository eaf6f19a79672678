from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import save_file

from surgery import demo
from surgery.checkpoints import describe
from surgery.plans import Plan
from surgery.proof import prove
from tests.cli.conftest import IMAGE, CommandLine


def test_shrink_then_verify_export_and_explain_what_was_saved(surgery: CommandLine) -> None:
    ran = surgery("shrink", "cli_zoo:masked", *IMAGE, "-o", "slim")
    assert ran.code == 0
    assert ran.out.startswith("parameters 526 -> 341 ")
    assert "proof passed" in ran.out
    assert ran.out.endswith(
        'saved in slim: surgery.load("slim", model) loads it, on the model as it was before the cut\n'
    )
    assert "hello" not in ran.out
    assert "hello from the factory" in ran.err

    saved = describe("slim")
    assert saved.manifest.source == "cli_zoo:masked"
    assert saved.plan.removed_channels == 3

    ran = surgery("verify", "cli_zoo:masked", "slim", *IMAGE, "--factory", "cli_zoo:dense", "--json")
    assert ran.code == 0
    assert ran.data["command"] == "verify"
    assert ran.data["proof"]["passed"] is True
    assert "slim: parameters 526 -> 341, " in ran.err

    ran = surgery(
        "export", "slim", *IMAGE, "--to", "slim.pt", "--to", "slim.onnx", "--factory", "cli_zoo:dense", "--json"
    )
    assert ran.code == 0
    assert [(one["path"], one["parity"]["passed"]) for one in ran.data["exports"]] == [
        ("slim.pt", True),
        ("slim.onnx", True),
    ]
    assert {"slim.pt", "slim.onnx"} <= {path.name for path in surgery.place.iterdir()}
    ran = surgery("export", "slim", *IMAGE, "--to", "slim.pt", "--factory", "cli_zoo:dense")
    assert (ran.code, ran.out) == (2, "")
    assert ran.error == "error: 'slim.pt' exists already\n  -> pass --overwrite, or choose another path"

    ran = surgery("explain", "slim", *IMAGE, "--factory", "cli_zoo:dense")
    assert ran.code == 0
    assert "conv1.weight: 6 channels" in ran.out

    ran = surgery("shrink", "slim", *IMAGE, "--factory", "cli_zoo:dense", "--json")
    assert (ran.code, ran.data["removed_channels"]) == (0, 0)


def test_shrink_as_json(surgery: CommandLine) -> None:
    ran = surgery("shrink", "cli_zoo:masked", *IMAGE, "--json", "--no-prove", "--round-to", "4")
    assert ran.code == 0
    assert ran.out.count("\n") == 1
    assert ran.data["command"] == "shrink"
    assert (ran.data["params_before"], ran.data["proof"], ran.data["output"]) == (526, None, None)
    assert [(g["name"], g["channels"], g["removed"]) for g in ran.data["groups"][:1]] == [("conv1.weight", 8, 0)]


def test_nothing_to_remove_is_done(surgery: CommandLine) -> None:
    ran = surgery("shrink", "cli_zoo:dense", *IMAGE)
    assert ran.code == 0
    assert "nothing was removed: no channel is dead" in ran.out


def test_a_layer_without_a_live_channel_keeps_one(surgery: CommandLine) -> None:
    ran = surgery("shrink", "cli_zoo:silent", *IMAGE)
    assert ran.code == 0
    assert "conv1.weight: 8 -> 1" in ran.out
    assert "proof passed" in ran.out
    ran = surgery("explain", "cli_zoo:silent", *IMAGE, "conv1.weight", "0", "--json")
    assert ran.code == 0
    assert ran.data["explanation"].startswith("conv1.weight[0] (dim 0) ")


def test_choose_and_shrink_by_the_plan(surgery: CommandLine) -> None:
    ran = surgery("choose", "cli_zoo:dense", *IMAGE, "--keep-ratio", "0.5", "-o", "plan.json")
    assert ran.code == 0
    assert ran.out.endswith("saved as plan.json\n")
    plan = Plan.read("plan.json")
    assert plan.removed_channels > 0
    ran = surgery("choose", "cli_zoo:dense", *IMAGE, "-o", "plan.json", "--json")
    assert ran.code == 2
    error = ran.data["error"]
    assert (error["kind"], error["exit_code"]) == ("InputError", 2)
    assert error["fact"] == "'plan.json' exists already"
    ran = surgery("choose", "cli_zoo:dense", *IMAGE, "--json")
    assert Plan.from_json(msgspec.json.encode(ran.data["plan"])) == plan
    ran = surgery("shrink", "cli_zoo:dense", *IMAGE, "--plan", "plan.json", "--json")
    assert ran.code == 0
    assert ran.data["removed_channels"] == plan.removed_channels
    assert ran.data["proof"]["passed"] is True


def test_choose_within_a_budget_by_data(surgery: CommandLine) -> None:
    words = ("--importance", "taylor", "--data", "cli_zoo:batches", "--loss", "cli_zoo:loss", "--global")
    given = ("choose", "cli_zoo:dense", *IMAGE, *words, "--params", "60%", "--protect", "head", "-o", "plan.json")
    assert surgery(*given).code == 0
    plan = Plan.read("plan.json")
    assert len(plan.axis("conv1.weight").keep) < 8
    assert len(plan.axis("conv2.weight").keep) == 4
    ran = surgery("choose", "cli_zoo:dense", *IMAGE, *words, "--macs", "60%", "--min-keep", "0.5", "--json")
    removed = {group["name"]: group["removed"] for group in ran.data["groups"]}
    assert removed["conv1.weight"] <= 4
    assert removed["conv2.weight"] <= 2
    assert sum(removed.values()) > 0
    for importance in ("cli_zoo:by_sum", "torch_pruning.pruner.importance:LAMPImportance"):
        ran = surgery("choose", "cli_zoo:dense", *IMAGE, "--importance", importance, "--size", "1KiB")
        assert ran.code == 0, ran.err
        assert "channels go" in ran.out


def test_masks_from_a_file(surgery: CommandLine) -> None:
    save_file({"conv1": torch.tensor([1, 0, 1, 1, 0, 1, 1, 0])}, "masks.safetensors")
    ran = surgery("shrink", "cli_zoo:dense", *IMAGE, "--keep-masks", "masks.safetensors", "--json")
    assert ran.code == 0, ran.err
    assert ran.data["removed_channels"] >= 2


def test_explain(surgery: CommandLine) -> None:
    ran = surgery("explain", "cli_zoo:masked", *IMAGE, "--json")
    assert ran.code == 0
    assert set(ran.data) == {
        "command", "model", "groups", "pinned", "unruled_ops", "dead", "stranded", "removable_share", "unused",
        "aligning",
    }  # fmt: skip
    assert ran.data["groups"][0]["name"] == "conv1.weight"
    ran = surgery("explain", "cli_zoo:masked", *IMAGE, "conv2.weight", "2")
    assert (ran.code, ran.out) == (
        0,
        "conv2.weight[2] (dim 0) is removed: dead: everything that reads it sees a zero column or a constant\n",
    )
    ran = surgery("explain", "cli_zoo:masked", *IMAGE, "conv2.weight")
    assert ran.error == "error: conv2.weight stands without a position\n  -> give PARAMETER and INDEX, or neither"
    ran = surgery("explain", "cli_zoo:masked", *IMAGE, "conv2.weight", "4")
    assert ran.error == "error: conv2.weight has no position 4 on dim 0\n  -> positions run from 0 to 3"
    ran = surgery("explain", "cli_zoo:masked", *IMAGE, "conv3.weight", "4")
    assert ran.error.startswith("error: the plan has no dim 0 of 'conv3.weight'\n  -> did you mean ")


def test_verify_says_no(surgery: CommandLine) -> None:
    ran = surgery("verify", "cli_zoo:masked", "cli_zoo:other", *IMAGE)
    assert ran.code == 1
    assert ran.out.startswith("proof FAILED")
    ran = surgery("verify", "cli_zoo:masked", "cli_zoo:other", *IMAGE, "--json")
    assert (ran.code, ran.data["proof"]["passed"]) == (1, False)


def test_a_failed_check_is_exit_code_1(surgery: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove, "BOUND_FLOAT64", -1.0)
    ran = surgery("shrink", "cli_zoo:dense", *IMAGE, "-o", "slim", "--json")
    assert ran.code == 1
    assert ran.data["error"]["kind"] == "CheckError"
    assert not (surgery.place / "slim").exists()


def test_library_models_are_rebuilt(surgery: CommandLine) -> None:
    image = ("--input", "1x3x32x32")
    ran = surgery("shrink", "torchvision:squeezenet1_1", *image, "-o", "slim", "--no-prove", "--json")
    assert ran.code == 0, ran.err
    ran = surgery("verify", "torchvision:squeezenet1_1", "slim", *image, "--json")
    assert ran.code == 0, ran.err
    assert ran.data["proof"]["max_abs_error"] == 0


def test_code_is_not_run_because_a_file_names_it(surgery: CommandLine) -> None:
    assert surgery("shrink", "cli_zoo:masked", *IMAGE, "-o", "slim", "--no-prove").code == 0
    ran = surgery("verify", "slim", "slim", *IMAGE)
    assert ran.code == 2
    assert ran.error == (
        "error: 'slim' was made from 'cli_zoo:masked', whose code is not run unasked\n"
        "  -> name it: --factory cli_zoo:masked"
    )
    ran = surgery("verify", "slim", "slim", *IMAGE, "--factory", "slim")
    assert ran.error == "error: --factory is 'slim', the saved directory itself\n  -> name the model before the cut"


def test_a_directory_that_was_moved_aside_is_found(surgery: CommandLine) -> None:
    assert surgery("shrink", "cli_zoo:masked", *IMAGE, "-o", "slim", "--no-prove").code == 0
    Path("slim").rename(".slim.previous")  # where a kill may leave it on systems that cannot swap directories
    assert surgery("explain", "slim", *IMAGE, "--factory", "cli_zoo:dense").code == 0


def test_demo(surgery: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def story(**given: object) -> int:
        asked.append(given)
        return 1

    monkeypatch.setattr(demo, "main", story)
    assert surgery("demo", "--quick", "-o", "place", "--report", "page.html", "--json").code == 1
    assert asked == [
        {
            "quick": True,
            "directory": Path("place"),
            "report": Path("page.html"),
            "overwrite": False,
            "as_json": True,
        }
    ]
