"""Averaged copies after the cut: they compute what the masked copy does, and averaging goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import benchmarks.torchvision_cpu  # noqa: F401  (before timm)
import surgery
from surgery.analysis.graph_modules import GraphModel
from surgery.errors import CheckError, InputError, PlanError
from tests.training_nets import NETS, Heads, conv, insisting, mlp, step_, zeros_of

Made = tuple[nn.Module, Tensor]


def averaged(made: Made) -> tuple[nn.Module, AveragedModel, Tensor]:
    """A model and an average that lags behind: it has values where the model has zeros."""
    net, x = made
    held = zeros_of(net)
    dense = copy.deepcopy(net)
    with torch.no_grad():
        for p in dense.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    ema = AveragedModel(dense, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    ema.update_parameters(dense)
    optimizer = SGD(net.parameters(), lr=0.05)
    for _ in range(3):
        step_(net, x, optimizer, held)
        ema.update_parameters(net)
    return net, ema.eval(), x


def emptied(model: nn.Module, net: nn.Module) -> nn.Module:
    """The copy with zeros where the masked model has them."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for p, own in zip(made.parameters(), net.parameters(), strict=True):
            p.masked_fill_(own == 0, 0)
    return made


@pytest.mark.parametrize("made", NETS)
def test_a_slim_average_is_the_masked_average_and_goes_on(made: Callable[[], Made]) -> None:
    net, ema, x = averaged(made())
    masked = emptied(ema, net)
    assert not torch.allclose(masked(x), ema(x))
    held, result = zeros_of(net), surgery.shrink(net, x)
    assert surgery.cut_ema_(ema, result.plan) is ema
    torch.testing.assert_close(ema(x), masked(x), rtol=1e-10, atol=1e-10)
    left, right = SGD(net.parameters(), lr=0.05), SGD(result.model.parameters(), lr=0.05)
    for _ in range(2):
        step_(net, x, left, held)
        step_(result.model, x, right)
        masked.update_parameters(net)
        ema.update_parameters(result.model)
    torch.testing.assert_close(ema(x), masked(x), rtol=1e-10, atol=1e-10)
    assert ema.n_averaged == masked.n_averaged


def test_every_kind_of_copy() -> None:
    from timm.utils import ModelEmaV3

    net, ema, x = averaged(mlp())
    expected = emptied(ema, net)(x)
    timm = ModelEmaV3(net, decay=0.9)
    timm.module.load_state_dict(ema.module.state_dict())
    plan = surgery.shrink(net, x).plan
    plain = copy.deepcopy(ema.module)
    bare = surgery.cut_ema_state(ema.module.state_dict(), plan)
    whole = surgery.cut_ema_state(ema.state_dict(), plan, prefix="module.")
    assert whole["n_averaged"] == 4
    into = surgery.shrink(net, x).model.eval()
    into.load_state_dict(bare)
    surgery.cut_ema_(timm, plan, x)
    assert surgery.cut_ema_(plain, plan, x) is plain
    for slim in (timm.module, plain, into):
        torch.testing.assert_close(slim(x), expected, rtol=1e-10, atol=1e-10)
    surgery.cut_ema_(ema, plan)
    torch.testing.assert_close(whole, dict(ema.state_dict()))
    timm.update(into)


def test_a_copy_in_a_coat() -> None:
    net, ema, x = averaged(mlp())
    plan = surgery.shrink(net, x).plan
    expected = emptied(ema.module, net)(x)
    worn = copy.deepcopy(ema.module)
    prune.identity(worn[2], "weight")
    bare = surgery.cut_ema_state(worn.state_dict(), plan)
    torch.testing.assert_close(bare, dict(surgery.cut_ema_(ema.module, plan).state_dict()))
    torch.testing.assert_close(surgery.cut_ema_(worn, plan)(x), expected, rtol=1e-10, atol=1e-10)


def folding() -> Made:
    """Constants behind a ReLU that a bias takes up (one is made), and a border that one channel has to carry."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 6, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(6, 2, 1),
    ).double()
    with torch.no_grad():
        net[1].running_mean.normal_()
        net[1].bias.uniform_(0.5, 1)
        net[0].weight[::2] = 0
        net[3].weight[:2], net[3].bias[:2] = 0, 0.5
        net[5].weight[:2] = 0.1
        net[7].weight[:, 4] = 0  # and one that nobody reads
    return net.eval(), torch.randn(2, 3, 7, 7, dtype=torch.float64)


def test_constants_of_a_copy_are_its_own() -> None:
    net, ema, x = averaged(folding())
    plan = surgery.shrink(net, x).plan
    assert plan.folds
    assert plan.carries
    before = copy.deepcopy(ema.state_dict())
    with pytest.raises(PlanError, match="give example_inputs: the copy's own constants are folded"):
        surgery.cut_ema_(ema, plan)
    with pytest.raises(PlanError, match=r"cut_ema_\(copy, plan, example_inputs\)"):
        surgery.cut_ema_state(ema.module.state_dict(), plan)
    torch.testing.assert_close(ema.state_dict(), before, rtol=0, atol=0)
    masked = emptied(ema, net)
    assert not torch.allclose(masked(x), ema(x))
    surgery.cut_ema_(ema, plan, x)
    torch.testing.assert_close(ema(x), masked(x), rtol=1e-10, atol=1e-10)
    slim = plan.apply(net)
    assert [p.shape for p in ema.module.parameters()] == [p.shape for p in slim.parameters()]
    ema.update_parameters(slim)


def test_a_copy_that_does_not_lag_needs_no_inputs(caplog: pytest.LogCaptureFixture) -> None:
    net, x = folding()
    result = surgery.shrink(net, x)
    ema = AveragedModel(net).eval()
    expected = ema(x)
    surgery.cut_ema_(ema, result.plan)
    torch.testing.assert_close(ema(x), expected, rtol=1e-10, atol=1e-10)
    assert "the slim average was not proven" in caplog.text


def test_a_constant_that_the_copy_has_and_the_model_has_not() -> None:
    """The model took up none there, and has no bias to do so: the copy's is not read."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6, bias=False), nn.Linear(6, 4)).double()
    net.append(nn.ReLU()).append(nn.Linear(4, 2, bias=False)).double()
    with torch.no_grad():
        net[0].weight[:2], net[0].bias[:2] = 0, 0
        net[3].weight[0], net[3].bias[0] = 0, 1
    x = torch.randn(3, 4, dtype=torch.float64)
    plan = surgery.shrink(net, x).plan
    assert [fold.bias for fold in plan.folds] == ["5.bias"]
    ema = copy.deepcopy(net)
    with torch.no_grad():
        ema[0].bias[:2], ema[3].bias[0] = 0.25, 2
    expected = emptied(ema, net)(x)
    surgery.cut_ema_(ema, plan, x)
    torch.testing.assert_close(ema(x), expected, rtol=1e-10, atol=1e-10)
    assert ema[2].bias is None


def test_a_bias_that_the_model_got_the_copy_gets_too() -> None:
    """The copy has no constants to fold there, but averaging goes parameter by parameter."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2, bias=False)).double()
    with torch.no_grad():
        net[0].weight[0], net[0].bias[0] = 0, 1
    x = torch.randn(3, 4, dtype=torch.float64)
    result = surgery.shrink(net, x)
    ema = copy.deepcopy(net)
    with torch.no_grad():
        ema[0].bias[0] = -1
    expected = ema(x)
    torch.testing.assert_close(surgery.cut_ema_(ema, result.plan, x)(x), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ema[2].bias.detach(), torch.zeros(2, dtype=torch.float64), rtol=0, atol=0)
    assert len(list(ema.parameters())) == len(list(result.model.parameters()))


def test_a_buffer_that_is_one_number_in_many_places_is_not_written_into() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
            self.register_buffer("shift", torch.full((1,), 0.5).expand(6))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x)) + self.shift)

    torch.manual_seed(0)
    net = Shifted()
    with torch.no_grad():
        net.b.weight[:, :3] = 0
    x = torch.randn(3, 4)
    plan = surgery.shrink(net, x).plan
    assert surgery.cut_ema_(copy.deepcopy(net), plan, x).shift.shape == (3,)


def test_heads_whose_values_are_constant() -> None:
    """The second head's values are its bias: what its output columns make of it is folded into the output's bias."""
    torch.manual_seed(0)
    net = Heads()
    with torch.no_grad():
        net.qkv.weight[36:40] = 0
        net.up.weight[::3], net.down.weight[:, 1] = 0, 0
    made = net.double().eval(), torch.randn(2, 5, 16, dtype=torch.float64)
    net, ema, x = averaged(made)
    result = surgery.shrink(net, x)
    assert result.plan.folds
    assert result.model.qkv.weight.shape == (36, 16)
    masked = emptied(ema, net)
    surgery.cut_ema_(ema, result.plan, x)
    torch.testing.assert_close(ema(x), masked(x), rtol=1e-10, atol=1e-10)


def test_scaled_norms() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.RMSNorm(8, eps=1e-6), nn.Linear(8, 3)).double()
    with torch.no_grad():
        net[0].weight[::2], net[0].bias[::2], net[1].weight[::2], net[2].weight[:, ::2] = 0, 0, 0, 0
    net, ema, x = averaged((net, torch.randn(4, 5, dtype=torch.float64)))
    masked = emptied(ema, net)
    plan = surgery.shrink(net, x).plan
    assert plan.scales
    bare = surgery.cut_ema_state(ema.module.state_dict(), plan)
    surgery.cut_ema_(ema, plan, x)
    torch.testing.assert_close(ema(x), masked(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(bare["1.weight"], ema.module[1].weight.detach())


def test_refusals_say_what_is_wrong_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net, ema, x = averaged(mlp())
    plan = surgery.shrink(net, x).plan
    with pytest.raises(PlanError, match=r"the model has no 0\.weight"):
        surgery.cut_ema_(nn.Linear(2, 2), plan)
    with pytest.raises(InputError, match="holds several copies: a and b"):
        surgery.cut_ema_(nn.ModuleDict({"a": net, "b": ema.module}), plan)
    with pytest.raises(InputError, match=r"the state_dict has no '0\.weight'"):
        surgery.cut_ema_state(ema.state_dict(), plan)
    before = copy.deepcopy(ema.state_dict())
    with monkeypatch.context() as patched:
        patched.setattr("surgery.training.averages._everything", lambda plan: ())
        with pytest.raises(CheckError, match="of the averaged copy: the slim model is not the masked one"):
            surgery.cut_ema_(ema, plan, x)
    torch.testing.assert_close(ema.state_dict(), before, rtol=0, atol=0)
    surgery.cut_ema_(ema, plan)
    with pytest.raises(PlanError, match=r"0\.weight is \[6, 6\], the plan was made for \[12, 6\]"):
        surgery.cut_ema_(ema, plan)
    with pytest.raises(PlanError, match=r"0\.weight is \[6, 6\], the plan was made for \[12, 6\]"):
        surgery.cut_ema_state(ema.module.state_dict(), plan)


def test_a_channel_that_cannot_go_from_the_copy_is_named() -> None:
    """What carries the model's constants over the border has none in the copy."""
    net, ema, x = averaged(folding())
    plan = surgery.shrink(net, x).plan
    (carry,) = plan.carries
    with torch.no_grad():
        ema.module[1].bias[carry.onto] = -9
    before = copy.deepcopy(ema.state_dict())
    with pytest.raises(
        PlanError, match=r"0\.weight\[\d\] cannot go from the copy: carrier: its constant stands for all"
    ):
        surgery.cut_ema_(ema, plan, x)
    torch.testing.assert_close(ema.state_dict(), before, rtol=0, atol=0)


def test_a_grouped_convolution_of_a_lagging_copy() -> None:
    net, ema, x = averaged(conv())
    masked, result = emptied(ema, net), surgery.shrink(net, x)
    surgery.cut_ema_(ema, result.plan, x)
    torch.testing.assert_close(ema(x), masked(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_a_captured_graph_takes_the_place_of_the_copy(constant: float) -> None:
    net, x = insisting()
    with torch.no_grad():
        net.a.bias[:3], net.b.weight[:, :3] = constant, constant
    net, ema, x = averaged((net, x))
    result = surgery.shrink(net, x)
    assert result.kind == "graph"
    assert bool(result.plan.folds) == bool(constant)
    masked = emptied(ema, net)
    plain = copy.deepcopy(ema.module)
    assert surgery.cut_ema_(ema, result.plan, x) is ema
    assert isinstance(ema.module, GraphModel)
    torch.testing.assert_close(ema.eval()(x), masked(x), rtol=1e-10, atol=1e-10)
    assert isinstance(surgery.cut_ema_(plain, result.plan, x), GraphModel)
