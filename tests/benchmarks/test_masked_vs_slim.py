"""The headline benchmark on tiny nets: what is masked, what is timed, what is kept, what the table says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import surgery
from benchmarks import headline_nets, masked_vs_slim, masked_vs_slim_table
from benchmarks.headline_nets import NETS, Net, Sizes, every_group, image, inside_blocks, text
from benchmarks.prepared import prepare_
from surgery.errors import CheckError
from surgery.inputs import Inputs
from surgery.latency.machine import this_machine
from surgery.latency.results import Benchmark, Cell, Row, Settings
from tests.nets import NormPair, lively

SIZES = Sizes(32, 8)


def small_resnet() -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    torch.manual_seed(0)
    return prepare_(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5))


def timed(masked: float, slim: float, failure: str = "", device: str = "cpu") -> dict[str, Any]:
    settings = Settings(("eager",), (1,), (1,), (device,), 50, 0.0, 1.0, 0)
    cpu = tuple([masked] * 50), tuple([slim] * 50)
    rows = (Row("masked", cpu[0], cpu[0]), Row("slim", failure=failure) if failure else Row("slim", cpu[1], cpu[1]))
    refused = tuple(Row(name, failure="on the CPU only") for name in ("masked", "slim"))
    cells = Cell("eager", 1, device, 1, rows, True), Cell("onnxruntime", 1, device, 1, refused)
    facts: dict[str, Any] = json.loads(Benchmark(this_machine(), settings, cells, 0.0, 0.0).to_json())
    return facts


def row(**change: Any) -> dict[str, Any]:
    made = {"round_to": 8, "params": [4_000_000, 1_000_000], "macs": [300, 100], "relative_error_float64": 1e-14}
    return {**made, "benchmark": timed(3.0, 1.0), **change}


def test_ten_nets_are_called_as_they_are_built() -> None:
    assert len(NETS) >= 8
    for net in NETS.values():
        tensors = net.called(SIZES).tensors()
        assert [tuple(tensor.shape) for tensor in tensors] in ([(1, 3, 32, 32)], [(1, 8), (1, 8)])
    with torch.no_grad():
        assert NETS["ViT-S/16"].called(SIZES).call(NETS["ViT-S/16"].dense(SIZES)).shape == (1, 1000)
    assert text(SIZES).kwargs["attention_mask"].all()


def test_inside_its_blocks_the_stream_stays_whole() -> None:
    dense, example = small_resnet(), image(SIZES)
    masked = inside_blocks(dense, example, 8)
    slim = surgery.shrink(masked, example.args, round_to=8).model
    for path in ("layer1.0", "layer4.0"):
        before, after = (net.get_submodule(path) for net in (dense, slim))
        assert after.conv1.out_channels == before.conv1.out_channels // 2
        assert after.conv1.in_channels == before.conv1.in_channels
        assert after.conv2.out_channels == before.conv2.out_channels
    halved = surgery.shrink(every_group(dense, example, 8), example.args, round_to=8).model
    assert halved.layer4[0].conv2.out_channels == 256


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["masked_vs_slim", *arguments])
    return masked_vs_slim.main()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny nets in the place of the real ones; the second does not take its input."""
    one = Net("one", lambda sizes: lively(NormPair()), image)
    other = Net("other", lambda sizes: lively(NormPair()), lambda sizes: Inputs.of(torch.randn(1, 4, 9, 9)))
    for module in (masked_vs_slim, headline_nets):
        monkeypatch.setattr(module, "NETS", {"one": one, "other": other})


@pytest.mark.usefixtures("tiny")
def test_the_script_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results.json"
    clock = ("--size", "16", "--batch", "1", "--runtimes", "eager", "--pairs", "2", "--seconds", "0")
    arguments = (*clock, "--max-seconds", "0.1", "--round-to", "1", "--output", str(output))
    assert run(monkeypatch, *arguments) == 1
    assert "other was not timed: " in capsys.readouterr().err
    facts = json.loads(output.read_text())
    assert list(facts["nets"]) == ["one"]
    one = facts["nets"]["one"]
    assert one["shapes"] == [[1, 3, 16, 16]]
    assert one["params"][1] < one["params"][0]
    assert one["macs"][1] < one["macs"][0]
    assert one["relative_error_float64"] <= 1e-9
    assert Benchmark.from_json(json.dumps(one["benchmark"])).ratio("masked", "slim", runtime="eager").n >= 2
    assert "| one |" in masked_vs_slim_table.table(facts)

    monkeypatch.setattr(surgery, "benchmark", lambda *args, **kwargs: pytest.fail("it was timed again"))
    assert run(monkeypatch, "--nets", "one", "--missing", *arguments) == 0
    assert json.loads(output.read_text()) == facts


@pytest.mark.usefixtures("tiny")
def test_an_interrupt_keeps_the_nets_that_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "results.json"

    def until(net: Net, *_: Any, **__: Any) -> dict[str, Any]:
        if net.name == "other":
            raise KeyboardInterrupt
        return row()

    monkeypatch.setattr(masked_vs_slim, "timed", until)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, "--output", str(output))
    assert list(json.loads(output.read_text())["nets"]) == ["one"]


def test_a_slim_net_that_is_not_proven_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = surgery.shrink

    def unproven(*args: Any, **options: Any) -> surgery.Result:
        return plain(*args, **options, prove=False)

    monkeypatch.setattr(surgery, "shrink", unproven)
    with pytest.raises(CheckError, match="the slim one is not proven"):
        masked_vs_slim.timed(Net("one", lambda sizes: lively(NormPair()), image), SIZES, 1)


def test_the_table_reads_results_of_one_net_and_of_many() -> None:
    old = masked_vs_slim_table.table({"net": "torchvision resnet18", **row()})
    assert "| ResNet-18 | 4.0 M to 1.0 M | 3.00 times fewer | 3.00 |" in old
    assert "CUDA was not measured" in old
    facts = {"a": row(), "b": row(benchmark=timed(1.0, 1.0)), "c": row(benchmark=timed(1.0, 1.0, "no kernel"))}
    new = masked_vs_slim_table.table({"nets": facts})
    assert "| net | parameters | MACs | eager, batch 1 |" in new
    assert "| a | 4.0 M to 1.0 M | 3.00 times fewer | 3.00 |" in new
    assert "| 1.00 (no difference) |" in new
    assert "| not timed |" in new
    assert "onnxruntime" not in new.split("Measured on")[0]  # nobody was timed there
    graphics = masked_vs_slim_table.table({"nets": {"a": row(benchmark=timed(3.0, 1.0, device="cuda"))}})
    assert "| eager, cuda, batch 1 |" in graphics
    assert "CUDA was not measured" not in graphics


def test_an_unknown_net_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--nets", "ResNet-19")
