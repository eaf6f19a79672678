"""Recurrent layers, end to end: hidden units go with all their gates, from both axes of the recurrence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.exactness import shrunk
from tests.nets import lively
from tests.towers import dying

X = torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(3))
SHAPES = ((1, 0), (3, 0), (2, 5))
DEAD = [1, 4]
GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}
KINDS = pytest.mark.parametrize("kind", GATES)


class Recurrent(nn.Module):
    """6 -> 8 -> 6 hidden units -> 4, over tokens `[b, c, t]`."""

    def __init__(
        self, kind: type[nn.RNNBase], layers: int = 1, *, both: bool = False, norm: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        self.body = nn.Linear(6, 8)
        self.mix = kind(8, 6, layers, batch_first=True, bidirectional=both, bias=bias)
        self.norm = nn.LayerNorm(6 * (1 + both)) if norm else nn.Identity()
        self.head = nn.Linear(6 * (1 + both), 4)

    def forward(self, x: Tensor, *state: Tensor) -> Tensor:
        return self.head(self.norm(self.mix(self.body(x.transpose(1, 2)), *(s.transpose(0, 1) for s in state))[0]))


def silence_(net: Recurrent, units: list[int], suffix: str = "_l0") -> Recurrent:
    """Zero rows and biases of all gates of some hidden units."""
    with torch.no_grad():
        for name, tensor in net.mix.named_parameters():
            if name.endswith(suffix):
                tensor[[6 * gate + unit for gate in range(GATES[type(net.mix)]) for unit in units]] = 0
    return net


def made(kind: type[nn.RNNBase], layers: int = 1, **options: bool) -> Recurrent:
    net = lively(Recurrent(kind, layers, **options))
    assert isinstance(net, Recurrent)
    return net


def lost(net: nn.Module) -> int:
    result = shrunk(net, X, shapes=SHAPES)
    return result.params_before - result.params_after


def recurrence(gates: int) -> int:
    """What `weight_hh` loses: 6 x 6 to 4 x 4."""
    return gates * (36 - 16)


@KINDS
def test_dead_units_go(kind: type[nn.RNNBase]) -> None:
    gates = GATES[kind]
    assert lost(silence_(made(kind), DEAD)) == 2 * (gates * (8 + 2) + 4) + recurrence(gates)
    assert lost(silence_(made(kind, bias=False), DEAD)) == 2 * (gates * 8 + 4) + recurrence(gates)
    slim = shrunk(silence_(made(kind), DEAD), X, shapes=SHAPES).model
    assert slim.mix.hidden_size == 4
    assert slim.mix.weight_hh_l0.shape == (4 * gates, 4)


@KINDS
def test_units_that_nobody_reads_go(kind: type[nn.RNNBase]) -> None:
    """Not the head, nor the recurrence itself; if one of the two does, they stay."""
    net = made(kind)
    with torch.no_grad():
        net.head.weight[:, DEAD] = 0
    assert lost(net) == 0
    with torch.no_grad():
        net.mix.weight_hh_l0[:, DEAD] = 0
    assert lost(net) == 2 * (GATES[kind] * (8 + 2) + 4) + recurrence(GATES[kind])


@KINDS
@pytest.mark.parametrize("norm", [False, True])
def test_constant_inputs_are_folded(kind: type[nn.RNNBase], norm: bool) -> None:
    """LSTM then LayerNorm: what comes in goes all the same; units do not, for the norm averages over them."""
    assert lost(dying(made(kind, norm=norm), 0.4, body=[0, 1])) == 2 * (7 + 6 * GATES[kind])
    result = shrunk(silence_(made(kind, norm=True), DEAD), X, shapes=SHAPES)
    assert result.plan.empty
    assert "pinned: layer_norm averages over this axis (norm)" in result.plan.explain("mix.weight_ih_l0", 1)


@KINDS
def test_two_layers_have_one_width(kind: type[nn.RNNBase]) -> None:
    """PyTorch's module has one hidden size: both layers lose as many, in places of their own; or none does."""
    gates = GATES[kind]
    assert lost(silence_(made(kind, 2), DEAD)) == 0
    both = silence_(silence_(made(kind, 2), DEAD), [2, 3], "_l1")
    below, above = 2 * gates * (8 + 2) + recurrence(gates), 2 * (2 * gates + 4) + 2 * recurrence(gates)
    assert lost(both) == below + above


@KINDS
def test_both_directions_have_one_width(kind: type[nn.RNNBase]) -> None:
    gates = GATES[kind]
    assert lost(silence_(made(kind, both=True), DEAD)) == 0
    net = silence_(silence_(made(kind, both=True), DEAD), [0, 5], "_l0_reverse")
    assert lost(net) == 2 * (2 * (gates * (8 + 2) + 4) + recurrence(gates))


@KINDS
def test_trap_23_the_gate_that_fills_a_unit(kind: type[nn.RNNBase]) -> None:
    """While it is zero, the unit stays at zero, whatever its other gates do. Biases of a GRU do not add up."""
    gates, at = GATES[kind], {nn.LSTM: 12, nn.GRU: 12, nn.RNN: 0}[kind] + 1
    alone = gates * (8 + 2) + 4 + gates * (36 - 25)
    net = made(kind)
    with torch.no_grad():
        for _, tensor in net.mix.named_parameters():
            tensor[at] = 0
    assert lost(net) == alone
    with torch.no_grad():
        net.mix.bias_ih_l0[at], net.mix.bias_hh_l0[at] = 0.5, -0.5
    assert lost(net) == (0 if kind is nn.GRU else alone)
    with torch.no_grad():
        net.mix.bias_hh_l0[at] = -0.4  # a constant gate makes a value that varies with time
    assert lost(net) == 0


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_trap_23_a_state_from_outside_is_not_zero(kind: type[nn.RNNBase]) -> None:
    """Units that begin with what the caller gives stay."""
    net = silence_(made(kind), DEAD)
    result = shrunk(net, (X, torch.randn(2, 1, 6)), shapes=((1, 0), (3, 0)))
    assert result.plan.empty
    assert "begins with" in result.plan.explain("mix.weight_ih_l0", 1)
