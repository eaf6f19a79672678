from __future__ import annotations

import numpy as np
import pytest
import torch

from surgery.layout import Layout, compress, on_dim, reshape_groups, reshaped, resolved, survivors


def test_reshape_groups_are_the_finest() -> None:
    assert reshape_groups((2, 12, 7, 7), (2, 3, 4, 49)) == [((0,), (0,)), ((1,), (1, 2)), ((2, 3), (3,))]
    assert reshape_groups((6, 4), (4, 6)) == [((0, 1), (0, 1))]
    assert reshape_groups((1, 12), (12,)) == [((0, 1), (0,))]


def test_a_reshape_that_cannot_be_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot reshape"):
        reshape_groups((2, 3), (7,))


@pytest.mark.parametrize(
    ("old", "new"), [((2, 6, 5), (2, 2, 3, 5)), ((2, 6, 5), (2, 30)), ((4, 6), (2, 2, 6)), ((3, 1, 4), (3, 4))]
)
def test_ids_move_as_the_values_do(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    for dim in range(len(old)):
        ids = on_dim(np.arange(old[dim]), len(old), dim)
        moved = reshaped(ids, old, new, reshape_groups(old, new))
        full = np.broadcast_to(ids, old).reshape(new)
        assert (np.broadcast_to(moved, new) == full).all()
        tensor = torch.from_numpy(np.ascontiguousarray(ids))
        assert (reshaped(tensor, old, new, reshape_groups(old, new)).expand(new).numpy() == full).all()


def test_flatten_and_back_is_one_block_on_the_channels_again() -> None:
    ids = on_dim(np.arange(3), 4, 1)
    flat = reshaped(ids, (1, 3, 2, 2), (1, 12), reshape_groups((1, 3, 2, 2), (1, 12)))
    assert flat.shape == (1, 12)
    back = reshaped(flat, (1, 12), (1, 3, 2, 2), reshape_groups((1, 12), (1, 3, 2, 2)))
    assert compress(back).shape == (1, 3, 1, 1)


def test_survivors_of_a_joint_block_must_be_a_rectangle() -> None:
    block = np.arange(6).reshape(1, 2, 3)
    alive = np.ones(6, bool)
    alive[[0, 5]] = False  # another column in each row: still two rows of two
    left = survivors(block, alive)
    assert left is not None
    assert left.tolist() == [[[1, 2], [3, 4]]]
    alive[1] = False
    assert survivors(block, alive) is None
    alive[:] = True
    alive[:3] = False  # a whole row may go
    left = survivors(block, alive)
    assert left is not None
    assert left.shape == (1, 1, 3)


def test_survivors_of_three_dims_are_checked_at_every_level() -> None:
    block = np.arange(8).reshape(2, 2, 2)
    alive = np.ones(8, bool)
    alive[[0, 1]] = False  # row (0, 0) is gone: (0,) has one row of two, (1,) has two
    assert survivors(block, alive) is None
    alive[[4, 5]] = False
    left = survivors(block, alive)
    assert left is not None
    assert left.shape == (2, 1, 2)


def test_small_things() -> None:
    assert resolved([2, -1, 3], 24) == (2, 4, 3)
    layout = Layout((2, 3), (on_dim(np.arange(3), 2, 1),))
    assert layout.block_of(0) is None
    assert layout.block_of(1) is not None
