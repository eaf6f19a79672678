"""The benchmarks at tiny size: that they measure what they say, and that the tables say what was measured."""

from __future__ import annotations

import copy
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from benchmarks import analyzer, analyzer_table, growth, memory, native, readme, stages, widths, widths_table
from surgery.errors import CheckError
from surgery.inputs import Inputs
from surgery.latency.machine import this_machine
from surgery.latency.results import Benchmark, Cell, Row, Settings
from surgery.proof.cost import count_params, macs

IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
WIDTHS = native.ResNetWidths(8, ((9, 8, 1), (10, 12, 2)), 5)


def small_resnet(name: str = "") -> nn.Module:
    """A torchvision ResNet of basic blocks, one per stage; the name is for those who ask for another."""
    from torchvision.models.resnet import BasicBlock, ResNet

    torch.manual_seed(0)
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5).eval()


def tiny(name: str = "", image: Tensor = IMAGE) -> nn.Module:
    return memory.tiny()


def run(module: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()


class TestStages:
    def test_ours_cuts_what_is_dead_and_keeps_the_function(self) -> None:
        masked = tiny()
        slim = copy.deepcopy(masked)
        laps, ops = stages.ours_(slim, masked, IMAGE)
        assert tuple(laps.wall_ms) == tuple(laps.cpu_ms) == (*stages.OURS, stages.CHECK)
        assert all(milliseconds > 0 for milliseconds in laps.wall_ms.values())
        assert ops == 10
        shrunk = surgery.shrink(masked, IMAGE, prove=False)
        assert count_params(slim) == shrunk.params_after < shrunk.params_before
        torch.testing.assert_close(slim(IMAGE), masked(IMAGE))

    def test_a_net_that_needs_a_second_plan_is_refused(self) -> None:
        class Literal(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)
                nn.init.zeros_(self.a.weight.detach()[::2])

            def forward(self, x: Tensor) -> Tensor:
                return self.b(self.a(x).view(-1, 6))

        net = Literal().eval()
        with pytest.raises(CheckError, match=r"Literal needs a second plan: (.|\n)*time another net"):
            stages.ours_(copy.deepcopy(net), net, torch.randn(3, 4))

    def test_torch_pruning_keeps_the_classes(self) -> None:
        pruned = tiny()
        laps = stages.peer_(pruned, IMAGE)
        assert tuple(laps.wall_ms) == stages.PEER
        assert pruned(IMAGE).shape == (1, 5)
        assert count_params(pruned) < count_params(tiny())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("results") / "analyzer.json"
    output.write_text('{"memory": {"figures": []}}')
    arguments = ("--parts", "time", "--nets", "resnet18", "--growth", "vgg16_bn", "--rounds", "2", "--size", "32")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(analyzer, "masked_net", tiny)
        run(analyzer, monkeypatch, *arguments, "--output", str(output))
    return output.read_text()


class TestAnalyzer:
    @pytest.fixture
    def facts(self, written: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(written)
        return facts

    def test_raw_samples_are_kept_by_stage(self, facts: dict[str, Any]) -> None:
        assert facts["memory"] == {"figures": []}  # of an earlier run
        nets = facts["time"]["nets"]
        assert [net["net"] for net in nets] == ["resnet18", "vgg16_bn"]
        for net in nets:
            assert set(net["ours"]) == set(net["first"]["ours"]) == {*stages.OURS, stages.CHECK}
            assert set(net["theirs"]) == set(net["first"]["theirs"]) == set(stages.PEER)
            assert {len(samples) for samples in (*net["ours"].values(), *net["theirs"].values())} == {2}
            assert len(net["ours_cpu_ms"]) == len(net["theirs_cpu_ms"]) == 2
            assert net["params_after"][0] < net["params"]
            assert net["params_after"][1] < net["params"]

    def test_it_goes_into_the_table(self, facts: dict[str, Any]) -> None:
        net = facts["time"]["nets"][0]
        net["theirs"] = {"graph": [100.0] * 3, "step": [200.0] * 3}
        net["ours"] = {name: [10.0 * place] * 3 for place, name in enumerate((*stages.OURS, stages.CHECK), 1)}
        net["ours_cpu_ms"], net["theirs_cpu_ms"] = [150.0] * 3, [300.0] * 3
        facts["time"]["nets"][1] |= {name: net[name] for name in ("ours", "theirs", "ours_cpu_ms", "theirs_cpu_ms")}
        text = analyzer_table.time_table(facts["time"])
        assert "| resnet18 | 150 ms | 10 + 20 + 30 + 40 + 50 | 60 ms | 300 ms | 2.00 (2.00 to 2.00) |" in text
        assert "faster on 2 of 2 nets, slower on 0" in text
        assert "(32 x 32, one thread" in text

    def test_slow_nets_get_fewer_rounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(analyzer, "masked_net", tiny)
        monkeypatch.setattr(analyzer, "SLOW_S", {0.0: 2, 1000.0: 1})
        assert len(analyzer.timed("resnet18", IMAGE, 9).ours_ms) == 2


@dataclass(frozen=True)
class Net:
    net: str
    params: int
    ops: int
    ours_ms: list[float]


class TestGrowth:
    def test_a_power_is_found(self) -> None:
        assert growth.power([1, 2, 8], [3 * n**1.5 for n in (1, 2, 8)]) == pytest.approx(1.5)

    def test_a_family_is_in_its_own_order(self) -> None:
        nets = [
            Net("resnet50", 4_000_000, 20, [20.0, 20.0, 99.0]),
            Net("vgg16_bn", 9, 9, [9.0]),
            Net("resnet18", 1_000_000, 10, [10.0]),
        ]
        (found,) = growth.grown(nets)
        assert [net.net for net in found.members] == ["resnet18", "resnet50"]
        assert found.by_params == pytest.approx(0.5)
        assert found.by_ops == pytest.approx(1.0)
        assert "resnet50: 4.0 M parameters, 20 ops: 20 ms, 5.0 ms per million parameters, 1.00 ms per op" in str(found)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux keeps a high-water mark")
class TestMemory:
    @pytest.fixture
    def weights(self, tmp_path: Path) -> Path:
        from torchvision import models

        torch.save(models.mobilenet_v3_small().state_dict(), tmp_path / "weights.pt")
        return tmp_path / "weights.pt"

    @pytest.mark.parametrize("megabytes", [0, 64])
    def test_the_peak_of_a_door_is_found_though_it_was_given_back(
        self, weights: Path, monkeypatch: pytest.MonkeyPatch, megabytes: int
    ) -> None:
        held = torch.ones(200_000_000, dtype=torch.uint8)
        del held  # an earlier peak, higher than the door's
        door = {"fill": lambda net, image: torch.ones(megabytes * 1_000_000, dtype=torch.uint8).numel()}
        monkeypatch.setattr(memory, "DOORS", door)
        measured = memory.weigh("mobilenet_v3_small", "fill", weights, 32)
        assert measured["model_bytes"] == pytest.approx(10.2e6, rel=0.02)
        assert measured["peak_bytes"] == pytest.approx(megabytes * 1e6, abs=6e6)

    @pytest.mark.slow
    @pytest.mark.parametrize("door", memory.DOORS)
    def test_every_door_is_measured_in_a_fresh_process(self, weights: Path, door: str) -> None:
        measured = memory.in_fresh_process("mobilenet_v3_small", door, weights, 64)
        assert measured["before_bytes"] > measured["model_bytes"]
        assert measured["peak_bytes"] > 0

    def test_a_process_that_fails_says_why(self, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(RuntimeError, match="measures shrink on mobilenet_v3_small failed"):
            memory.in_fresh_process("mobilenet_v3_small", "shrink", weights, 64)

    def test_the_table_has_the_median(self) -> None:
        runs = [{"model_bytes": 100_000_000, "peak_bytes": peak * 1_000_000} for peak in (50, 10, 240)]
        figures = [{"net": "vgg16_bn", "door": door, "runs": runs} for door in memory.DOORS]
        assert "| vgg16_bn | 100 MB | 0.50 | 0.50 | 0.50 |" in analyzer_table.memory_table({"figures": figures})


class TestNative:
    def test_widths_are_those_of_the_slim_resnet(self) -> None:
        dense = small_resnet()
        plan = surgery.choose(dense, IMAGE, keep_ratio=0.3)
        slim = surgery.shrink(plan.mask(dense), IMAGE, prove=False).model
        made = native.resnet_like(slim)
        assert macs(made, Inputs.of(IMAGE)) == macs(slim, Inputs.of(IMAGE)) < macs(dense, Inputs.of(IMAGE)) / 5
        assert convolutions(made) == convolutions(slim)
        assert made.eval()(IMAGE).shape == (1, 5)

    def test_widths_are_those_of_the_slim_vgg(self) -> None:
        dense = native.vgg(native.VGGWidths((8, "M", 16, 12, "M"), (20, 24, 5))).eval()
        plan = surgery.choose(dense, IMAGE, keep_ratio=0.6)
        slim = surgery.shrink(plan.mask(dense), IMAGE, prove=False).model
        made = native.vgg_like(slim)
        assert [tuple(p.shape) for p in made.parameters()] == [tuple(p.shape) for p in slim.parameters()]
        assert count_params(made) < 0.6 * count_params(dense)
        assert type(made) is type(slim)

    def test_a_resnet_of_other_widths_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(widths, "dense_net", small_resnet)
        monkeypatch.setattr(widths, "NATIVE", {"resnet18": lambda slim: native.ResNet(WIDTHS)})
        clock = widths.Clock(32, ("eager",), (1,), 2, 0.0, 0.1)
        with pytest.raises(ValueError, match=r"resnet18: the native net is another one: MACs are \d+ \(slim\) and"):
            widths.limit("resnet18", clock)


def convolutions(net: nn.Module) -> list[tuple[int, ...]]:
    return sorted(tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def measured(**latency_ms: float) -> dict[str, Any]:
    """A benchmark in which every sample of a model is the same."""
    rows = tuple(Row(name, (ms,) * 4, (ms,) * 4) for name, ms in latency_ms.items())
    settings = Settings(("eager",), (1,), (2,), ("cpu",), 4, 0.0, 1.0, 0)
    cells = (Cell("eager", 1, "cpu", 2, rows),)
    loaded: dict[str, Any] = json.loads(Benchmark(this_machine(), settings, cells, 0.0, 0.0).to_json())
    return loaded


class TestWidths:
    def test_the_limit_counts_what_is_within_two_percent(self) -> None:
        near = {"net": "a", "keep_ratio": 0.5, "round_to": 8, "benchmark": measured(slim=1.015, native=1.0)}
        far = near | {"net": "b", "benchmark": measured(slim=1.03, native=1.0)}
        text = widths_table.limit_table([near, far])
        assert "within 2% of 1 in 1 of 2 cells" in text
        assert "| b | eager | 2 | 1.030 (1.030 to 1.030) |" in text

    def test_the_sweep_shows_the_cliff(self) -> None:
        facts = {
            "net": "a",
            "keep_ratio": 0.45,
            "params": {"dense": 4_000_000, "1": 1_000_000, "8": 1_100_000},
            "macs": {"dense": 800_000_000, "1": 200_000_000, "8": 220_000_000},
            "benchmark": measured(**{"dense": 40.0, "1": 20.0, "8": 11.0}),
        }
        text = widths_table.sweep_table([facts])
        assert "| a | parameters, MACs | | 1.00 M, 200 M | 1.10 M, 220 M |" in text
        assert "| a | eager | 2 | 20.0 ms, 50 | **11.0 ms**, 25 |" in text
        assert "* eager: multiples of 8 1.82 (1.82 to 1.82)." in text
        assert "    8:    11.00 ms, 0.0250 ns per MAC, 1.10 M parameters, 220 M MACs" in widths.sweep_lines(facts)[-1]

    @pytest.mark.slow
    def test_it_runs(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(widths, "dense_net", small_resnet)
        output = tmp_path / "widths.json"
        nets = ("--native", "resnet18", "--nets", "resnet18", "--round-to", "1", "16", "--runtimes", "eager")
        clock = ("--size", "32", "--batch", "1", "--pairs", "2", "--seconds", "0", "--max-seconds", "0.1")
        run(widths, monkeypatch, *nets, *clock, "--output", str(output))
        facts = json.loads(output.read_text())
        (limit,), (sweep,) = facts["limit"], facts["sweep"]
        assert limit["params"]["slim"] >= limit["params"]["native"]
        assert sweep["macs"]["1"] < sweep["macs"]["16"] < sweep["macs"]["dense"]
        ratio = widths_table.timed(limit).ratio("slim", "native", runtime="eager")
        assert ratio.n >= 2
        assert widths_table.table(facts).count("| resnet18 | eager | 1 |") == 2


class TestReadme:
    @pytest.mark.parametrize("section", readme.SECTIONS, ids=lambda section: section.name)
    def test_every_table_is_generated_from_the_committed_results(self, section: readme.Section) -> None:
        text = section.page.read_text()
        assert section.written(text) == text

    def test_only_what_is_between_the_markers_changes(self, tmp_path: Path) -> None:
        results = tmp_path / "results.json"
        results.write_text("[3, 4]")
        section = readme.Section("sums", results, lambda facts: str(sum(facts)))
        assert section.written(f"a\n{section.begin}\nold\n{section.end}\nb") == (
            f"a\n{section.begin}\n7\n{section.end}\nb"
        )
        results.unlink()
        assert "Not measured yet: `make bench`." in section.written(f"{section.begin}{section.end}")

    def test_missing_markers_are_named(self) -> None:
        section = readme.Section("sums", Path("none.json"), str)
        with pytest.raises(ValueError, match=r"README\.md has no <!-- sums: begin .*put both where the table belongs"):
            section.written("nothing here")


def test_the_forward_is_a_median_without_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 9.0, *[t for n in range(5) for t in (10.0, 10.0 + n)]])
    monkeypatch.setattr(analyzer.time, "perf_counter", lambda: next(ticks))
    assert analyzer._forward_ms(nn.Identity(), IMAGE) == statistics.median([0.0, 1.0, 2.0, 3.0, 4.0]) * 1000
