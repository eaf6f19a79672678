"""Models whose own code cannot run narrower come back as their captured graph: as usable as the model itself."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from surgery.checkpoints.manifest import digested
from surgery.errors import InputError, PlanError
from tests.exactness import shrunk
from tests.nets import lively, zero_, zero_rows_

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
SHAPES = ((1, 0), (3, 0), (2, 4))
DEAD_BODY, DEAD_HEADS = [0, 3, 5], range(4, 8)


class Written(nn.Module):
    """Code that insists on its sizes, heads of 3 x 4, and checks them; BatchNorm, dropout, a weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.drop = nn.Dropout(0.4)
        self.mid = nn.Conv2d(12, 6, 1)
        self.qkv = nn.Linear(6, 36)
        self.out = nn.Linear(12, 6)
        self.one, self.two = nn.Linear(6, 4), nn.Linear(6, 4)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first, second = self.norm(self.body(x)).relu().split([6, 6], 1)
        x = self.mid(self.drop(torch.cat([first.tanh(), second], 1)))
        b, _, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).view(b, h * w, 3, 3, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, 12)
        if y.shape[2] != 12:
            raise ValueError("three heads of four")
        x = x + self.out(y)
        return {"tokens": self.one(x), "pooled": self.two(x.mean(1)).sigmoid()}


def written() -> Written:
    """Channels of the body that are zero behind the ReLU, and a head that nobody reads."""
    net = lively(Written())
    assert isinstance(net, Written)
    zero_rows_(net, body=DEAD_BODY)
    with torch.no_grad():
        net.norm.weight[DEAD_BODY] = 0
        net.norm.bias[DEAD_BODY] = -0.5
    zero_(net.out.weight, DEAD_HEADS, dim=1)
    return net


LOST = 3 * (28 + 2 + 6) + 4 * (3 * 7 + 6)


@pytest.fixture(scope="module")
def masked() -> Written:
    return written()


@pytest.fixture(scope="module")
def result(masked: Written) -> surgery.Result:
    return surgery.shrink(masked, X)


def agree(one: nn.Module, other: nn.Module, x: Tensor = X) -> None:
    with torch.no_grad():
        torch.testing.assert_close(dict(other(x)), dict(one(x)), rtol=1e-5, atol=1e-5)


def test_the_result_says_so_and_why(masked: Written, result: surgery.Result) -> None:
    assert result.kind == "graph"
    assert type(result.model) is not Written
    assert result.params_before - result.params_after == LOST
    assert result.proof is not None
    assert result.proof.passed
    text = str(result)
    assert "handed back as its captured graph, for the code at test_fallback.py:" in text
    assert "cannot run narrower" in text
    assert "(keep_class=True leaves that whole)" in text
    assert type(masked) is Written
    assert masked.body.out_channels == 12


def test_judged_by_another_proof() -> None:
    found = shrunk(written(), X, shapes=SHAPES, kind="graph")
    assert found.params_before - found.params_after == LOST


def test_keep_class_leaves_whole_what_the_code_insists_on() -> None:
    found = shrunk(written(), X, shapes=SHAPES, keep_class=True)
    assert found.params_before - found.params_after < LOST
    assert found.kind == "class"
    assert "captured graph" not in str(found)
    assert "cannot run narrower" in found.plan.explain("qkv.weight", 4)


def test_the_class_is_kept_where_a_graph_would_remove_no_more() -> None:
    net = lively(Written())
    zero_(net.mid.weight, [0], dim=1)
    zero_(net.mid.weight, [6], dim=1)
    assert surgery.shrink(net, X, prove=False).params_before
    nothing = surgery.shrink(lively(Written()), X, prove=False)
    assert nothing.kind == "class"
    assert nothing.plan.empty


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (5, 3, 8, 8), (2, 3, 11, 6), (1, 3, 4, 20)])
def test_other_batches_and_resolutions(masked: Written, result: surgery.Result, shape: tuple[int, ...]) -> None:
    agree(masked, result.model, torch.randn(shape))


def test_names_and_ties_are_the_models(masked: Written, result: surgery.Result) -> None:
    assert list(result.model.state_dict()) == list(masked.state_dict())
    assert result.model.get_parameter("one.weight") is result.model.get_parameter("two.weight")


def test_saved_and_loaded_into_a_fresh_model_and_one_without_weights(
    tmp_path: Path, masked: Written, result: surgery.Result
) -> None:
    surgery.save(result, tmp_path / "slim")
    with torch.device("meta"):
        hollow = Written().eval()
    for fresh in (Written().eval(), hollow):
        again = surgery.load(tmp_path / "slim", fresh)
        agree(result.model, again)
        agree(masked, again, torch.randn(3, 3, 6, 10))
        assert again.get_parameter("one.weight") is again.get_parameter("two.weight")


def test_the_plan_goes_through_json_and_is_applied(masked: Written, result: surgery.Result) -> None:
    plan = surgery.Plan.from_json(result.plan.to_json())
    assert plan == result.plan
    slim = plan.apply(masked, X)
    agree(result.model, slim)
    agree(masked, slim, torch.randn(1, 3, 5, 9))
    with pytest.raises(PlanError):
        plan.apply(nn.Linear(3, 4))


def test_chosen_masked_and_applied() -> None:
    dense = lively(Written())
    plan = surgery.choose(dense, X)
    assert plan.graph is not None
    found = surgery.shrink(plan.mask(dense), X)
    assert found.kind == "graph"
    agree(found.model, plan.apply(dense, X))
    kept = surgery.choose(dense, X, keep_class=True)
    assert kept.graph is None
    assert type(kept.apply(dense, X)) is Written


@pytest.mark.parametrize("name", ["slim.onnx", "slim.pt"])
def test_exported(tmp_path: Path, result: surgery.Result, name: str) -> None:
    exported = surgery.export(result.model, tmp_path / name, X)
    assert exported.parity.passed


def test_it_trains(result: surgery.Result) -> None:
    """`train()` switches dropout on and BatchNorm to its batch's statistics; steps lower the loss; `eval()` ends it."""
    model = copy.deepcopy(result.model).train()
    assert model.training
    assert model.get_submodule("drop").training
    with torch.no_grad():
        one, other = model(X)["tokens"], model(X)["tokens"]
    assert not torch.equal(one, other), "dropout"
    assert int(model.get_buffer("norm.num_batches_tracked")) == 2
    assert not torch.equal(model.get_buffer("norm.running_mean"), result.model.get_buffer("norm.running_mean"))
    target = torch.randn(2, 4).sigmoid()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    model.eval()
    losses = []
    for _ in range(5):
        loss = F.mse_loss(model(X)["pooled"], target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        assert torch.equal(model(X)["tokens"], model(X)["tokens"])


def test_statistics_of_a_training_step_are_the_models_own() -> None:
    """Without dropout, masked and slim end up with the same running statistics of what is left."""
    net = written()
    net.drop.p = 0.0
    slim = surgery.shrink(net, X, prove=False).model.train()
    slim.get_submodule("drop").p = 0.0
    net.train()
    keep = [i for i in range(12) if i not in DEAD_BODY]
    with torch.no_grad():
        net(X)
        slim(X)
    torch.testing.assert_close(slim.get_buffer("norm.running_mean"), net.norm.running_mean[keep])
    torch.testing.assert_close(slim.get_buffer("norm.running_var"), net.norm.running_var[keep])


def test_training_flag_and_frozen_weights_survive() -> None:
    net = written().train()
    net.norm.eval()
    net.mid.weight.requires_grad_(False)
    flags = {name: module.training for name, module in net.named_modules() if name}
    found = surgery.shrink(net, X, prove=False)
    assert found.kind == "graph"
    assert {n: m.training for n, m in found.model.named_modules() if n in flags} == flags
    assert not found.model.get_parameter("mid.weight").requires_grad
    assert found.model.get_parameter("out.weight").requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_in_its_own_precision(dtype: torch.dtype) -> None:
    net = written().to(dtype)
    found = surgery.shrink(net, X.to(dtype))
    assert found.kind == "graph"
    assert found.params_before - found.params_after == LOST
    assert found.proof is not None
    assert found.proof.passed
    assert {p.dtype for p in found.model.parameters()} == {dtype}


def test_in_place_the_models_own_tensors_are_cut() -> None:
    net = written()
    reference = written()
    weight = net.qkv.weight
    found = surgery.shrink(net, X, inplace=True)
    assert found.kind == "graph"
    assert found.model.get_parameter("qkv.weight") is weight
    assert weight.shape == (24, 6)
    agree(reference, found.model)


def test_calls_that_the_graph_was_not_captured_for_are_refused(result: surgery.Result) -> None:
    with pytest.raises(TypeError, match="too many positional arguments"):
        result.model(X, X)
    with pytest.raises(InputError, match=r"the captured graph holds where .*; it was given x \[2, 3, 8\]"):
        result.model(X[..., 0])


class Branching(nn.Module):
    """Another way through its code from ten tokens on, and a width that is written down."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        return self.out(y) if n < 10 else self.out(y).relu()


def test_a_graph_that_takes_fewer_lengths_than_the_model_is_not_handed_back() -> None:
    torch.manual_seed(0)
    model = Branching().eval()
    with torch.no_grad():
        model.out.weight[:, :8] = 0
    result = surgery.shrink(model, torch.randn(2, 8, 32))
    assert result.kind == "class"
    for length in (3, 9, 10, 14):
        x = torch.randn(2, length, 32)
        torch.testing.assert_close(result.model(x), model(x))


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        ({"tensor": [10**9, 10**9], "dtype": "float32"}, r"of shape \[1000000000, 1000000000\] and dtype float32"),
        ({"tensor": [-1], "dtype": "float32"}, r"of shape \[-1\]"),
        ({"tensor": "12", "dtype": "float32"}, "of shape 12"),
        ({"tensor": [2], "dtype": "load"}, "dtype load"),
        ({"tensor": [2]}, "dtype None"),
    ],
)
def test_an_example_call_from_outside_cannot_ask_for_anything(
    result: surgery.Result, tensor: dict[str, Any], told: str, tmp_path: Path
) -> None:
    surgery.save(result, tmp_path / "slim")
    path = tmp_path / "slim" / "surgery.json"
    data = json.loads(path.read_text())
    data["plan"]["graph"]["args"] = [tensor]
    path.write_bytes(digested(json.dumps(data).encode()))
    with pytest.raises(InputError, match=f"an example tensor .*{told}.* cannot be made"):
        surgery.load(tmp_path / "slim", Written)


def test_a_graph_that_could_not_be_made_again_is_not_saved(result: surgery.Result, tmp_path: Path) -> None:
    assert result.plan.graph is not None
    unsaid = replace(result.plan, graph=replace(result.plan.graph, args=None, kwargs=None))
    with pytest.raises(InputError, match="its example call holds objects that cannot be stored"):
        surgery.save(replace(result, plan=unsaid), tmp_path / "slim")
    assert list(tmp_path.iterdir()) == []
