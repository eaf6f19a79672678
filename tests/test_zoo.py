"""The nets of the zoo, masked and shrunk as `python -m benchmarks.zoo` does, and the script itself at tiny size.

What goes is held against the committed results, which the published tables are made from.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import surgery
from benchmarks import zoo, zoo_row
from benchmarks.architecture import Architecture, Floats, Mask, Tokens
from benchmarks.architectures import ARCHITECTURES, LISTED
from benchmarks.families import BY_NAME, GRN, STANDARDISED
from benchmarks.judging import tensors_of
from benchmarks.preparations import PREPARATIONS, by_columns, by_layers, drawn, levelled_
from tests.exactness import assert_plain, fingerprint

QUICK = ("ResNet", "DenseNet", "MobileNet v3", "ShuffleNet v2", "UNet", "WaveNet")
"""In `make test`; they are cheap and unlike each other."""
EXPORTED = ("UNet", "WaveNet")
"""Of these, exported in `make test`, too."""
BUILT = ("Llama", "T5", "Swin in timm", "Mamba", "Mixtral", "wav2vec 2.0", "CLIP", "Sequencer")
"""Built and run in `make test`: one of each kind."""
AGREE = frozenset({"DenseNet", "VGG", "GoogLeNet", "SqueezeNet", "UNet"})
"""Nets of concatenations and chains: masks made layer by layer do not disagree in them."""
SLACK = 0.005
"""How much less of the parameters may go than in the committed results: ties in importance, broken by rounding."""


@cache
def committed() -> dict[str, Any]:
    rows: dict[str, Any] = json.loads(zoo.RESULTS.read_text(encoding="utf-8"))["rows"]
    return rows


def of_families() -> pytest.MarkDecorator:
    chosen = [pytest.param(ARCHITECTURES[n], id=n, marks=() if n in QUICK else pytest.mark.slow) for n in BY_NAME]
    return pytest.mark.parametrize("family", chosen)


def removed(params: list[int]) -> float:
    before, after = params
    return 1 - after / before


def judged(family: Architecture, preparation: str, masked: nn.Module) -> surgery.Result:
    """Shrink, exactly (or fail); a plain model, and as small as the table says."""
    before = fingerprint(masked)
    case = zoo_row.shrunk(family, masked)
    assert not case.fault, case.distance
    assert fingerprint(masked) == before, "the user's model was changed"
    assert_plain(masked, case.result.model)
    row = committed()[family.name]
    now = removed(case.facts()["params"])
    then = removed((row if preparation == "plan" else row["preparations"][preparation])["params"])
    assert now >= then - SLACK, f"lost freedom: {now:.1%} of the parameters go, {then:.1%} went"
    return case.result


@of_families()
def test_half_of_every_group_masked_through_a_plan(family: Architecture, request: pytest.FixtureRequest) -> None:
    net, example = zoo_row.net_of(family), family.inputs()
    plan = surgery.choose(net, example.args, keep_ratio=0.5)
    masked = levelled_(plan.mask(net), drawn(family))
    result = judged(family, "plan", masked)
    kept = {(axis.name, axis.dim): axis.keep for axis in plan.axes}
    assert {(axis.name, axis.dim): axis.keep for axis in result.plan.axes} == kept, "shrink(mask(m)) is not apply(m)"
    assert all(group.channels - group.removed >= group.channels / 2 for group in plan.groups)
    slow = request.node.get_closest_marker("slow") is not None
    if slow or family.name in EXPORTED:
        exports = zoo_row.exported(family, result.model)
        assert set(exports) == set(zoo_row.EXPORTS)
        assert tuple(name for name, parity in exports.items() if "error" not in parity) == family.refused
    if slow:
        proven = surgery.shrink(masked, example.args)
        assert proven.proof is not None
        assert proven.proof.passed
        assert proven.params_after == result.params_after, "the proof put something back"


@of_families()
def test_masks_made_layer_by_layer(family: Architecture) -> None:
    """Half of each layer's filters, whatever the next layer does: exact, and what disagrees is explained."""
    result = judged(family, "layers", by_layers(zoo_row.net_of(family), family))
    stranded = [group for group in result.plan.groups if group.stranded]
    assert bool(stranded) is (family.name not in AGREE), stranded
    for group in stranded:
        assert sum(count for _, count in group.blockers) == group.stranded


@of_families()
def test_columns_zeroed_instead_of_rows(family: Architecture) -> None:
    """Where nobody looks at a channel it can go, whatever it holds; nothing is folded and nothing carried for it."""
    result = judged(family, "columns", by_columns(zoo_row.net_of(family), family))
    if family.stays in (STANDARDISED, GRN):
        assert result.plan.empty
        return
    planned = removed(committed()[family.name]["params"])
    assert removed([result.params_before, result.params_after]) >= planned - 0.01


class TestList:
    def test_names_are_unique_and_there_are_enough(self) -> None:
        assert len(LISTED) == len(ARCHITECTURES) >= 120
        libraries = {architecture.net.split()[0] for architecture in LISTED}
        assert libraries == {"plain", "timm", "torchvision", "transformers"}
        assert all(architecture.sizes["B"] == 2 for architecture in LISTED)
        assert all({sizes["B"] for sizes in architecture.others} == {1, 3} for architecture in LISTED)

    def test_who_takes_one_size_only_says_so(self) -> None:
        silent = [a.name for a in LISTED if all(set(sizes) == {"B"} for sizes in a.others) and not a.note]
        assert silent == []

    @pytest.mark.parametrize(
        "name", [pytest.param(n, marks=() if n in BUILT else pytest.mark.slow) for n in ARCHITECTURES]
    )
    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # theirs
    def test_it_is_built_alike_every_time_and_runs_at_every_size(self, name: str) -> None:
        architecture = ARCHITECTURES[name]
        net = architecture.make()
        assert not net.training
        for sizes in ({}, *architecture.others):
            with torch.no_grad():
                outputs = tensors_of(architecture.inputs(**sizes).call(net))
            assert outputs
            assert all(bool(out.isfinite().all()) for out in outputs)
        first, second = net.state_dict(), architecture.make().state_dict()
        assert all(torch.equal(first[key], second[key]) for key in first)

    def test_inputs_have_the_sizes_that_are_asked_for(self) -> None:
        takes = {"ids": Tokens(9, 3), "mask": Mask("left"), "": Floats(("B", 4, "T"))}
        made = Architecture("a", "here", nn.Identity, takes, {"B": 2, "T": 5}).inputs(B=3, T=7)
        assert made.args[0].shape == (3, 4, 7)
        assert made.kwargs["ids"].shape == (3, 7)
        assert 3 <= int(made.kwargs["ids"].min()) <= int(made.kwargs["ids"].max()) < 9
        assert made.kwargs["mask"].tolist() == [[1] * 7, [0, 0, 1, 1, 1, 1, 1], [1] * 7]

    def test_inputs_depend_on_the_seed_alone(self) -> None:
        unet = ARCHITECTURES["UNet"]
        torch.testing.assert_close(unet.inputs().args[0], unet.inputs().args[0])
        assert not torch.equal(unet.inputs().args[0], unet.inputs(seed=8).args[0])


class TestResults:
    def test_they_are_of_architectures_in_the_list_in_its_order(self) -> None:
        assert list(committed()) == [name for name in ARCHITECTURES if name in committed()]

    @pytest.mark.slow
    def test_they_are_of_every_architecture(self) -> None:
        assert list(committed()) == list(ARCHITECTURES)

    def test_no_slim_net_computes_something_else(self) -> None:
        assert not [name for name, row in committed().items() if row.get("exact") is False]

    def test_every_convolutional_family_is_exact_in_three_preparations(self) -> None:
        rows = {name: committed()[name] for name in BY_NAME}
        assert len(rows) >= 28
        assert not [name for name, row in rows.items() if "failed" in row]
        assert all(set(row["preparations"]) == {*PREPARATIONS} - {"plan"} for row in rows.values())
        assert all(case["exact"] for row in rows.values() for case in row["preparations"].values())
        assert {name for name, row in rows.items() if row["removable_share"] < 0.95} == {
            name for name in BY_NAME if BY_NAME[name].stays not in ("", STANDARDISED)
        }
        for name, row in rows.items():
            assert tuple(k for k, parity in row["exports"].items() if "error" not in parity) == BY_NAME[name].refused
