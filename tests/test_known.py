"""Where a weight is zero, a bit an element, against the same in full."""

from __future__ import annotations

import numpy as np
import pytest

from surgery.known import Pattern
from surgery.pieces import AT_ONCE


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("inputs", [5, 8, 19])
def test_scattered_zeros(groups: int, inputs: int) -> None:
    random = np.random.default_rng(groups * inputs)
    nonzero = random.random((groups, 11, inputs)) < 0.4
    nonzero[:, 3] = nonzero[..., 1] = False
    patterns = [Pattern.of(nonzero)]
    if groups == 1:
        patterns.append(Pattern.of_rows(np.array_split(nonzero[0], 4), nonzero.shape[1:]))
    for pattern in patterns:
        assert pattern.bits is not None
        assert pattern.bits.nbytes == groups * 11 * -(-inputs // 8)
        for share in (0.0, 0.2, 1.0):
            read, heard = random.random((groups, inputs)) < share, random.random((groups, 11)) < share
            assert np.array_equal(pattern.rows_on(read), (nonzero & read[:, None]).any(2))
            assert np.array_equal(pattern.columns_of(heard), (nonzero & heard[:, :, None]).any(1))


def test_whole_rows_and_columns_need_no_bits() -> None:
    nonzero = np.ones((1, 4, 9), bool)
    nonzero[:, 2] = nonzero[..., 5] = False
    for pattern in (Pattern.of(nonzero), Pattern.of_rows([nonzero[0, :3], nonzero[0, 3:]], (4, 9))):
        assert pattern.bits is None
        assert pattern.rows[0].tolist() == [True, True, False, True]
        assert pattern.columns[0].tolist() == [i != 5 for i in range(9)]


def test_more_rows_than_are_looked_at_at_once() -> None:
    nonzero = np.random.default_rng(0).random((1, AT_ONCE // 64, 1024)) < 0.5
    read = np.zeros((1, 1024), bool)
    read[0, 700] = True
    assert np.array_equal(Pattern.of(nonzero).rows_on(read), nonzero[..., 700])
