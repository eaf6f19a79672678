"""What is recorded is what `torch.export` captures, node by node; what cannot be recorded is left to it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor

from surgery.analysis.capture import Program, capture, evaluating, exported
from surgery.analysis.keeping import UnsureError
from surgery.analysis.recording import record
from surgery.inputs import Inputs

X = torch.randn(2, 4, 6, 6)


def torchvision_net(name: str) -> nn.Module:
    from torchvision import models

    from benchmarks import torchvision_cpu  # noqa: F401  # before torchvision

    net: nn.Module = models.get_model(name, weights=None)
    return net


def steps(program: Program) -> list[tuple[str, str, Any]]:
    """Op, arguments by position, shape of every step; asserts about metadata left out (only export writes them)."""
    number: dict[fx.Node, Any] = {}
    found: list[tuple[str, str, Any]] = []
    for node in program.nodes:
        if node.op == "placeholder":
            name = program.parameters.get(node.name) or ("lifted" if node.name in program.lifted else "input")
            number[node] = (name, tuple(node.meta["val"].shape))
        elif "_assert_tensor_metadata" not in str(node.target):
            arguments = repr(fx.map_arg((node.args, dict(node.kwargs)), number.__getitem__))
            if "layer_norm" in str(node.target):  # export writes the default of a flag down, or not
                arguments = arguments.replace(", False)", ")").replace(", True)", ")")
            number[node] = len(found)
            value = node.meta.get("val")
            found.append((str(node.target), arguments, tuple(value.shape) if isinstance(value, Tensor) else None))
    return found


def both(model: nn.Module, *args: Tensor, **kwargs: Tensor) -> tuple[Program, Program]:
    """The recorded program (it must not be export's), and export's."""
    inputs = Inputs.of(args, kwargs)
    with evaluating(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record(model, inputs)
        return capture(model, inputs), exported(model, inputs)


def assert_same(model: nn.Module, *args: Tensor, **kwargs: Tensor) -> None:
    mine, theirs = both(model, *args, **kwargs)
    assert steps(mine) == steps(theirs)
    assert mine.mutated == theirs.mutated
    assert mine.tensors.keys() == theirs.tensors.keys()
    assert mine.unused == theirs.unused
    kept = [[n for n in p.calls if "_assert" not in str(n.target)] for p in (mine, theirs)]
    for a, b in zip(*kept, strict=True):
        assert mine.module_of(a.name) == theirs.module_of(b.name)


class Branchy(nn.Module):
    """In place, views, lists, literals, factories, numbers from shapes, a constant of the module, a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.rnn = nn.LSTM(8, 3, batch_first=True)
        self.register_buffer("shift", torch.arange(8.0))
        self.table = torch.arange(8.0)  # in no registry: a constant of the code

    def forward(self, x: Tensor, *, scale: Tensor) -> Any:
        y = torch.relu_(self.norm(self.conv(x)))
        a, b = y.chunk(2, dim=1)
        y = torch.cat([a * scale, b], 1) + self.shift[:, None, None] + self.table.view(1, 8, 1, 1)
        with torch.no_grad():
            y = y * torch.tensor([2.0]) + torch.zeros(1, device=y.device)
        y = y.flatten(2).transpose(1, 2) * y.shape[-1]
        return {"out": self.rnn(y)[0], "pair": (y.mean(-1), torch.arange(y.shape[1], device=y.device) + y[..., 0])}


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: torchvision_net("resnet18"), id="resnet18"),
        pytest.param(lambda: torchvision_net("shufflenet_v2_x0_5"), id="shufflenet"),
        pytest.param(lambda: torchvision_net("mobilenet_v3_small"), id="mobilenet"),
    ],
)
def test_nets_are_recorded_as_export_captures_them(model: Any) -> None:
    assert_same(model(), torch.randn(1, 3, 64, 64))


def test_code_of_many_kinds_is_recorded_as_export_captures_it() -> None:
    assert_same(Branchy(), X, scale=torch.tensor(2.0))


def test_places_are_the_lines_that_call_the_ops() -> None:
    program = capture(Branchy(), Inputs.of(X, {"scale": torch.tensor(2.0)}))
    first = next(node for node in program.calls if "chunk" in str(node.target))
    line = 1 + next(i for i, text in enumerate(Path(__file__).read_text().splitlines()) if "y.chunk(" in text)
    assert program.where(first.name) == f"test_recording.py:{line}"


def test_attention_and_tied_weights() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    layer.linear2.weight = nn.Parameter(layer.linear1.weight.detach().T.contiguous())
    assert_same(layer, torch.randn(2, 5, 8))
    twins = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    twins[1].weight = twins[0].weight
    assert_same(twins, torch.randn(2, 4))


def test_a_buffer_that_is_written_in_place_is_written_in_the_program_only() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(4))
            self.lin = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(1)
            return self.lin(x) + self.seen

    model = Counting()
    program = capture(model, Inputs.of(torch.randn(2, 4)))
    assert program.mutated == {"seen"}
    assert type(model.seen) is Tensor
    assert bool((model.seen == 0).all())


def test_dataclasses_come_apart() -> None:
    @dataclass
    class Output:
        logits: Tensor

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Output:
            return Output(self.lin(x))

    assert_same(Net(), torch.randn(2, 4))


class Cached(nn.Module):
    """Keeps a tensor of its forward: as an attribute, in a dict, in a list."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.where = where
        self.kept: Any = None
        self.by_size: dict[int, Tensor] = {}
        self.all: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.lin(x)
        mask = torch.ones(y.shape[-1])
        if self.where == "attribute":
            self.kept = mask
        elif self.where == "dict":
            self.by_size[3] = mask
        else:
            self.all.append(mask)
        return y * mask


@pytest.mark.parametrize("where", ["attribute", "dict", "list"])
def test_what_forward_assigns_is_noticed(where: str) -> None:
    model = Cached(where).eval()
    with pytest.raises(UnsureError, match="forward assigns to attributes"):
        record(model, Inputs.of(torch.randn(2, 4)))
    assert model.kept is None
    held = [*model.by_size.values(), *model.all]
    assert not any(isinstance(tensor, FakeTensor) for tensor in held), "a fake tensor stayed behind in the user's model"


class Asking(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        y = self.lin(x)
        if self.kind == "item":
            return y * y.sum().item()
        if self.kind == "branch":
            return y if self.lin.weight[0, 0] > 0 else -y
        if self.kind == "nonzero":
            return y[y[:, 0] > 0]
        if self.kind == "cond":
            return torch.cond(y.sum() > 0, lambda v: v + 1, lambda v: v - 1, (y,))
        if self.kind == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.lin(x)
        return object()


@pytest.mark.parametrize("kind", ["item", "branch", "nonzero", "cond", "autocast", "object"])
def test_whatever_is_not_straight_is_left_to_export(kind: str) -> None:
    with pytest.raises((UnsureError, RuntimeError, NotImplementedError, AssertionError)):
        record(Asking(kind).eval(), Inputs.of(torch.randn(2, 4)))
    assert torch.is_grad_enabled()


def test_nothing_of_the_models_changes() -> None:
    model = Branchy().eval()
    before = {name: (id(tensor), tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    record(model, Inputs.of(X, {"scale": torch.tensor(2.0)}))
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert id(tensor) == before[name][0]
        assert torch.equal(tensor, before[name][1])
        assert tensor.grad is None
