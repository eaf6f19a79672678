"""A residual stream under root mean square norms loses its zero dims: gain · √(n/n′), eps · n/n′ make up for it.

The stream is 12 wide: an embedding of 6 + 1 writes it, two blocks (norm, 12 -> 20 -> 12) add to it, a last norm and a
head of 4 read it. A dim takes 7 of the embedding, 2 · (1 + 20) + 2 · 21 of the blocks and 1 + 4 at the end with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from tests.exactness import parameters, shrunk
from tests.nets import lively

X = torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(3))
LONGER = ((1, 0), (3, 0), (2, 5))
EPS = 1e-2
"""Large, for a wrong one to show."""

DEAD = (1, 4, 5)
A_DIM = 7 + 2 * (1 + 20) + 2 * 21 + 1 + 4


class LlamaNorm(nn.Module):
    """Llama, T5: in float32, then the gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(width)), EPS

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x.to(dtype)


class GemmaNorm(nn.Module):
    """Gemma: the gain is `1 + weight`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(width)), EPS

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return (y * (1.0 + self.weight.float())).type_as(x)


class ByHand(nn.Module):
    """A square, no casts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain, self.eps = nn.Parameter(torch.ones(width)), EPS

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.gain


class Literal(ByHand):
    """No attribute holds its eps."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.02) * self.gain


class Divided(ByHand):
    """By the norm, with a scale that is the root of the width as it was."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.scale = math.sqrt(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * self.scale * self.gain


class Block(nn.Module):
    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm = norm(12)
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 12)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Stream(nn.Module):
    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 12)
        self.a, self.b = Block(norm), Block(norm)
        self.last = norm(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.b(self.a(self.embed(x.transpose(1, 2))))))


def stream(norm: Callable[[int], nn.Module], dead: tuple[int, ...] = DEAD) -> Stream:
    """A lively stream of which some dims are zero wherever they are written."""
    net = lively(Stream(norm))
    assert isinstance(net, Stream)
    with torch.no_grad():
        for writer in (net.embed, net.a.down, net.b.down):
            writer.weight[list(dead)] = 0
            writer.bias[list(dead)] = 0
    return net


EXACT: dict[str, Callable[[int], nn.Module]] = {
    "RMSNorm": lambda width: nn.RMSNorm(width, eps=EPS),
    "RMSNorm, eps of the dtype": nn.RMSNorm,
    "Llama": LlamaNorm,
    "Gemma": GemmaNorm,
    "by hand": ByHand,
}


@pytest.mark.parametrize("norm", EXACT.values(), ids=EXACT)
def test_trap_1_zero_dims_go(norm: Callable[[int], nn.Module]) -> None:
    """Proven in float64 (casts inside lifted), and in float32 against the model as it is, at any length."""
    net = stream(norm)
    result = surgery.shrink(net, X)
    assert result.kind == "class"
    assert not result.notes
    assert result.proof is not None
    assert result.proof.max_rel_error_float64 is not None
    assert result.proof.max_rel_error_float64 <= 1e-9
    assert result.params_before - result.params_after == len(DEAD) * A_DIM
    for batch, tokens in ((1, 7), (3, 12)):
        x = torch.randn(batch, 6, tokens) * 0.3  # small values: eps counts
        with torch.no_grad():
            torch.testing.assert_close(result.model(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["RMSNorm", "by hand"])
def test_trap_1_judged_by_another_proof(name: str) -> None:
    result = shrunk(stream(EXACT[name]), X, shapes=LONGER)
    assert result.params_before - result.params_after == len(DEAD) * A_DIM


def test_trap_1_gain_and_eps() -> None:
    """By the numbers: n = 12, n′ = 9."""
    keep = [i for i in range(12) if i not in DEAD]
    net = stream(EXACT["RMSNorm"])
    slim = surgery.shrink(net, X).model
    torch.testing.assert_close(slim.a.norm.weight, net.a.norm.weight[keep] * math.sqrt(12 / 9))
    assert slim.a.norm.eps == pytest.approx(EPS * 12 / 9)
    assert slim.a.norm.normalized_shape == (9,)
    net = stream(GemmaNorm)
    slim = surgery.shrink(net, X).model
    torch.testing.assert_close(slim.last.weight, (1 + net.last.weight[keep]) * math.sqrt(12 / 9) - 1)
    assert slim.last.eps == pytest.approx(EPS * 12 / 9)
    assert net.last.eps == EPS
    slim = surgery.shrink(stream(nn.RMSNorm), X).model
    assert slim.last.eps == pytest.approx(torch.finfo(torch.float32).eps * 12 / 9)


def test_trap_1_eps_of_the_dtype_that_the_model_runs_in() -> None:
    net = stream(nn.RMSNorm).bfloat16()
    result = surgery.shrink(net, X.bfloat16())
    assert result.params_before - result.params_after == len(DEAD) * A_DIM
    assert result.model.last.eps == pytest.approx(torch.finfo(torch.bfloat16).eps * 12 / 9)


def test_dims_that_a_width_keeps_count() -> None:
    """Of 5 dead dims 4 go where widths are multiples of 4: n′ = 8, one of them zero."""
    net = stream(EXACT["RMSNorm"], (0, 2, 3, 7, 11))
    result = shrunk(net, X, shapes=LONGER, round_to=4)
    assert result.model.last.weight.numel() == 8
    assert result.model.last.eps == pytest.approx(EPS * 12 / 8)


def test_chosen_dims_go_as_planned() -> None:
    """As in a Llama, nothing that writes the stream has a bias: a mask leaves biases as they are."""
    dense = stream(EXACT["RMSNorm"], ())
    with torch.no_grad():
        for writer in (dense.embed, dense.a.down, dense.b.down):
            writer.bias.zero_()
    plan = surgery.choose(dense, X)
    result = shrunk(plan.mask(dense), X, shapes=LONGER)
    assert result.model.last.weight.numel() == 6
    slim = plan.apply(dense, X)
    for name, tensor in result.model.state_dict().items():
        torch.testing.assert_close(slim.state_dict()[name], tensor)


def test_a_dim_that_is_a_constant_but_not_zero_stays() -> None:
    net = stream(EXACT["RMSNorm"])
    with torch.no_grad():
        net.b.down.bias[1] = 0.5
    result = shrunk(net, X, shapes=LONGER)
    assert result.params_before - result.params_after == 2 * A_DIM
    assert "embed.weight[1] (dim 0) stays" in result.plan.explain("embed.weight", 1)


PINNED: dict[str, tuple[Callable[[int], nn.Module], str]] = {
    "LayerNorm": (nn.LayerNorm, "pinned: layer_norm averages over this axis (a.norm)"),
    "no gain": (lambda n: nn.RMSNorm(n, EPS, elementwise_affine=False), "pinned: rms_norm averages over this axis"),
    "literal eps": (Literal, "pinned: mean runs over this axis (a.norm, test_norm_width.py:"),
    "normalised": (Divided, "pinned: linalg_vector_norm runs over this axis (a.norm, test_norm_width.py:"),
    "GroupNorm": (lambda n: nn.Sequential(Swapped(nn.GroupNorm(3, n))), "pinned: group_norm"),
}


class Swapped(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize(("norm", "reason"), PINNED.values(), ids=PINNED)
def test_trap_1_other_norms_pin_with_the_reason(norm: Callable[[int], nn.Module], reason: str) -> None:
    result = shrunk(stream(norm), X, shapes=LONGER)
    assert result.plan.empty
    assert reason in result.plan.explain("embed.weight", 1)


class Tied(Stream):
    """The last norm's gain is read by another op, too."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.b(self.a(self.embed(x.transpose(1, 2)))))
        return self.head(y * self.last.weight)


def test_trap_10_a_gain_that_something_else_reads_is_not_scaled() -> None:
    net = stream(EXACT["RMSNorm"])
    tied = Tied(EXACT["RMSNorm"])
    tied.load_state_dict(net.state_dict())
    result = shrunk(tied.eval(), X, shapes=LONGER)
    assert parameters(result.model) == parameters(net)


def test_trap_10_two_norms_of_one_gain() -> None:
    """Both become narrower by the same factor: it is written once."""
    net = stream(EXACT["RMSNorm"])
    net.b.norm.weight = net.a.norm.weight
    result = shrunk(net, X, shapes=LONGER)
    assert result.model.a.norm.weight is result.model.b.norm.weight
    assert result.params_before - result.params_after in (0, len(DEAD) * (A_DIM - 1))
