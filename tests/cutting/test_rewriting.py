from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import surgery
from surgery.analysis.capture import capture
from surgery.analysis.couple import couple
from surgery.analysis.graph_modules import GraphModel, tell_origins_
from surgery.analysis.graphs import as_graph
from surgery.cutting.cut import cut_
from surgery.cutting.recheck import compare
from surgery.cutting.rewriting import is_literal, literal_edits, set_literal_
from surgery.deciding.build import build
from surgery.deciding.dead import decide
from surgery.deciding.parts import Edit
from surgery.deciding.study import Study
from surgery.errors import PlanError
from surgery.inputs import Inputs
from surgery.plans import Plan

Dead = Mapping[str, slice | list[int]]


def zeroed(model: nn.Module, dead: Dead) -> nn.Module:
    """The model in eval mode with rows of its tensors set to zero."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, rows in dead.items():
            tensors[name][rows] = 0
    return model.eval()


def cut(model: nn.Module, x: Tensor) -> tuple[GraphModel, GraphModel, tuple[Edit, ...]]:
    """A model's graph, the same without what is dead, and the numbers that were set; both agree at other sizes."""
    inputs = Inputs.of(x)
    graph = as_graph(model, inputs)
    program = capture(graph, inputs)
    tell_origins_(program, graph)
    study = Study(graph, inputs, program, couple(program))
    decision = decide(study.case)
    cuts = build(Plan, program, study.coupling, study.known, study.readings, decision)
    assert not cuts.empty
    edits = literal_edits(graph, program, study.coupling, decision.alive)
    slim = cut_(copy.deepcopy(graph), cuts)
    assert isinstance(slim, GraphModel)
    for edit in edits:
        assert is_literal(edit)
        set_literal_(slim, edit)
    after = capture(slim, inputs)
    tell_origins_(after, slim)
    assert compare(program, study.coupling, decision.alive, cuts, after) is None
    for batch in (1, 2, 5):
        y = torch.randn(batch, *x.shape[1:])
        torch.testing.assert_close(graph(y), model(y))
        torch.testing.assert_close(slim(y), model(y), rtol=1e-4, atol=1e-6)
    return graph, slim, edits


class Net(nn.Module):
    """A linear layer to 12 channels of 3 x 3, something with them, and one to 2."""

    def __init__(self, body: Callable[[Tensor], Tensor], inner: nn.Module | None = None, width: int = 12) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(5, 12 * 9)
        self.inner = inner
        self.body = body
        self.b = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).view(x.shape[0], 12, 3, 3)
        if self.inner is not None:
            y = self.inner(y)
        return self.b(self.body(y))


def channels(*gone: int) -> Dead:
    rows = [channel * 9 + place for channel in gone for place in range(9)]
    return {"a.weight": rows, "a.bias": rows}


Number = tuple[str, int | None, int, int]

BODIES: Mapping[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], tuple[Number, ...]]] = {
    "view": (lambda y: y.relu(), (1, 2, 7), ()),
    "merged batch": (
        lambda y: y.reshape(y.shape[0] * 12, 9).view(-1, 12, 3, 3),
        (1, 2, 7),
        (("mul_1.1", None, 12, 9), ("view_1.size", 1, 12, 9)),
    ),
    "unflatten": (
        lambda y: y.flatten(1).unflatten(1, (12, 3, 3)),
        (0, 11),
        (("unflatten.sizes", 0, 12, 10),),
    ),
    "slices": (
        lambda y: torch.cat([y[:, :4], y[:, 4:-3], y[:, -3:]], 1),
        (0, 1, 5, 11),
        (
            ("slice_2.end", None, 4, 2),
            ("slice_4.start", None, 4, 2),
            ("slice_4.end", None, -3, -2),
            ("slice_6.start", None, -3, -2),
        ),
    ),
    "narrow": (
        lambda y: torch.cat([y.narrow(1, 0, 5), y.narrow(1, 5, 7)], 1),
        (0, 1, 6),
        (("narrow.length", None, 5, 3), ("narrow_1.start", None, 5, 3), ("narrow_1.length", None, 7, 6)),
    ),
    "split": (lambda y: torch.cat(y.split(4, 1), 1), (0, 4, 8), (("split.split_size", None, 4, 3),)),
    "pieces": (
        lambda y: torch.cat(y.split([3, 9], 1)[::-1], 1),
        (0, 1, 5),
        (("split_with_sizes.split_sizes", 0, 3, 1), ("split_with_sizes.split_sizes", 1, 9, 8)),
    ),
    "expanded": (
        lambda y: y * y.mean((0, 2, 3), keepdim=True).expand(-1, 12, 3, 3),
        (2, 3),
        (("expand.size", 1, 12, 10),),
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_numbers_that_ops_were_given(name: str) -> None:
    body, gone, expected = BODIES[name]
    _, slim, edits = cut(zeroed(Net(body), channels(*gone)), torch.randn(3, 5))
    first = Edit("", "view.size", 12, 12 - len(gone), 1)
    assert edits[0] == first
    assert tuple((e.attribute, e.index, e.old, e.new) for e in edits[1:]) == expected
    assert slim.get_parameter("b.weight").shape[1] == 12 - len(gone)


def test_conv_groups_of_a_depthwise_convolution() -> None:
    net = Net(lambda y: y, nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False))
    _, slim, edits = cut(zeroed(net, channels(3, 4)), torch.randn(3, 5))
    assert Edit("", "conv2d.groups", 12, 10) in edits
    assert slim.get_parameter("inner.weight").shape[0] == 10


class Shortcut(nn.Module):
    """Channels padded with zeros on both sides."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.c, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 9, 1), nn.Conv2d(9, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.pad(self.a(x), (0, 0, 0, 0, 2, 3)) + self.c(x))


def test_amounts_of_a_pad_along_channels() -> None:
    dead: Dead = {"a.weight": [1], "a.bias": [1], "c.weight": [0, 3, 7, 8], "c.bias": [0, 3, 7, 8]}
    _, slim, edits = cut(zeroed(Shortcut(), dead), torch.randn(2, 3, 4, 4))
    assert {(e.attribute, e.index, e.old, e.new) for e in edits} == {("pad.pad", 4, 2, 1), ("pad.pad", 5, 3, 1)}
    assert slim.get_parameter("b.weight").shape[1] == 5


class Unbiased(nn.Module):
    """A dead channel with a constant, and a consumer without a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu().view(-1, 8))


def test_a_fold_makes_the_bias_that_a_graph_reads() -> None:
    graph, slim, _ = cut(zeroed(Unbiased(), {"a.weight": [2, 5]}), torch.randn(3, 5))
    assert "b.bias" not in graph.state_dict()
    assert slim.get_parameter("b.bias").shape == (3,)
    assert slim.get_parameter("a.weight").shape == (6, 5)


def test_a_copy_has_numbers_of_its_own() -> None:
    graph = as_graph(Unbiased(), Inputs.of(torch.randn(3, 5)))
    other = copy.deepcopy(graph)
    set_literal_(other, Edit("", "view.size", 8, 4, 1))
    x = torch.randn(2, 5)
    assert graph(x).shape == (2, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        other(x)
    set_literal_(other, Edit("", "view.size", 8, 4, 1))  # a second time changes nothing
    assert "[-1, 4]" in other.captured.code


class Attending(nn.Module):
    """Attention whose head width is a number in a view, and whose scale follows the width."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k = nn.Linear(5, 8, bias=False), nn.Linear(5, 8, bias=False)
        self.v, self.out = nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(x.shape[0], -1, 2, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 8))


def test_a_setting_that_was_not_given() -> None:
    x = torch.randn(2, 3, 5)
    graph = as_graph(Attending(), Inputs.of(x))
    before = graph(x)
    set_literal_(graph, Edit("", "scaled_dot_product_attention.scale", None, 4**-0.5))
    torch.testing.assert_close(graph(x), before)
    assert "scale = 0.5" in graph.captured.code


def test_positions_inside_heads() -> None:
    dead: Dead = {f"0.{layer}.weight": [1, 6] for layer in "qk"}
    _, slim, edits = cut(zeroed(nn.Sequential(Attending()), dead), torch.randn(2, 3, 5))
    assert Edit("", "view.size", 4, 3, 3) in edits
    assert slim.get_parameter("0.q.weight").shape == (6, 5)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("", "view_9.size", 8, 4, 1), "the graph has no op view_9"),
        (Edit("", "view.size", 9, 4, 1), "view.size of the graph is 8, the plan expects 9"),
    ],
)
def test_edits_of_another_graph_are_refused(edit: Edit, message: str) -> None:
    graph = as_graph(Unbiased(), Inputs.of(torch.randn(3, 5)))
    with pytest.raises(PlanError, match=message):
        set_literal_(graph, edit)


def test_a_model_with_code_of_its_own_is_refused() -> None:
    with pytest.raises(PlanError, match=r"sets view\.size of a captured graph, the model is a Unbiased"):
        set_literal_(Unbiased(), Edit("", "view.size", 8, 4, 1))


class Interleaved(nn.Module):
    """Gate and value lie side by side; the width is checked, so that it takes the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.out = nn.Linear(16, 24), nn.Linear(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        if h.shape[2] != 24:
            raise ValueError("twelve gates and twelve values")
        return self.out(h[..., ::2] * torch.sigmoid(h[..., ::2]) * (h[..., 1::2] + 1))


@pytest.mark.parametrize("gone", [[0], [0, 1], [3, 11]])
def test_every_other_position_starts_where_it_did(gone: list[int]) -> None:
    torch.manual_seed(0)
    model = Interleaved().eval()
    with torch.no_grad():
        model.out.weight[:, gone] = 0
    x = torch.randn(2, 8, 16)
    result = surgery.shrink(model, x, prove=False)
    assert result.kind == "graph"
    assert result.model.get_parameter("up.weight").shape[0] == 24 - 2 * len(gone)
    torch.testing.assert_close(result.model(x), model(x))
    assert surgery.shrink(model, x).proof.passed  # type: ignore[union-attr]
