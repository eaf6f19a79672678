"""Every family of benchmarks/families.py, masked in each of three ways and shrunk, as `python -m benchmarks.zoo` does.

What goes is held against the committed results, which the published table is made from.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from benchmarks import zoo
from benchmarks.families import BY_NAME, CLASSES, FAMILIES, STANDARDISED, Family
from benchmarks.own_nets import UNet
from benchmarks.preparations import PREPARATIONS, by_columns, by_layers, layers_of, levelled_, lively_
from tests.exactness import assert_plain, fingerprint

QUICK = ("ResNet", "DenseNet", "MobileNet v3", "ShuffleNet v2", "UNet", "WaveNet")
"""In `make test`; they are cheap and unlike each other."""
EXPORTED = ("UNet", "WaveNet")
"""Of these, exported in `make test`, too."""
AGREE = frozenset({"DenseNet", "VGG", "GoogLeNet", "SqueezeNet", "UNet"})
"""Nets of concatenations and chains: masks made layer by layer do not disagree in them."""
IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(7))
SLACK = 0.005
"""How much less of the parameters may go than in the committed results: ties in importance, broken by rounding."""


@cache
def committed() -> dict[str, Any]:
    families: dict[str, Any] = json.loads(zoo.RESULTS.read_text(encoding="utf-8"))["families"]
    return families


def of_families(*names: str) -> pytest.MarkDecorator:
    chosen = [BY_NAME[name] for name in names] or FAMILIES
    marks = [() if family.name in QUICK else pytest.mark.slow for family in chosen]
    return pytest.mark.parametrize(
        "family", [pytest.param(f, id=f.name, marks=m) for f, m in zip(chosen, marks, strict=True)]
    )


def judged(family: Family, preparation: str, masked: nn.Module) -> surgery.Result:
    """Shrink, exactly (or fail); a plain model, and as small as the table says."""
    before = fingerprint(masked)
    case = zoo.shrunk(family, masked)
    assert fingerprint(masked) == before, "the user's model was changed"
    assert_plain(masked, case.result.model)
    now = zoo.removed_share({"preparations": {preparation: case.facts()}}, preparation)
    then = zoo.removed_share(committed()[family.name], preparation)
    assert now >= then - SLACK, f"lost freedom: {now:.1%} of the parameters go, {then:.1%} went"
    return case.result


@of_families()
def test_half_of_every_group_masked_through_a_plan(family: Family, request: pytest.FixtureRequest) -> None:
    net = zoo.net_of(family)
    plan = surgery.choose(net, family.example)
    masked = levelled_(plan.mask(net), family.example)
    result = judged(family, "plan", masked)
    kept = {(axis.name, axis.dim): axis.keep for axis in plan.axes}
    assert {(axis.name, axis.dim): axis.keep for axis in result.plan.axes} == kept, "shrink(mask(m)) is not apply(m)"
    assert all(group.channels - group.removed >= group.channels / 2 for group in plan.groups)
    slow = request.node.get_closest_marker("slow") is not None
    if slow or family.name in EXPORTED:
        exports = zoo.exported(family, result.model)
        assert set(exports) == set(zoo.EXPORTS)
        assert zoo.refused(exports) == family.refused
    if slow:
        proven = surgery.shrink(masked, family.example)
        assert proven.proof is not None
        assert proven.proof.passed
        assert proven.params_after == result.params_after, "the proof put something back"


@of_families()
def test_masks_made_layer_by_layer(family: Family) -> None:
    """Half of each layer's filters, whatever the next layer does: exact, and what disagrees is explained."""
    result = judged(family, "layers", by_layers(zoo.net_of(family), family.example))
    stranded = [group for group in result.plan.groups if group.stranded]
    assert bool(stranded) is (family.name not in AGREE), stranded
    for group in stranded:
        assert sum(count for _, count in group.blockers) == group.stranded


@of_families()
def test_columns_zeroed_instead_of_rows(family: Family) -> None:
    """Where nobody looks at a channel it can go, whatever it holds; nothing is folded and nothing carried for it."""
    result = judged(family, "columns", by_columns(zoo.net_of(family), family.example))
    if family.stays == STANDARDISED:
        assert result.plan.empty
        return
    planned = zoo.removed_share(committed()[family.name], "plan")
    assert 1 - result.params_after / result.params_before >= planned - 0.01


def test_the_results_are_of_every_family() -> None:
    assert list(committed()) == list(BY_NAME)
    assert len(FAMILIES) >= 28
    assert not [name for name, found in committed().items() if "failed" in found]
    assert all(set(found["preparations"]) == set(PREPARATIONS) for found in committed().values())
    shares = {name: found["removable_share"] for name, found in committed().items()}
    assert {name for name, share in shares.items() if share < 0.95} == {
        f.name for f in FAMILIES if f.stays not in ("", STANDARDISED)
    }
    assert all(set(found["exports"]) == set(zoo.EXPORTS) for found in committed().values())
    assert all(zoo.refused(found["exports"]) == BY_NAME[name].refused for name, found in committed().items())


def test_a_lively_net_shows_errors() -> None:
    """No two gains alike, and every layer's output differs from input to input by 1."""
    net = lively_(nn.Sequential(nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 30, 3)), IMAGE)
    assert not [name for name, p in net.named_parameters() if bool((p == p.flatten()[0]).all())]
    fresh = torch.randn(8, *IMAGE.shape[1:])
    for depth in (1, 4):
        out = net[:depth](fresh).detach()
        assert float((out - out.mean(0)).std()) == pytest.approx(1, abs=0.1)
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert float(norm.running_mean.std()) > 0.1


def zero_along(weight: Tensor, dim: int) -> list[int]:
    return [n for n in range(weight.shape[dim]) if not bool(weight.select(dim, n).any())]


def test_layer_by_layer_takes_half_of_the_filters_of_every_layer_but_the_last() -> None:
    masked = by_layers(lively_(UNet((16, 24)), IMAGE), IMAGE)
    for path, layer in layers_of(masked).items():
        filters = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        width = layer.weight.shape[filters]
        assert len(zero_along(layer.weight, filters)) == (0 if width == CLASSES else width // 2), path


def test_columns_are_zero_wherever_a_channel_is_read_and_its_writer_is_not() -> None:
    masked = by_columns(lively_(UNet((16, 24)), IMAGE), IMAGE)
    for path, layer in layers_of(masked).items():
        transposed = isinstance(layer, nn.ConvTranspose2d)
        width = layer.weight.shape[0 if transposed else 1]
        half = 0 if width == 3 else width // 2
        assert half - 1 <= len(zero_along(layer.weight, 0 if transposed else 1)) <= half, path  # one may be a carrier
        assert not zero_along(layer.weight, 1 if transposed else 0), path


def test_a_failure_is_kept_and_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> nn.Module:
        raise RuntimeError("no such net\nand more")

    def chain() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU(), nn.Conv2d(32, 10, 1))

    found = zoo.results_of([Family("Broken", "nowhere", broken), Family("Chain", "here", chain, (3, 8, 8), 4)])
    assert found["Broken"]["failed"] == "RuntimeError: no such net"
    assert "2 of 2: Chain" in capsys.readouterr().err
    assert found["Chain"]["exports"]["onnx"]["batches"] == [1, 2, 3]
    lines = zoo.table({"families": found}).splitlines()
    assert lines[2] == "| Broken | nowhere | | | | FAILED: RuntimeError: no such net | | |"
    assert lines[3].startswith(
        "| Chain | here | 0.0 M | 100 % | 61 %, 61 %, 61 % | "
    )  # 890 of 2282 parameters are left


def test_the_judge_of_the_zoo_is_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slim net that differs by a little in one bias is not let through."""
    wave = BY_NAME["WaveNet"]
    masked = PREPARATIONS["plan"](zoo.net_of(wave), wave.example)
    result = surgery.shrink(masked, wave.example, prove=False)
    with torch.no_grad():
        result.model.get_parameter("first.bias")[0] += 1e-3
    monkeypatch.setattr(surgery, "shrink", lambda *args, **kwargs: result)
    with pytest.raises(AssertionError, match="float32="):
        zoo.shrunk(wave, masked)
