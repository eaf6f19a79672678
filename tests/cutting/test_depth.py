from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.cutting.bypassing import PassThrough, shorten_
from surgery.deciding.bypasses import Bypass, Give
from surgery.errors import InputError, PlanError
from surgery.plans import Plan
from tests.depth_nets import IMAGES, WORDS, Pictures, Tokens, pictures, silence_, tokens
from tests.exactness import BOUND_FLOAT32, BOUND_FLOAT64
from tests.nets import lively


def gone(result: surgery.Result) -> list[str]:
    return [bypass.module for bypass in result.plan.bypasses]


def exact(result: surgery.Result) -> bool:
    proof = result.proof
    assert proof is not None
    assert proof.max_rel_error_float64 is not None
    assert proof.max_rel_error is not None
    return proof.passed and proof.max_rel_error_float64 <= BOUND_FLOAT64 and proof.max_rel_error <= BOUND_FLOAT32


def test_a_block_of_a_transformer_and_half_of_another() -> None:
    model = tokens("blocks.1.mix", "blocks.1.mlp.2", "blocks.3.mlp.2")
    result = surgery.shrink(model, WORDS, depth=True)
    assert gone(result) == ["blocks.1", "blocks.3.norm2", "blocks.3.mlp"]
    assert exact(result)
    assert torch.equal(result.model(WORDS), model(WORDS))
    slim = result.model
    assert isinstance(slim, Tokens)
    assert type(slim.blocks[1]) is nn.Identity
    assert type(slim.blocks[3].norm2) is nn.Identity
    assert isinstance(slim.blocks[3].mlp, PassThrough)
    assert slim.blocks[3].mlp(WORDS).shape == (1, 1, 1)
    assert not any(name.startswith(("blocks.1.", "blocks.3.mlp")) for name in slim.state_dict())
    assert slim.blocks[2].mix.weight.shape == (8, 8)
    block = 2 * (8 + 8) + 8 * 8 + 8 + (8 * 12 + 12) + (12 * 8 + 8)
    half = (8 + 8) + (8 * 12 + 12) + (12 * 8 + 8)
    assert result.params_before - result.params_after == block + half
    assert result.macs_before - result.macs_after == 2 * 7 * (8 * 8 + 2 * 8 * 12) + 2 * 7 * 2 * 8 * 12


def test_without_being_asked_it_is_only_said() -> None:
    result = surgery.shrink(tokens("blocks.1.mix", "blocks.1.mlp.2"), WORDS)
    assert gone(result) == []
    assert "nothing would be missed of blocks.1: depth=True (--depth) removes such modules whole" in result.notes
    assert isinstance(result.model, Tokens)
    assert result.model.blocks[1].mlp[0].out_features == 1
    assert surgery.shrink(tokens(), WORDS).notes == ()


def test_blocks_of_convolutions() -> None:
    model = pictures("stages.0.1.bn2", "stages.1.0.bn2", "stages.1.2.bn2")
    result = surgery.shrink(model, IMAGES, depth=True)
    assert gone(result) == ["stages.0.1", "stages.1.2"]  # the one with a shortcut of its own stays
    assert exact(result)
    assert any(
        note.startswith("stages.1.0.bn2 does nothing, but stays: its zeros go into add_") for note in result.notes
    )


def test_together_with_channels() -> None:
    model = tokens("blocks.1.mix", "blocks.1.mlp.2")
    with torch.no_grad():
        model.blocks[0].mlp[0].weight[3:6] = 0
    result = surgery.shrink(model, WORDS, depth=True)
    assert exact(result)
    assert isinstance(result.model, Tokens)
    assert result.model.blocks[0].mlp[0].out_features == 9
    assert len(result.plan.folds) == 1
    assert "one module went as a whole: blocks.1" in str(result)
    average = copy.deepcopy(model)
    assert torch.equal(surgery.cut_ema_(average, result.plan, WORDS)(WORDS), result.model(WORDS))
    assert re.search(r"\n3 of \d+ channels go, in 1 of", str(result))


def test_the_plan_is_data_and_is_applied_again() -> None:
    model = tokens("blocks.1.mix", "blocks.1.mlp.2", "blocks.2.mix")
    result = surgery.shrink(model, WORDS, depth=True)
    plan = Plan.from_json(result.plan.to_json())
    assert plan == result.plan
    assert torch.equal(plan.apply(model, WORDS)(WORDS), result.model(WORDS))
    again = surgery.shrink(plan.mask(tokens()), WORDS, depth=True)  # of other weights it zeroes what it has to
    assert gone(again) == gone(result)
    assert exact(again)
    told = plan.explain("blocks.1.mlp.0.weight", 3)
    assert told == "blocks.1.mlp.0.weight is removed with all of blocks.1: what it hands out is what it is given"
    assert str(plan).startswith("plan: 3 modules go as a whole: blocks.1, blocks.2.norm1, blocks.2.mix\n")
    assert not plan.empty
    there = copy.deepcopy(model)
    assert plan.apply_(there, WORDS) is there
    assert torch.equal(there(WORDS), result.model(WORDS))
    with pytest.raises(PlanError, match=r"the model has no blocks\.1\.norm1\.weight"):
        plan.apply(there)
    other = tokens()
    other.blocks[1].norm1 = nn.LayerNorm(9)
    with pytest.raises(PlanError, match=r"blocks\.1\.norm1\.weight is \[9\], the plan was made for \[8\]"):
        plan.apply(other)


def test_it_is_saved_copied_and_exported(tmp_path: Path) -> None:
    model = tokens("blocks.1.mix", "blocks.1.mlp.2", "blocks.3.mlp.2")
    result = surgery.shrink(model, WORDS, depth=True)
    surgery.save(result, tmp_path / "slim")
    loaded = surgery.load(tmp_path / "slim", Tokens).eval()
    assert torch.equal(loaded(WORDS), result.model(WORDS))
    assert loaded.state_dict().keys() == result.model.state_dict().keys()
    assert torch.equal(copy.deepcopy(result.model)(WORDS), result.model(WORDS))
    torch.save(result.model, tmp_path / "whole.pt")
    assert torch.equal(torch.load(tmp_path / "whole.pt", weights_only=False)(WORDS), result.model(WORDS))
    for file in ("slim.pt", "slim.onnx"):
        assert surgery.export(result.model, tmp_path / file, WORDS).parity.passed
    with pytest.raises(InputError, match=r"does not fit the model: the model has no blocks\.3"):
        surgery.load(tmp_path / "slim", lambda: Tokens(3))


@pytest.mark.slow
def test_adding_zero_costs_nothing_in_onnx_runtime(tmp_path: Path) -> None:
    """Of half a block nothing is left in the graph that runs, not even the sum."""
    import onnx
    import onnxruntime

    def sums(model: nn.Module) -> int:
        surgery.export(model, tmp_path / "slim.onnx", WORDS)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "run.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(tmp_path / "slim.onnx", options, providers=["CPUExecutionProvider"])
        (tmp_path / "slim.onnx").unlink()
        return [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node].count("Add")

    model = tokens("blocks.1.mlp.2")
    result = surgery.shrink(model, WORDS, depth=True)
    assert gone(result) == ["blocks.1.norm2", "blocks.1.mlp"]
    assert sums(model) - sums(result.model) == 2  # its last bias, and the sum


def test_in_place() -> None:
    model = tokens("blocks.1.mix", "blocks.1.mlp.2", "blocks.3.mlp.2")
    before = model(WORDS)
    stem = model.stem.weight
    result = surgery.shrink(model, WORDS, depth=True, inplace=True)
    assert result.model is model
    assert model.stem.weight is stem
    assert type(model.blocks[1]) is nn.Identity
    assert torch.equal(model(WORDS), before)


def test_an_optimizer_and_an_average_go_on() -> None:
    model = tokens().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model(WORDS).square().sum().backward()
    optimizer.step()
    silence_(model, "blocks.1.mix", "blocks.1.mlp.2")
    state = optimizer.state_dict()
    average = copy.deepcopy(tokens())
    result = surgery.shrink(model, WORDS, depth=True)
    cut = surgery.cut_optimizer_state(state, result.plan, result.model)
    surgery.cut_optimizer_(optimizer, result.plan, result.model, of=model)
    held = optimizer.param_groups[0]["params"]
    assert [id(p) for p in held] == [id(p) for p in result.model.parameters()]
    other = torch.optim.Adam(result.model.parameters())
    other.load_state_dict(cut)
    assert len(optimizer.state) == len(held) == 4 + 3 * 10
    for p in held:
        assert torch.equal(other.state[p]["exp_avg"], optimizer.state[p]["exp_avg"])
        assert optimizer.state[p]["exp_avg"].shape == p.shape
    averaged = surgery.cut_ema_state(average.state_dict(), result.plan)
    assert averaged.keys() == result.model.state_dict().keys()
    slim = surgery.cut_ema_(average, result.plan, WORDS)
    assert {name: tensor.shape for name, tensor in slim.state_dict().items()} == {
        name: tensor.shape for name, tensor in averaged.items()
    }


class Told(nn.Module):
    """A block as transformers had them: keyword arguments in, a tuple out; the code around asks for its kind."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.kind = nn.LayerNorm(8), nn.Linear(8, 8), "full"

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> tuple[Tensor, None]:
        mixed = self.norm(hidden) if mask is None else self.norm(hidden) * mask[..., None]
        return hidden + self.mix(mixed), None


class Asking(Tokens):
    def __init__(self) -> None:
        super().__init__(0)
        self.blocks = nn.ModuleList([Told() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        x, mask = self.stem(x), x[..., 0].sigmoid()
        for block in self.blocks:
            x = block(mask=mask if block.kind == "full" else None, hidden=x)[0]
        logits: Tensor = self.head(x.mean(1))
        return logits


def test_keywords_tuples_and_attributes() -> None:
    model = lively(Asking())
    silence_(model, "blocks.1.mix")
    result = surgery.shrink(model, WORDS, depth=True)
    assert result.plan.bypasses[0].gives == (Give(source="hidden"), Give())
    assert exact(result)
    there = result.model.get_submodule("blocks.1")
    assert isinstance(there, PassThrough)
    assert there.kind == "full"
    assert repr(there) == "PassThrough(hidden, None)"


def test_hooks_on_a_block_go_on() -> None:
    model = tokens("blocks.1.mix", "blocks.1.mlp.2")
    heard: list[Tensor] = []
    model.blocks[1].register_forward_hook(lambda module, args, output: heard.append(output))
    result = surgery.shrink(model, WORDS, depth=True)
    assert gone(result) == ["blocks.1"]
    heard.clear()
    result.model(WORDS)
    model(WORDS)
    assert torch.equal(*heard)


def test_a_block_that_is_called_twice_or_has_two_names() -> None:
    class Twice(Tokens):
        def __init__(self) -> None:
            super().__init__(2)
            self.again = self.blocks[0]
            self.blocks.append(self.blocks[0])

    model = lively(Twice())
    silence_(model, "blocks.0.mix", "blocks.0.mlp.2")
    result = surgery.shrink(model, WORDS, depth=True)
    assert gone(result) == ["blocks.0"]
    assert exact(result)
    assert result.model.get_submodule("blocks.2") is result.model.get_submodule("again")
    assert type(result.model.get_submodule("again")) is nn.Identity


def test_code_that_asks_for_a_part_keeps_it() -> None:
    class Asks(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            scale: Any = 1.0 if self.blocks[1].mlp[0].out_features > 4 else 2.0
            return super().forward(x * scale)

    model = lively(Asks())
    silence_(model, "blocks.1.mix", "blocks.1.mlp.2", "blocks.3.mlp.2")
    result = surgery.shrink(model, WORDS, depth=True, keep_class=True)
    assert gone(result) == ["blocks.3.norm2", "blocks.3.mlp"]
    assert exact(result)
    assert (
        "blocks.1 does nothing, but stays: the model's code does not run, or not as before, without it" in result.notes
    )


def test_what_is_written_into_later_is_not_handed_on() -> None:
    """With `nn.Identity` in its place, what a block was given would be overwritten behind it."""

    class Keeps(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            after = self.blocks[0](x)
            after.mul_(2)
            logits: Tensor = self.head((after + x).mean(1))
            return logits

    class Writes(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.blocks[0](x).mul_(2).mean(1))
            return logits

    wide = torch.randn(2, 7, 8)
    for kind, example in ((Keeps, WORDS), (Writes, wide)):
        model = lively(kind())
        silence_(model, "blocks.0.mix", "blocks.0.mlp.2")
        before = example.clone()
        result = surgery.shrink(model, example, depth=True)
        assert exact(result)
        assert "blocks.0" not in gone(result)
        result.model(example)
        assert torch.equal(example, before)


def test_zeros_that_rest_on_other_weights_are_checked() -> None:
    """A negative bias behind zero weights, and a ReLU: for another bias the block would not be nothing."""

    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.two(self.one(x).relu())

    model = lively(nn.Sequential(Dead(), nn.Linear(5, 3)))
    with torch.no_grad():
        model.get_parameter("0.one.weight").zero_()
        model.get_parameter("0.one.bias").copy_(-torch.rand(6))
    result = surgery.shrink(model, WORDS, depth=True)
    assert gone(result) == ["0"]
    assert exact(result)
    result.plan.apply(model, WORDS)
    with torch.no_grad():
        model.get_parameter("0.one.bias").abs_()
    with pytest.raises(PlanError, match="changed"):
        result.plan.apply(model)
    assert surgery.shrink(tokens("blocks.1.mix", "blocks.1.mlp.2"), WORDS, depth=True).plan.checksums == {}


def test_a_net_without_residual_blocks() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3)
            self.layers = nn.ModuleList([nn.Conv2d(4 * n, 4, 3, padding=1) for n in (1, 2, 3)])

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for layer in self.layers:
                x = torch.cat([x, layer(x).relu()], 1)
            return x

    model = lively(Dense())
    silence_(model, "layers.1")
    result = surgery.shrink(model, IMAGES, depth=True)
    assert gone(result) == []
    assert exact(result)
    with pytest.raises(InputError, match="Dense has no residual block that can go as a whole"):
        surgery.choose(model, IMAGES, depth=1)


def test_nothing_is_changed_where_a_module_is_missing() -> None:
    model = pictures()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrong = [Bypass("stages.0.0", (Give(0),), alone=True), Bypass("head", (Give(0),), shapes={"head.gain": (4,)})]
    with pytest.raises(PlanError, match=r"the model has no head\.gain"):
        shorten_(model, wrong)
    assert isinstance(model, Pictures)
    assert model.state_dict().keys() == before.keys()
