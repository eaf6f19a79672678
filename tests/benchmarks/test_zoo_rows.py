"""How the rows of the zoo are made, on tiny nets: preparations, the judge, torch-pruning, processes, tables, script."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from benchmarks import processes, zoo, zoo_peer, zoo_row, zoo_table
from benchmarks.architecture import Architecture, Floats, Mask, Tokens
from benchmarks.families import CLASSES
from benchmarks.judging import answers, distance, faults, tensors_of, widened
from benchmarks.own_nets import UNet
from benchmarks.preparations import BATCH, PREPARATIONS, by_columns, by_layers, layers_of
from surgery.inputs import Inputs


def images(build: Any, name: str = "Tiny") -> Architecture:
    others = ({"B": 1}, {"B": 3, "S": 20})
    return Architecture(name, "here", build, {"": Floats(("B", 3, "S", "S"))}, {"B": 2, "S": 16}, others)


def chain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU(), nn.Conv2d(32, 10, 1))


def broken() -> nn.Module:
    raise RuntimeError("no such net\nand more")


class Reader(nn.Module):
    """Tokens in, a dict out, with a cast to float32 on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 6)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        hidden = self.up(self.embed(ids)).float().relu().to(self.up.weight.dtype)
        return {"scores": self.down(hidden) * mask[..., None], "first": ids[:, 0]}


READER = Architecture(
    "Reader", "here", Reader, {"ids": Tokens(20, 0), "mask": Mask()}, {"B": 2, "T": 6}, ({"B": 1}, {"B": 3, "T": 9})
)


class TestPreparations:
    @pytest.fixture
    def unet(self) -> Architecture:
        return images(lambda: UNet((16, 24)))

    def test_a_lively_net_shows_errors(self) -> None:
        """No two gains alike, and every layer's output differs from input to input by 1."""
        case = images(lambda: nn.Sequential(nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 30, 3)))
        net = zoo_row.net_of(case)
        assert not [name for name, p in net.named_parameters() if bool((p == p.flatten()[0]).all())]
        fresh = torch.randn(8, 3, 16, 16)
        assert isinstance(net, nn.Sequential)
        for depth in (1, 4):
            out = net[:depth](fresh).detach()
            assert float((out - out.mean(0)).std()) == pytest.approx(1, abs=0.1)
        norm = net[1]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert float(norm.running_mean.std()) > 0.1

    def test_weights_without_a_layer_count_too(self) -> None:
        class Experts(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.stacked = nn.Parameter(torch.randn(4, 6, 8) * 0.01)

            def forward(self, x: Tensor) -> Tensor:
                return torch.einsum("bcij,ejk->becik", x[:, :, :, :6], self.stacked)

        case = images(Experts)
        assert float(zoo_row.net_of(case).get_parameter("stacked").detach().std()) == pytest.approx(0.1)

    def test_a_layer_that_a_library_draws_at_almost_nothing_lets_its_input_through(self) -> None:
        def faint() -> nn.Module:
            conv = nn.Conv2d(3, 20, 3)
            nn.init.normal_(conv.weight, std=1e-10)
            return conv

        out = zoo_row.net_of(images(faint))(torch.randn(8, 3, 16, 16)).detach()
        assert float((out - out.mean(0)).std()) == pytest.approx(1, abs=0.1)

    @pytest.mark.parametrize("rows", [BATCH + 1, BATCH])
    def test_a_layer_that_sees_no_batch_is_left_alone(self, rows: int) -> None:
        class Positions(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table, self.out = nn.Linear(2, 5), nn.Linear(16, 5)

            def forward(self, x: Tensor) -> Tensor:
                return self.out(x) + self.table(torch.ones(rows, 2)).mean(0)

        case = images(Positions)
        weight = case.make().get_parameter("table.weight")
        torch.testing.assert_close(zoo_row.net_of(case).get_parameter("table.weight"), weight)

    def test_layer_by_layer_takes_half_of_the_filters_of_every_layer_but_the_last(self, unet: Architecture) -> None:
        masked = by_layers(zoo_row.net_of(unet), unet)
        for path, layer in layers_of(masked).items():
            filters = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            width = layer.weight.shape[filters]
            assert len(zero_along(layer.weight, filters)) == (0 if width == CLASSES else width // 2), path

    def test_columns_are_zero_where_a_channel_is_read_and_its_writer_is_not(self, unet: Architecture) -> None:
        masked = by_columns(zoo_row.net_of(unet), unet)
        for path, layer in layers_of(masked).items():
            transposed = isinstance(layer, nn.ConvTranspose2d)
            width = layer.weight.shape[0 if transposed else 1]
            half = 0 if width == 3 else width // 2
            gone = len(zero_along(layer.weight, 0 if transposed else 1))
            assert half - 1 <= gone <= half, path  # one may be a carrier
            assert not zero_along(layer.weight, 1 if transposed else 0), path


def zero_along(weight: Tensor, dim: int) -> list[int]:
    return [n for n in range(weight.shape[dim]) if not bool(weight.select(dim, n).any())]


def facts_of(architecture: Architecture) -> dict[str, Any]:
    return {key: value for facts in zoo_row.examined(architecture) for key, value in facts.items()}


class TestRow:
    def test_a_chain_of_convolutions(self) -> None:
        row = facts_of(images(chain))
        assert row["captured"]
        assert row["exact"]
        assert row["params"] == [2282, 890]
        assert row["macs"][1] < row["macs"][0]
        assert row["kind"] == "class"
        assert row["unruled_ops"] == {}
        assert row["exports"]["onnx"]["batches"] == [1, 2, 3, 5]
        assert row["exports"]["torchscript"]["error"] <= row["exports"]["torchscript"]["bound"]
        assert set(row["seconds"]) == {"build", "analyze", "choose", "shrink and judge", "export"}
        assert zoo_table.verdict(row) == "exact"

    def test_without_exports_there_are_none(self) -> None:
        row = {key: value for facts in zoo_row.PARTS["quick"](READER) for key, value in facts.items()}
        assert "exports" not in row
        assert "export" not in row["seconds"]
        assert zoo_table.verdict(row) == "exact"

    def test_a_net_of_tokens_that_casts_and_returns_a_dict(self) -> None:
        row = facts_of(READER)
        assert row["exact"]
        one_more = 160 / 8 + 192 * ((1 / 2 + 1 / 8) * (1 / 2 + 1 / 24) - 1 / 4) + (24 + 144) / 24
        assert row["rounding"] == pytest.approx(one_more / 526), "one of 8 and one of 24 channels, halves of the others"
        assert row["float64_error"] < 1e-12, "the cast to float32 hides errors"
        assert row["params"] == [20 * 8 + 8 * 24 + 24 + 24 * 6 + 6, 20 * 4 + 4 * 12 + 12 + 12 * 6 + 6]
        assert zoo_table.verdict(row) == "exact"

    def test_float64_means_float64_throughout(self) -> None:
        net, inputs = widened(Reader()), READER.inputs()
        assert isinstance(net, Reader)
        hidden = net.up(net.embed(inputs.kwargs["ids"])).relu()
        expected = net.down(hidden) * inputs.kwargs["mask"][..., None]
        scores, _ = answers(net, inputs, torch.float64)
        torch.testing.assert_close(scores, expected.detach(), rtol=1e-13, atol=1e-13)

    def test_experts_in_one_product_are_judged_in_float64(self) -> None:
        class Experts(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.randn(3, 16, 8))

            def forward(self, x: Tensor) -> Tensor:
                return torch._grouped_mm(x, self.weight, offs=torch.tensor([2, 2, 5], dtype=torch.int32))

        net, inputs = Experts(), Inputs.of(torch.randn(5, 16))
        (wide,), (narrow,) = (answers(n, inputs, n.weight.dtype) for n in (widened(net), net))
        torch.testing.assert_close(wide.float(), narrow.float())
        assert not torch.equal(wide, narrow)

    def test_a_cache_is_not_compared(self) -> None:
        class DynamicCache:
            def __init__(self) -> None:
                self.keys = torch.zeros(2)

        assert len(tensors_of({"scores": torch.ones(3), "past": DynamicCache()})) == 1

    def test_a_failure_says_in_which_stage(self) -> None:
        row = facts_of(images(broken))
        assert (row["stage"], row["failed"]) == ("build", "RuntimeError: no such net")
        assert row["captured"] is False
        assert zoo_table.verdict(row) == "FAILED (build): RuntimeError: no such net"

    def test_a_failed_export_does_not_hide_the_rest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise ValueError("no file today")

        monkeypatch.setattr(surgery, "export", refuse)
        row = facts_of(images(chain))
        assert row["exact"]
        assert zoo_table.formats(row) == "onnx failed, torchscript failed"
        assert row["exports"]["onnx"]["failed"] == "ValueError: no file today"

    @pytest.mark.parametrize("architecture", [images(chain), READER], ids=["images", "tokens"])
    def test_the_judge_is_awake(self, architecture: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
        """A slim net that differs by a little in one bias is not let through."""
        masked = PREPARATIONS["plan"](zoo_row.net_of(architecture), architecture)
        example = architecture.inputs()
        result = surgery.shrink(masked, example.args, example.kwargs, prove=False)
        with torch.no_grad():
            [*result.model.parameters()][-1][0] += 1e-3
        monkeypatch.setattr(surgery, "shrink", lambda *args, **kwargs: result)
        assert zoo_row.shrunk(architecture, masked).fault.startswith("wrong: relative error ")

    def test_a_net_that_is_all_rounding_cannot_be_judged(self) -> None:
        class Cancelling(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.tensor(1e7))

            def forward(self, x: Tensor) -> Tensor:
                return (x + self.scale) - self.scale

        pair = Inputs.of(torch.randn(2, 3)), Inputs.of(torch.randn(2, 3))
        found = distance(Cancelling(), Cancelling(), widened(Cancelling()), [pair])
        assert found.noise > 1e-2
        assert faults(found) == "", "it agrees with itself, to the bit"
        apart = replace(found, float32=1e-4)
        assert faults(apart).startswith("nobody could tell: the masked net's own rounding is ")
        assert faults(replace(apart, float64=1e-8)).startswith("wrong: relative error 1.0e-08 in float64")

    def test_a_net_that_ignores_its_input_cannot_be_judged(self) -> None:
        net = zoo_row.net_of(images(chain))
        with torch.no_grad():
            [*net.parameters()][-2].zero_()
        pair = Inputs.of(torch.randn(2, 3, 16, 16)), Inputs.of(torch.randn(2, 3, 16, 16))
        assert faults(distance(net, net, widened(net), [pair])).startswith("nobody could tell")


class TestPeer:
    def test_what_it_can(self) -> None:
        facts = zoo_peer.peer_facts(images(torch_pruning_likes), torch_pruning_likes())
        assert facts["ended"]
        assert facts["runs"]
        assert facts["same_shapes"]
        assert facts["params"][1] < facts["params"][0]

    def test_what_it_cannot(self) -> None:
        class Literal(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.b(self.a(x).view(x.shape[0], 8, -1).mean(-1))

        facts = zoo_peer.peer_facts(images(Literal), Literal())
        assert not facts["runs"]
        assert "Error: " in facts["failed"]


def torch_pruning_likes() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


class TestProcesses:
    """`work` is `eval` here: names are programs."""

    @pytest.fixture(autouse=True)
    def _light(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "PRELOADED", ())

    def test_what_was_found_before_a_crash_is_kept(self) -> None:
        fine = "[{'a': 1}, {'b': 2}]"
        crash = "(fact or __import__('os')._exit(3) for fact in ({'a': 1}, {}, {'b': 2}))"
        hang = "(fact or __import__('time').sleep(60) for fact in ({'a': 1}, {}, {'b': 2}))"
        found = dict(processes.finished(eval, [fine, crash, hang], jobs=2, limit_s=5))
        assert found[fine] == {"a": 1, "b": 2}
        assert found[crash] == {"a": 1, "failed": "the process ended with exit code 3"}
        assert found[hang] == {"a": 1, "failed": "killed after 5 s"}


ROW = {
    "net": "library Net",
    "captured": True,
    "removable_share": 0.5,
    "rounding": 0.01,
    "unruled_ops": {"aten.odd.default": 2},
    "pinned": {"it is an output of the model": 9, "layer_norm averages over this axis": 5},
    "params": [1000, 760],
    "macs": [4000, 3000],
    "kind": "class",
    "exact": True,
    "float64_error": 1e-15,
    "float32_error": 2e-7,
    "exports": {"onnx": {"error": 1e-7}, "torchscript": {"refused": "it differs"}},
    "seconds": {"analyze": 1.2, "export": 3.3},
    "peer": {"ended": True, "runs": True, "same_shapes": True, "params": [1000, 400], "seconds": 0.7},
}


class TestTable:
    def test_what_is_left_of_the_removable_parameters(self) -> None:
        assert zoo_table.kept_share(ROW) == pytest.approx(0.52)
        assert zoo_table.is_halved(ROW), "0.52 is within 0.5 and one unit per group, 0.01 of all parameters"
        assert not zoo_table.is_halved(ROW | {"rounding": 0.009})

    def test_a_line(self) -> None:
        assert zoo_table.line("Net", ROW) == (
            "| Net | library Net | 1,000 to 760 | 50 % | 52 % | 75 % | 1e-15, 2e-07 | class | torchscript refused | 4 "
            "| exact | 40 % left, 0.7 s |"
        ).replace("| 4 \n", "| 4 ")
        assert "| pinned; layer_norm averages over this axis |" in zoo_table.line("Net", ROW | {"rounding": 0})
        hung = {"net": "x", "failed": "killed after 120 s", "peer": {"failed": "killed after 60 s"}}
        assert zoo_table.line("Net", hung) == (
            "| Net | x |  |  |  |  |  |  |  |  | FAILED (process): killed after 120 s | killed after 60 s |"
        )

    def test_the_summary_counts(self) -> None:
        wrong = ROW | {"exact": False, "failed": "wrong: relative error 1", "stage": "judge", "unruled_ops": {}}
        rows = {"a": ROW, "b": ROW | {"rounding": 0, "kind": "graph"}, "c": wrong, "d": {"net": "x", "failed": "no"}}
        text = zoo_table.summary({"peer": "other 1.0", "rows": rows})
        assert "| 4 architectures | surgery | other 1.0, without hints, tried on 3 of them |" in text
        assert "| slim net computes the masked one, exactly | 2 | not promised |" in text
        assert "| slim net computes something else | 1 | not judged |" in text
        assert "of all | 1 | 3 |" in text
        assert "survives | 2 | 3 |" in text
        assert "| every op has a rule | 1 | |" in text
        assert "| 0 of 3 exported | |" in text

    def test_preparations_are_beside_the_plan(self) -> None:
        ways = {"layers": ROW | {"params": [1000, 900], "float64_error": 3e-14}, "columns": ROW}
        text = zoo_table.preparations({"rows": {"a": ROW | {"preparations": ways}, "b": ROW}})
        assert text.splitlines()[2:] == ["| a | 24 %, 10 %, 24 % | 3e-14 |"]
        ways["columns"] = ROW | {"exact": False}
        assert "3e-14, WRONG |" in zoo_table.preparations({"rows": {"a": ROW | {"preparations": ways}}})

    def test_ops_without_a_rule_are_counted_by_net(self) -> None:
        assert "pin something: `aten.odd.default` (2)." in zoo_table.table({"rows": {"a": ROW, "b": ROW}})


class TestScript:
    def test_rows_are_merged_part_by_part(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked: list[tuple[str, list[str]]] = []
        found = {"ours": dict(ROW, peer={}), "peer": {"ended": False, "failed": "no"}, "preparations": {"layers": 1}}

        def finished(work: Any, names: list[str], *, jobs: int, limit_s: float) -> Any:
            asked.append((work.args[0], names))
            for name in names:
                yield name, found[work.args[0]]

        monkeypatch.setattr(zoo, "finished", finished)
        output = tmp_path / "zoo.json"

        def run(*arguments: str) -> dict[str, Any]:
            asked.clear()
            monkeypatch.setattr(sys, "argv", ["zoo", *arguments, "--output", str(output)])
            assert zoo.main() == 0
            rows: dict[str, Any] = json.loads(output.read_text())["rows"]
            return rows

        rows = run("UNet", "ResNet")
        assert asked == [("ours", ["UNet", "ResNet"]), ("peer", ["UNet", "ResNet"])]
        assert list(rows) == ["ResNet", "UNet"], "in the order of the list"
        assert rows["UNet"]["peer"] == {"ended": False, "failed": "no"}
        rows = run("UNet", "WaveNet", "Llama", "--missing", "--parts", "peer")
        assert asked == [("peer", ["WaveNet", "Llama"])]
        rows = run("UNet", "Llama", "--parts", "preparations")
        assert rows["UNet"]["layers"] == 1
        assert asked == [("preparations", ["UNet"])], "for convolutional families only"
        rows = run("UNet", "--parts", "ours")
        assert rows["UNet"]["peer"] == {"ended": False, "failed": "no"}, "what was measured before stays"
        assert "ours 1 of 1: | UNet | library Net |" in capsys.readouterr().err

    def test_an_unknown_name_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["zoo", "Nothing"])
        with pytest.raises(SystemExit):
            zoo.main()
        assert "no architecture 'Nothing'; there are ResNet, ResNeXt" in capsys.readouterr().err
