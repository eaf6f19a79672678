"""Macs equal the closed form, on the meta device and in a real run; shared memory counts once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.proof.cost import cost, count_params, macs, size_bytes


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


Q = torch.randn(2, 4, 10, 8)  # (batch, heads, tokens, head_dim)
KV = torch.randn(2, 2, 10, 8)

CASES: dict[str, tuple[nn.Module, tuple[Tensor, ...], int]] = {
    "linear": (nn.Linear(5, 7), (torch.randn(3, 5),), 3 * 5 * 7),
    "tokens": (nn.Linear(5, 7, bias=False), (torch.randn(3, 4, 5),), 3 * 4 * 5 * 7),
    "one vector": (nn.Linear(5, 7), (torch.randn(5),), 5 * 7),
    "mlp": (nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3)), (torch.randn(2, 5),), 2 * (5 * 7 + 7 * 3)),
    "conv": (nn.Conv2d(3, 8, 3, padding=1), (torch.randn(2, 3, 6, 5),), 2 * 6 * 5 * 8 * 3 * 9),
    "strided": (nn.Conv2d(3, 8, 3, stride=2), (torch.randn(1, 3, 7, 9),), 3 * 4 * 8 * 3 * 9),
    "conv1d": (nn.Conv1d(4, 6, 3, dilation=2), (torch.randn(1, 4, 9),), 5 * 6 * 4 * 3),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2), (torch.randn(1, 6, 5, 5),), 3 * 3 * 4 * 3 * 9),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6), (torch.randn(1, 6, 5, 5),), 3 * 3 * 6 * 9),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (torch.randn(1, 4, 5, 5),), 25 * 4 * 6 * 9),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 2, groups=2), (torch.randn(2, 4, 5, 5),), 2 * 25 * 4 * 3 * 4),
    "batch_norm": (nn.BatchNorm2d(3), (torch.randn(1, 3, 4, 4),), 0),
    "attention": (Lambda(F.scaled_dot_product_attention), (Q, Q, Q), 2 * 2 * 4 * 10 * 10 * 8),
    "grouped queries": (
        Lambda(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)),
        (Q, KV, KV),
        2 * 2 * 4 * 10 * 10 * 8,
    ),
    "multi-head": (nn.MultiheadAttention(8, 2), (torch.randn(5, 2, 8),) * 3, 2 * 5 * 4 * 8 * 8 + 2 * 2 * 2 * 25 * 4),
    "lstm": (nn.LSTM(5, 7), (torch.randn(4, 3, 5),), 4 * 3 * 4 * 7 * (5 + 7)),
    "matrix times vector": (Lambda(torch.matmul), (torch.randn(3, 5), torch.randn(5)), 15),
    "bias plus matrix times vector": (Lambda(torch.addmv), (torch.ones(3), torch.randn(3, 5), torch.randn(5)), 15),
    "dot": (Lambda(torch.dot), (torch.randn(5), torch.randn(5)), 5),
    "addbmm": (Lambda(torch.addbmm), (torch.ones(3, 4), torch.randn(2, 3, 5), torch.randn(2, 5, 4)), 2 * 3 * 5 * 4),
}


@pytest.mark.parametrize("name", CASES)
def test_macs_equal_the_closed_form(name: str) -> None:
    model, inputs, expected = CASES[name]
    found = cost(model, Inputs.of(inputs))
    assert found.macs == expected
    assert found.notes == ()


@pytest.mark.parametrize("name", CASES)
def test_macs_equal_the_closed_form_in_a_real_run(name: str) -> None:
    model, inputs, expected = CASES[name]

    class Looks(nn.Module):
        """Looks at a value, which no meta tensor has."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, *inputs: Tensor) -> object:
            assert inputs[0].sum().item() < 1e9
            return self.inner(*inputs)

    looks = Looks().train()
    found = cost(looks, Inputs.of(inputs))
    assert found.macs == expected
    assert found.notes == (
        "macs counted in a real run, for the model cannot run on the meta device "
        "(RuntimeError: Tensor.item() cannot be called on meta tensors)",
    )
    assert looks.training


def test_counting_does_not_touch_the_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    tensors = [*model.parameters(), *model.buffers()]
    before = [tensor.clone() for tensor in tensors]
    assert macs(model, Inputs.of(torch.randn(1, 3, 5, 5))) == 9 * 4 * 27
    assert all(a is b for a, b in zip(tensors, [*model.parameters(), *model.buffers()], strict=True))
    torch.testing.assert_close(tensors, before, rtol=0, atol=0)
    assert model.training


def test_a_model_that_makes_tensors_without_a_device_is_counted_on_meta() -> None:
    model = nn.Sequential(Lambda(lambda x: x + torch.arange(5.0)), nn.Linear(5, 2))
    assert cost(model, Inputs.of(torch.randn(3, 5))).notes == ()


def test_keyword_and_integer_inputs_are_counted() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3))
    assert macs(model, Inputs.of((), {"input": torch.zeros(2, 5, dtype=torch.int64)})) == 2 * 5 * 4 * 3


def test_a_model_that_fails_on_its_inputs_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"fails on its own example inputs: RuntimeError: .*\n  -> pass inputs that"):
        macs(nn.Linear(3, 3), Inputs.of(torch.randn(2, 4)))


def test_shared_memory_counts_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3))
    assert count_params(model) == 9 + 9 + 6
    assert size_bytes(model) == 4 * (9 + 9 + 6 + 6) + 8
    model[1].weight = model[0].weight
    assert count_params(model) == 9 + 6
    model[1].weight = nn.Parameter(model[0].weight.data)
    assert count_params(model) == 9 + 6
    assert size_bytes(model) == 4 * (9 + 6 + 6) + 8


def test_parts_of_one_storage_are_counted_one_by_one() -> None:
    flat = torch.zeros(10)
    model = nn.ParameterList([nn.Parameter(flat[:5]), nn.Parameter(flat[5:])])
    assert count_params(model) == 10
    assert count_params(model.to("meta")) == 10
