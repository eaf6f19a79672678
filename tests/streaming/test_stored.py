"""A tensor that reads itself is what it reads, whatever is done with it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from surgery.streaming.stored import Holder, Stored

OPS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda t: t + 1,
    lambda t: t.t() @ torch.ones(4),
    lambda t: t.movedim(1, 0).flatten(),
    lambda t: t.reshape(2, 2, 6).transpose(1, 2)[0],
    lambda t: t[1:3, ::2].double(),
    lambda t: t.split(2)[1],
    lambda t: t.unbind(1)[2],
    lambda t: t.expand(3, 4, 6).sum(0),
    lambda t: t.data[[0, 2]].abs(),
    lambda t: t.unsqueeze(0).permute(2, 0, 1).contiguous(),
    lambda t: t.detach().cpu().view(-1),
    lambda t: torch.linalg.vector_norm(t, dim=1, dtype=torch.float64),
    lambda t: torch.cat([t, t], 1),
)


def stored(values: Tensor, holder: Holder | None = None) -> Stored:
    return Stored.of(values.clone, values, holder or Holder())


@pytest.mark.parametrize("op", OPS)
def test_ops(op: Callable[[Tensor], Tensor]) -> None:
    values = torch.randn(4, 6)
    answer, expected = op(stored(values)), op(values)
    assert (answer.shape, answer.dtype, answer.stride()) == (expected.shape, expected.dtype, expected.stride())
    torch.testing.assert_close(answer + 0, expected + 0, rtol=0, atol=0)


def test_views_read_nothing() -> None:
    reads = []
    values = torch.randn(4, 6)

    def read() -> Tensor:
        reads.append(1)
        return values.clone()

    one = Stored.of(read, values, Holder())
    seen = one.t().detach().reshape(2, 3, 4)[1].expand(3, 4).cpu()
    assert isinstance(seen, Stored)
    assert not reads
    torch.testing.assert_close(seen + 0, values.t().reshape(2, 3, 4)[1])
    _ = seen * 2
    assert len(reads) == 1


def test_addresses_tell_tensors_apart() -> None:
    holder, values = Holder(), torch.randn(4, 6)
    one, other = stored(values, holder), stored(values, holder)
    places = [
        one.data_ptr(),
        one[1:].data_ptr(),
        one[:, 1:].data_ptr(),
        other.data_ptr(),
        one.changed(Tensor.zero_).data_ptr(),
    ]
    assert len(set(places)) == len(places)
    assert one.t().data_ptr() == one.data_ptr()


def test_what_is_written_is_written_into_what_is_read() -> None:
    values = torch.randn(4, 6)
    one = stored(values)
    zeroed = one.changed(lambda tensor: tensor[1].zero_())
    twice = zeroed.changed(lambda tensor: tensor[2].zero_())
    for tensor, gone in ((one, []), (zeroed, [1]), (twice, [1, 2]), (one, []), (zeroed, [1])):
        assert (tensor == 0).all(1).nonzero().flatten().tolist() == gone
    with pytest.raises(RuntimeError, match="would write into a tensor"):
        one.zero_()


def test_it_is_what_it_was_made_like() -> None:
    parameter = nn.Parameter(torch.ones(2))
    assert isinstance(stored(parameter), nn.Parameter)
    assert isinstance(stored(parameter).changed(Tensor.zero_), nn.Parameter)
    assert not isinstance(stored(torch.ones(2)), nn.Parameter)
    one = stored(parameter)
    assert copy.deepcopy(one) is one
    assert repr(one) == "Stored([2], torch.float32)"
