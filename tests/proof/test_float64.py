"""A float64 run stays in float64, whatever the model's own code asks for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgery.cutting.twins import float64_copy, meta_copy
from surgery.proof.float64 import float64_run

THREE = torch.full((2, 3), 3.0, dtype=torch.float32)

NARROWING: dict[str, Callable[[Tensor], Tensor]] = {
    "float": lambda x: x.float(),
    "to": lambda x: x.to(torch.float32),
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.type(torch.bfloat16),
    "type_as": lambda x: x.type_as(torch.zeros(1, dtype=torch.float32)),
    "softmax": lambda x: F.softmax(x, -1, dtype=torch.float32),
    "sum": lambda x: x.sum(-1, dtype=torch.float32),
    "factory": lambda x: x + torch.full((1,), 1 / 3, dtype=torch.float32),
    "default": lambda x: x + torch.ones(1) / 3,
    "new tensor": lambda x: x + torch.tensor([1.0, 3.0, 7.0], dtype=torch.float32).reciprocal(),
    "default value": lambda x: x + torch.full((1,), 1 / 3),
    "in a list": lambda x: x + torch._foreach_reciprocal([THREE])[0],
    "concatenated": lambda x: torch.cat([x, torch.ones(1, 3, dtype=torch.float32) / 3]),
    "filled": lambda x: torch.empty(2, 3, dtype=torch.float32).copy_(x),
    "complex": lambda x: torch.view_as_real(torch.polar(x.float().abs(), x.float()).to(torch.complex64)),
}


@pytest.mark.parametrize("name", NARROWING)
def test_narrowing_code_computes_in_float64(name: str) -> None:
    x = torch.rand(2, 3, dtype=torch.float64)

    def widened(x: Tensor) -> Tensor:
        """The same code with the narrow dtypes replaced by hand."""
        third = torch.ones(1, dtype=torch.float64) / 3
        by_hand = {
            "softmax": F.softmax(x, -1),
            "sum": x.sum(-1),
            "factory": x + third,
            "default": x + third,
            "default value": x + third,
            "in a list": x + third,
            "new tensor": x + torch.tensor([1.0, 3.0, 7.0], dtype=torch.float64).reciprocal(),
            "concatenated": torch.cat([x, third.expand(1, 3)]),
            "complex": torch.view_as_real(torch.polar(x.abs(), x)),
        }
        return by_hand.get(name, x)

    with float64_run():
        found = NARROWING[name](x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, widened(x), rtol=1e-15, atol=1e-15)


GROUPED = {"tokens": ((8, 4), (3, 4, 12)), "batches": ((3, 8, 4), (4, 8)), "inside": ((5, 8), (8, 12))}


@pytest.mark.parametrize("kind", GROUPED)
def test_products_of_groups_without_a_float64_kernel_are_computed_as_the_kernel_does(kind: str) -> None:
    a, b = (torch.rand(shape) for shape in GROUPED[kind])
    ends = torch.tensor([2, 2, 8], dtype=torch.int32)  # the second group is empty
    with torch.no_grad():
        truth = torch.ops.aten._grouped_mm(a, b, ends)
        with float64_run():
            found = torch.ops.aten._grouped_mm(a.double(), b.double(), ends)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), truth)


def test_products_of_equal_groups_are_plain_ones() -> None:
    a, b = torch.rand(3, 5, 4, dtype=torch.float64), torch.rand(3, 4, 8, dtype=torch.float64)
    with float64_run():
        torch.testing.assert_close(torch.ops.aten._grouped_mm(a, b), a @ b)


def test_reading_the_bits_of_a_number_is_left_alone() -> None:
    x = torch.ones(2, dtype=torch.float64)
    with torch.no_grad(), float64_run():
        assert x.view(torch.float32).shape == (4,)
        assert torch.ones(2, dtype=torch.int32).view(torch.float32).dtype == torch.float32


def test_integers_and_the_default_dtype_are_left_alone() -> None:
    with float64_run():
        assert torch.arange(3).dtype == torch.int64
        assert torch.ones(3).to(torch.int32).dtype == torch.int32
    assert torch.ones(1).dtype == torch.float32
    with pytest.raises(RuntimeError, match="stop"), float64_run():
        raise RuntimeError("stop")
    assert torch.get_default_dtype() == torch.float32


class Holder(nn.Module):
    """Tensors in every place where a module can hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.linear.weight
        self.linear.bias.requires_grad_(requires_grad=False)
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("steps", torch.zeros(3, dtype=torch.int64))
        self.plain = torch.full((3,), 0.5)
        self.listed = [torch.full((3,), 0.25)]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.tied(self.linear(x)) * self.plain + self.listed[0] - self.mean
        return y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_float64_copy_converts_every_tensor_and_leaves_the_model_alone(dtype: torch.dtype) -> None:
    model = Holder().to(dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copied = float64_copy(model)
    assert {t.dtype for t in (*copied.parameters(), copied.mean, copied.plain, copied.listed[0])} == {torch.float64}
    assert copied.steps.dtype == torch.int64
    assert copied.tied.weight is copied.linear.weight
    assert isinstance(copied.linear.weight, nn.Parameter)
    assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in model.parameters()]
    with torch.no_grad():
        for tensor in (*copied.parameters(), *copied.buffers(), copied.plain):
            tensor.add_(1)
    torch.testing.assert_close(model.state_dict(), before)
    torch.testing.assert_close(model.plain, torch.full((3,), 0.5))
    assert model.linear.weight.dtype == dtype


def test_a_meta_copy_has_shapes_and_no_storage() -> None:
    model = Holder().half()
    copied = meta_copy(model)
    tensors = (*copied.parameters(), *copied.buffers(), copied.plain, copied.listed[0])
    assert all(tensor.is_meta for tensor in tensors)
    assert copied.linear.weight.dtype == torch.float16
    assert copied(torch.empty(2, 3, dtype=torch.float16, device="meta")).shape == (2, 3)
    assert not any(tensor.is_meta for tensor in model.parameters())


def test_a_write_into_a_narrow_tensor_reaches_it() -> None:
    held = torch.zeros(2, dtype=torch.float32)
    with torch.no_grad(), float64_run():
        held.add_(torch.ones(2))
    assert held.tolist() == [1, 1]
