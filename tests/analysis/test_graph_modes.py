from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from surgery.analysis.graphs import as_graph
from surgery.inputs import Inputs
from tests.analysis.graph_models import NAMES, Convolutions, made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [False, True])
def test_a_graph_computes_what_the_model_does_in_both_modes(name: str, training: bool) -> None:
    model, graph, inputs = made(name)
    fed, state = inputs(3, 6), copy.deepcopy(model.state_dict())
    model.train(training)
    graph.train(training)
    torch.manual_seed(1)
    expected = fed.call(model)
    after = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    torch.manual_seed(1)
    torch.testing.assert_close(fed.call(graph), expected)
    torch.testing.assert_close(dict(graph.state_dict()), dict(after))
    assert graph.captured.lost == ()


def test_dropout_is_live_in_training_only() -> None:
    _, graph, inputs = made("attention")
    fed = inputs(2, 6)
    torch.testing.assert_close(fed.call(graph.eval()), fed.call(graph))
    assert not torch.equal(fed.call(graph.train()), fed.call(graph))


def test_a_batch_norm_that_stays_in_eval_is_left_alone() -> None:
    _, graph, inputs = made("convolutions")
    graph.train()
    graph.get_submodule("bn").eval()
    inputs(4, 6).call(graph)
    assert int(graph.state_dict()["bn.num_batches_tracked"]) == 0
    assert int(graph.state_dict()["average.num_batches_tracked"]) == 1


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.a(x))
        return x + torch.randn_like(x) if self.training else x


def test_what_only_training_does_is_said() -> None:
    graph = as_graph(Noisy(), Inputs.of(torch.randn(2, 4)))
    assert graph.captured.lost == (
        "the model calls aten.randn_like.default in train mode only",
        "the model calls aten.add.Tensor in train mode only",
    )
    x = torch.randn(2, 4)
    assert not torch.equal(graph.train()(x), graph(x))


def test_training_flags_are_the_models() -> None:
    model = Convolutions().train()
    model.bn.eval()
    graph = as_graph(model, Inputs.of(torch.randn(2, 3, 6, 6)))
    assert (graph.training, graph.get_submodule("bn").training) == (True, False)


def test_a_step_of_training_lowers_the_loss() -> None:
    _, graph, inputs = made("attention")
    graph.eval()
    fed, optimizer = inputs(2, 6), torch.optim.SGD(graph.parameters(), 0.01)
    before = fed.call(graph).square().mean()
    before.backward()
    assert all(parameter.grad is not None for parameter in graph.parameters())
    optimizer.step()
    assert fed.call(graph).square().mean() < before
