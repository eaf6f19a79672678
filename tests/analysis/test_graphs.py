from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.analysis import graph_capture
from surgery.analysis.capture import capture, recorded
from surgery.analysis.graph_modules import Part, tell_origins_
from surgery.analysis.graphs import as_graph, freedom_of
from surgery.errors import CaptureError, InputError
from surgery.inputs import Inputs
from tests.analysis.graph_models import MODELS, NAMES, Convolutions, made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 2])
def test_other_batches_and_sizes_than_the_example(name: str, batch: int) -> None:
    model, graph, inputs = made(name, batch)
    model.eval()
    graph.eval()
    for b, n in ((1, 6), (5, 6), (2, 9), (1, 13), (batch, 6)):
        fed = inputs(b, n)
        torch.testing.assert_close(fed.call(graph), fed.call(model))


@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_the_models_own_under_the_same_names(name: str) -> None:
    model, graph, _ = made(name)
    assert list(graph.state_dict()) == list(model.state_dict())
    for kind in ("named_parameters", "named_buffers"):
        own = dict(getattr(model, kind)(remove_duplicate=False))
        ours = dict(getattr(graph, kind)(remove_duplicate=False))
        assert all(ours[key] is tensor for key, tensor in own.items())
        assert all(key.startswith("_graph_constant_") for key in ours.keys() - own.keys())


def test_ties_and_frozen_weights_stay_so() -> None:
    _, graph, _ = made("tied")
    other = copy.deepcopy(graph)
    for one in (graph, other):
        head, embedding = one.get_parameter("head.weight"), one.get_parameter("embedding.weight")
        assert head is embedding
        assert not head.requires_grad


def test_the_model_is_as_before() -> None:
    model = Convolutions().train()
    model.bn.eval()
    state = copy.deepcopy(model.state_dict())
    as_graph(model, Inputs.of(torch.randn(1, 3, 6, 6)))
    assert (model.training, model.bn.training, model.average.momentum) == (True, False, None)
    torch.testing.assert_close(dict(model.state_dict()), dict(state))
    assert "_graph_constant_0" not in dict(model.named_buffers())


@dataclass
class Answer:
    logits: Tensor
    hidden: Any = None


class Answering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 3)

    def forward(self, x: Tensor, other: Mapping[str, Tensor], hidden: bool = False) -> Answer:
        y = self.a(x + other["shift"])
        return Answer(y, [y, None, "word"] if hidden else None)


def test_dataclasses_and_dicts_of_tensors() -> None:
    model, x, shift = Answering().eval(), torch.randn(2, 4), {"shift": torch.randn(2, 4)}
    graph = as_graph(model, Inputs((x,), {"other": shift, "hidden": True}))
    for answer in (graph(x, shift, True), graph(other=shift, x=x, hidden=True)):
        assert type(answer) is Answer
        torch.testing.assert_close(answer.logits, model(x, shift).logits)
        assert answer.hidden[1:] == [None, "word"]


def test_the_signature_is_the_models() -> None:
    model, graph, _ = made("literal")
    assert inspect.signature(graph.forward).parameters == inspect.signature(model.forward).parameters
    assert "double" in inspect.signature(copy.deepcopy(graph).forward).parameters


def test_a_call_of_another_kind_is_refused_in_words() -> None:
    x, shift = torch.randn(2, 4), {"shift": torch.randn(2, 4)}
    graph = as_graph(Answering(), Inputs((x, shift), {}))
    graph(x, shift, hidden=False)
    with pytest.raises(InputError, match="was called with x, other_shift, it was captured with x, other_shift"):
        graph(x, shift, hidden=True)


class Branching(nn.Module):
    """Takes another way above 8, pads what is odd, and does something else with one token."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        x = self.a(x)
        if n > 8:
            x = x * 2
        return x + 1 if n > 1 else x


def test_sizes_at_which_the_code_goes_another_way_are_refused() -> None:
    model = Branching()
    graph = as_graph(model, Inputs.of(torch.randn(2, 5, 4)))
    for shape in ((1, 5, 4), (3, 8, 4), (2, 2, 4)):
        x = torch.randn(shape)
        torch.testing.assert_close(graph(x), model(x))
    with pytest.raises(InputError, match=r"holds where x.shape\[1\] <= 8; it was given x \[2, 9, 4\]"):
        graph(torch.randn(2, 9, 4))
    with pytest.raises(InputError, match=r"holds where x.shape\[1\] > 1; it was given x \[2, 1, 4\]"):
        graph(torch.randn(2, 1, 4))
    with pytest.raises(InputError, match=r"holds where len\(x.shape\) == 3; it was given x \[5, 4\]"):
        graph(torch.randn(5, 4))
    assert graph.captured.fixed == "x: dim 2 is 4"
    assert "dim 2 is 4" in repr(graph)


class Slow(nn.Module):
    """Reasoning about its sizes takes longer than anyone waits."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        time.sleep(0.02)
        return self.b(x)


def test_a_capture_that_takes_too_long_has_only_its_batch_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_capture, "PATIENCE", 0.01)
    model, x = Slow(), torch.randn(3, 5, 4)
    graph = as_graph(model, Inputs.of(torch.randn(2, 5, 4)))
    assert freedom_of(graph).dims == "first"
    assert graph.captured.fixed == "x: dim 1 is 5, dim 2 is 4"
    torch.testing.assert_close(graph(x), model(x))
    with pytest.raises(InputError, match=r"holds where x.shape\[1\] == 5; it was given x \[3, 6, 4\]"):
        graph(torch.randn(3, 6, 4))
    assert freedom_of(as_graph(model, Inputs.of(x), freedom_of(graph))) == freedom_of(graph)


class Unopened:
    def __init__(self, x: Tensor) -> None:
        self.x = x


class Caching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Unopened]:
        return self.a(x), Unopened(x)


def test_an_output_that_cannot_be_opened_is_none_and_said() -> None:
    graph = as_graph(Caching(), Inputs.of(torch.randn(2, 4)))
    assert graph(torch.randn(2, 4))[1] is None
    assert graph.captured.lost == ("Unopened in the output is None: it cannot be taken apart",)


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y[:, :2].add_(1)
        return y


def test_writes_through_a_view() -> None:
    model, x = Writing(), torch.randn(3, 4)
    graph = as_graph(model, Inputs.of(torch.randn(2, 4)))
    torch.testing.assert_close(graph(x), model(x))
    assert "slice_scatter" in graph.captured.code
    assert "stay as in eval()" in graph.captured.lost[0]


class Regions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.a(x)
        return self.b(x)


def test_regions_are_put_in_line() -> None:
    model, x = Regions(), torch.randn(3, 4)
    graph = as_graph(model, Inputs.of(torch.randn(2, 4)))
    torch.testing.assert_close(graph(x), model(x))
    assert "wrap_with" not in graph.captured.code


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_in_float64_and_one_on_the_meta_device(name: str) -> None:
    _, graph, inputs = made(name)
    graph.eval()
    fed = inputs(2, 6)
    wide, far = copy.deepcopy(graph).double(), copy.deepcopy(graph).to("meta")
    answers = torch.utils._pytree.tree_leaves(fed.to(torch.float64).call(wide))
    for answer, old in zip(answers, torch.utils._pytree.tree_leaves(fed.call(graph)), strict=True):
        if isinstance(answer, Tensor):
            torch.testing.assert_close(answer.float(), old)
            assert answer.dtype == torch.float64
    assert all(t.is_meta for t in torch.utils._pytree.tree_leaves(fed.to("meta").call(far)) if isinstance(t, Tensor))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_without_weights_gives_the_same_graph(name: str) -> None:
    _, graph, inputs = made(name)
    with torch.device("meta"):
        hollow = MODELS[name][0]()
    other = as_graph(hollow, inputs(2, 6), freedom_of(graph))
    assert other.captured.code == graph.captured.code
    assert freedom_of(other) == freedom_of(graph)
    assert all(parameter.is_meta for parameter in hollow.parameters())
    assert all(parameter.is_meta for parameter in other.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_it_is_recorded_op_by_op_and_its_ops_know_where_they_come_from(name: str) -> None:
    model, graph, inputs = made(name)
    program = recorded(graph, inputs(2, 6))
    assert program is not None
    tell_origins_(program, graph)
    own = capture(model, inputs(2, 6))
    places = {(str(n.target), own.where(n.name)) for n in own.calls if "linear" in n.name or "conv" in n.name}
    ours = {(str(n.target), program.where(n.name)) for n in program.calls if "linear" in n.name or "conv" in n.name}
    assert ours == places
    assert len(graph.captured.origins) == len([n for n in program.calls if "getitem" not in n.name])


@pytest.mark.parametrize("name", ["attention", "convolutions", "tied"])
def test_torchscript_and_onnx(name: str, tmp_path: Path) -> None:
    _, graph, inputs = made(name)
    graph.eval()
    (argument,) = graph.captured.signature.parameters
    example, shapes = inputs(2, 6).args, {argument: {0: "batch"}}
    for file in ("graph.onnx", "graph.pt"):
        done = surgery.export(graph, tmp_path / file, example, dynamic_shapes=shapes if "onnx" in file else None)
        assert done.parity.passed


def test_parts_cannot_be_called_and_torchs_layers_lose_their_hooks() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)))
    model[0][0].register_forward_hook(lambda module, args, output: output * 2)
    x = torch.randn(2, 4)
    graph = as_graph(model, Inputs.of(x))
    torch.testing.assert_close(graph(x), model(x))
    linear = graph.get_submodule("0.0")
    assert type(linear) is nn.Linear
    assert not linear._forward_hooks
    inner = as_graph(Answering(), Inputs((x, {"shift": x}), {}))
    assert type(inner.get_submodule("a")) is nn.Linear
    part = Part()
    with pytest.raises(CaptureError, match="a part of a captured graph cannot be called alone"):
        part(x)


def test_a_model_that_refuses_its_inputs() -> None:
    with pytest.raises(CaptureError, match="Linear does not accept the example inputs"):
        as_graph(nn.Linear(4, 3), Inputs.of(torch.randn(2, 5)))


class Counting(nn.Module):
    """Writes a buffer in eval mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.a(x) * self.calls


def test_a_buffer_that_forward_writes() -> None:
    model, x = Counting(), torch.randn(3, 4)
    graph = as_graph(model, Inputs.of(torch.randn(2, 4)))
    assert float(model.calls) == 0
    first = graph(x)
    torch.testing.assert_close(graph(x), first * 2)
    assert float(model.calls) == 2
