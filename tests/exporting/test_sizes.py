from __future__ import annotations

from collections.abc import Sequence

import torch

from surgery.exporting.shapes import symbol
from surgery.exporting.sizes import FreeDims, other_batches, other_sizes
from surgery.inputs import Inputs

B, H, W, T = (symbol(name) for name in ("batch", "height", "width", "tokens"))


def shapes(inputs: Inputs) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in inputs.tensors()]


def first_of_each(inputs: Inputs, dynamic: Sequence[FreeDims]) -> list[list[tuple[int, ...]]]:
    return [shapes(next(candidates)) for _, candidates in other_sizes(inputs, dynamic)]


def test_every_free_dim_changes_together_and_alone_even_where_sizes_are_equal() -> None:
    inputs = Inputs.of(torch.randn(2, 3, 8, 8))
    dynamic = ({0: B, 2: H, 3: W},)
    assert [shapes(other) for _, other in other_batches(inputs, dynamic)] == [
        [(1, 3, 8, 8)],
        [(3, 3, 8, 8)],
        [(5, 3, 8, 8)],
    ]
    assert first_of_each(inputs, dynamic) == [[(2, 3, 40, 40)], [(2, 3, 40, 8)], [(2, 3, 8, 40)]]
    assert first_of_each(inputs, ({0: B, 2: H},)) == [[(2, 3, 40, 8)]]


def test_dims_of_one_name_keep_one_size_and_others_follow_it() -> None:
    inputs = Inputs.of((torch.randint(0, 9, (2, 6)), torch.randn(2, 12), torch.randn(6, 6)))
    dynamic = ({0: B, 1: T}, {0: B, 1: 2 * T}, {0: T})
    assert not list(other_batches(inputs, dynamic))  # the third has no batch
    assert first_of_each(inputs, dynamic)[0] == [(34, 38), (34, 76), (38, 6)]
    assert first_of_each(inputs, dynamic)[1:] == [[(34, 6), (34, 12), (6, 6)], [(2, 38), (2, 76), (38, 6)]]


def test_symbols_of_a_batch_that_differ_are_one_batch() -> None:
    inputs = Inputs.of((torch.randn(2, 4), torch.randn(2, 4)))
    dynamic = ({0: symbol("s0")}, {0: symbol("s1")})
    assert [label for label, _ in other_batches(inputs, dynamic)] == ["batch 1", "batch 3", "batch 5"]
    assert first_of_each(inputs, dynamic) == []


def test_a_size_that_nobody_knows_has_no_candidates() -> None:
    ((name, candidates),) = other_sizes(Inputs.of(torch.randn(2, 8)), ({1: 2 * T},))
    assert name == "dim 1 of the input 2x8"
    assert not list(candidates)
