"""The ladder as a whole: never worse, exact to cut, and what it says where it can do nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.compensating import compensate
from surgery.compensating.moments import Moments, best
from surgery.errors import InputError
from tests.nets import lively
from tests.quantizing.nets import Convnet, Transformer, pictures, tokens


class Attention(nn.Module):
    """Heads with their own scale, in a residual stream under a LayerNorm, then neurons: `[b, t, 16]`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.norm = nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        q, k, v = (layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        heads = nn.functional.scaled_dot_product_attention(q, k, v, attention_mask[:, None, None] != 0)
        hidden = self.norm(x + self.out(heads.transpose(1, 2).flatten(2)))
        return hidden + self.down(torch.nn.functional.gelu(self.up(hidden)))


def texts(count: int, seed: int = 0, padding: int = 0) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        ids = torch.randint(0, 50, (8, 10), generator=generator)
        mask = torch.ones(8, 10, dtype=torch.int64)
        mask[:, 10 - padding :] = 0
        found.append({"input_ids": ids, "attention_mask": mask, "labels": torch.zeros(8)})
    return found


def errors(found: Any) -> list[float]:
    return [rung.error for rung in found.ladder if rung.taken]


def test_heads_and_neurons_of_a_transformer() -> None:
    model = lively(Attention())
    example = {name: value for name, value in texts(1)[0].items() if name != "labels"}
    plan = surgery.choose(model, (), example)
    found = compensate(model, plan, (), example, data=texts(16))
    assert found.ladder[2].name == "lstsq"
    assert found.ladder[2].layers == 2, "the projection behind the heads, and the one behind the neurons"
    assert errors(found) == sorted(errors(found), reverse=True)
    assert errors(found)[-1] < 0.8 * errors(found)[0]
    assert "'labels' of the data's items was not used" in found.notes
    slim = surgery.shrink(found.model, (), example)
    assert slim.plan.removed_channels == plan.removed_channels
    assert slim.proof is not None
    assert slim.proof.passed


def test_padding_does_not_count() -> None:
    """What stands in the padding changes neither what is learnt nor the error."""
    model = lively(Attention())
    data = texts(4, padding=3)
    example = {name: value for name, value in data[0].items() if name != "labels"}
    plan = surgery.choose(model, (), example)
    found = []
    for token in (1, 7):
        filled = [
            item | {"input_ids": item["input_ids"].masked_fill(item["attention_mask"] == 0, token)} for item in data
        ]
        found.append(compensate(model, plan, (), example, data=filled))
    first, second = (one.model.get_parameter("down.weight") for one in found)
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)
    assert found[0].error == pytest.approx(found[1].error, rel=1e-3)


def test_a_fused_layer_that_torch_runs_whole_is_heard_too() -> None:
    torch.manual_seed(0)
    model = Transformer().eval()
    plan = surgery.choose(model, (), tokens())
    found = compensate(model, plan, (), tokens(), data=[tokens(8, seed) for seed in range(16)])
    assert found.ladder[2].layers == 2
    assert torch.backends.mha.get_fastpath_enabled()


def test_every_rung_that_is_kept_is_better_and_the_slim_model_is_exact() -> None:
    model = lively(Convnet())
    data = pictures(80)
    plan = surgery.choose(model, data[:2])
    seen: list[bool] = []
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def evaluate(net: nn.Module) -> float:
        seen.append(net.training)
        return float(net(data).sum())

    found = compensate(model.train(), plan, data[:2], data=data, evaluate=evaluate)
    assert seen == [False] * 5
    assert found.model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert errors(found) == sorted(errors(found), reverse=True)
    assert errors(found)[-1] < errors(found)[0]
    slim = found.plan.apply(found.model, data[:2]).eval()
    torch.testing.assert_close(slim(data), found.model.eval()(data), rtol=1e-4, atol=1e-4)
    assert "least squares" in str(found)
    assert found.as_dict()["ladder"][0]["name"] == "fold"


def test_least_squares_that_do_not_hold_on_other_rows_are_refused() -> None:
    x = torch.randn(50, 1, 4)
    fit, held = Moments(), Moments()
    fit.add(x, x @ torch.ones(4, 2))
    held.add(x, -x @ torch.ones(4, 2))
    assert best(fit, held, with_bias=True) is None
    assert best(fit, fit, with_bias=True) is not None


def test_the_error_of_a_correction_is_that_of_the_rows() -> None:
    x, r = torch.randn(30, 2, 4), torch.randn(30, 2, 3)
    moments = Moments()
    for rows in (slice(0, 11), slice(11, 30)):
        moments.add(x[rows], r[rows])
    weight, bias = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    left = r - torch.einsum("ngm,gom->ngo", x.double(), weight) - bias
    assert moments.error(weight, bias) == pytest.approx(float(left.square().sum()))
    solved = moments.solve(1e-10, with_bias=True)
    assert solved is not None
    with_ones = torch.cat([x.double(), torch.ones(30, 2, 1, dtype=torch.float64)], 2)
    exact = torch.linalg.lstsq(with_ones.transpose(0, 1), r.double().transpose(0, 1)).solution.mT
    torch.testing.assert_close(solved[0], exact[..., :4], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(solved[1], exact[..., 4], rtol=1e-6, atol=1e-7)


def test_a_rung_that_makes_it_worse_is_taken_back() -> None:
    """BatchNorm statistics of data that is unlike the held-out data."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    normal = [pictures(8, seed) for seed in range(4)]
    plan = surgery.choose(model, normal[0])
    data = [*(5 + 3 * batch for batch in normal[:3]), normal[3]]
    found = compensate(model, plan, normal[0], data=data, rungs=("batchnorm",))
    assert not found.ladder[-1].taken
    assert "taken back" in found.ladder[-1].notes[-1]
    assert torch.equal(found.model[1].running_mean, model[1].running_mean)
    assert found.error == found.ladder[0].error


class Tied(nn.Module):
    """A table that is read as a table, and as the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 12)
        self.middle = nn.Linear(12, 12)
        self.head = nn.Linear(12, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.relu(self.middle(self.table(ids))))


class Twice(nn.Module):
    """One layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 16), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = self.down(torch.relu(self.up(x)))
        return x


def test_a_weight_that_is_read_in_other_ways_is_left_alone() -> None:
    model, ids = lively(Tied()), torch.randint(0, 20, (64, 5))
    plan = surgery.choose(model, ids[:2])
    found = compensate(model, plan, ids[:2], data=ids)
    notes = [note for rung in found.ladder for note in rung.notes]
    assert any("head" in note and "read in other ways" in note for note in notes)
    assert errors(found)[-1] <= errors(found)[0]
    assert surgery.shrink(found.model, ids[:2]).plan.removed_channels == plan.removed_channels


def test_a_layer_that_is_called_twice_is_solved_for_both_calls() -> None:
    model, x = lively(Twice()), torch.randn(256, 6)
    plan = surgery.choose(model, x[:2])
    found = compensate(model, plan, x[:2], data=x, rungs=("lstsq",))
    assert found.ladder[1].layers == 1
    assert errors(found)[-1] < errors(found)[0]


def test_without_data_there_is_the_exact_fold() -> None:
    model, x = lively(Twice()), torch.randn(4, 6)
    plan = surgery.choose(model, x)
    found = compensate(model, plan, x, evaluate=lambda net: float(net(x).sum()))
    assert [rung.name for rung in found.ladder] == ["fold"]
    assert found.error is None
    assert found.ladder[0].evaluated is not None
    assert "no data" in str(found)
    assert torch.equal(found.model(x), plan.mask(model)(x))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rungs": ("finetune",)}, "unknown rung 'finetune'"),
        ({"rungs": "bias"}, "unknown rung 'bias'"),
        ({"evaluate": lambda net: float("nan")}, "evaluate returned NaN for the dense model"),
        ({"evaluate": lambda net: "good"}, "evaluate returned a str"),
        ({"evaluate": lambda net: 1 / 0}, "evaluate raised ZeroDivisionError: division by zero on the dense model"),
        ({"samples": 0}, "samples is 0"),
        ({"samples": 1.5}, "samples is 1.5"),
        ({"samples": "all"}, "samples is 'all'"),
    ],
)
def test_what_cannot_be_used_is_refused(settings: dict[str, Any], told: str) -> None:
    model, x = lively(Twice()), torch.randn(8, 6)
    plan = surgery.choose(model, x)
    with pytest.raises(InputError) as raised:
        compensate(model, plan, x, **{"data": x, **settings})
    assert told in raised.value.fact


class Beside(nn.Module):
    """Two layers side by side, whose answers are added to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(6, 16)
        self.c, self.d = nn.Linear(16, 5), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.a(x))) + self.d(torch.relu(self.b(x)))


def test_layers_side_by_side_do_not_make_up_for_each_other_twice() -> None:
    model, x = lively(Beside()), torch.randn(512, 6)
    plan = surgery.choose(model, x[:2])
    found = compensate(model, plan, x[:2], data=x, rungs=("bias",))
    removed = [~torch.isin(torch.arange(16), torch.tensor(plan.axis(f"{name}.weight", 1).keep)) for name in "cd"]
    fit = x[torch.arange(512) % 4 != 3]
    with torch.no_grad():
        for first, second, gone in ((model.a, model.c, removed[0]), (model.b, model.d, removed[1])):
            mean = torch.relu(first(fit))[:, gone].mean(0) - torch.relu(first.bias[gone])
            expected = second.bias + second.weight[:, gone] @ mean
            name = "c" if second is model.c else "d"
            torch.testing.assert_close(found.model.get_parameter(f"{name}.bias"), expected, rtol=1e-4, atol=1e-4)


class Stream(nn.Module):
    """A residual stream: what the first block cannot answer any more, the second can make up for."""

    def __init__(self) -> None:
        super().__init__()
        self.up1, self.down1, self.up2, self.down2 = (nn.Linear(*size) for size in ((6, 16), (16, 6)) * 2)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.down1(torch.relu(self.up1(x))))
        return x + self.drop(self.down2(torch.relu(self.up2(x))))


def test_the_target_of_a_residual_layer_is_the_stream() -> None:
    """What is missing in the sum has nothing to do any more with what the last layer reads."""
    model, x = lively(Stream()), torch.randn(4000, 6)
    plan = surgery.choose(model, x[:2])
    found = compensate(model, plan, x[:2], data=list(x.split(1000)), rungs=("lstsq",), samples=4000)
    seen: list[Tensor] = []
    found.model.down2.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        missing = model(x[:3000]) - found.model(x[:3000])
    kept = seen[0][:, list(plan.axis("down2.weight", 1).keep)]
    assert missing.square().mean() > 1e-2
    related = (missing - missing.mean(0)).T @ (kept - kept.mean(0)) / 3000
    assert related.abs().max() < 1e-3


def test_a_bias_that_was_made_is_cut_with_the_rows_of_its_weight() -> None:
    sizes = ((6, 16), (16, 16), (16, 4))
    model = lively(nn.Sequential(*(part for size in sizes for part in (nn.Linear(*size, bias=False), nn.ReLU()))))
    x = torch.randn(64, 6)
    plan = surgery.choose(model, x[:2])
    found = compensate(model, plan, x[:2], data=x)
    assert any("biases were made" in note for rung in found.ladder for note in rung.notes)
    slim = found.plan.apply(found.model, x[:2])
    assert slim[2].bias.shape == (8,)
    torch.testing.assert_close(slim(x), found.model(x), rtol=1e-4, atol=1e-4)
    assert surgery.Plan.from_json(found.plan.to_json()) == found.plan
