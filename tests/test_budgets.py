from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.budgets import Budget, within
from surgery.deciding.pick import Floats
from surgery.deciding.steps import Steps
from surgery.errors import InputError


@pytest.mark.parametrize(
    ("name", "amount", "limit"),
    [
        ("params", 0.5, 500), ("params", 1, 1000), ("params", 2, 2), ("params", "50%", 500), ("params", "0.25", 250),
        ("params", "3.5M", 3.5e6), ("macs", "1.2G", 1.2e9), ("macs", "1.5e3", 1500), ("params", "100%", 1000),
        ("size_bytes", "20MB", 20e6), ("size_bytes", "20 MiB", 20 * 2**20), ("size_bytes", "300kb", 3e5),
        ("size_bytes", "300B", 300), ("params", "7B", 7e9), ("latency", 0.5, 500), ("latency", "12 ms", 12),
        ("latency", "0.5ms", 0.5), ("latency", "500us", 0.5), ("latency", "500 \u00b5s", 0.5),
        ("latency", "0.8 \u03bcs", 8e-4), ("latency", "1ms", 1), ("latency", "0.0005s", 0.5), ("latency", "0.5", 500),
        ("params", np.float64(0.5), 500), ("params", np.float32(0.25), 250), ("macs", np.int64(7), 7),
    ],
)  # fmt: skip
def test_amounts_are_shares_up_to_1_and_absolute_above(name: str, amount: float | str, limit: float) -> None:
    assert Budget(name, amount).limit(1000) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("name", "amount", "message"),
    [
        ("params", 0, "params is 0\n  -> give a share of the dense model or a number above 0"),
        ("macs", -3, "macs is -3"),
        ("macs", float("nan"), "macs is nan"),
        ("macs", float("inf"), "macs is inf"),
        ("params", "150%", "params is '150%'"),
        ("params", "20MB", "params is '20MB'\n  -> write it as '0.5', '50%', '3500000' or '3.5K', '3.5M'"),
        ("size_bytes", "12ms", "size_bytes is '12ms'\n  -> write it as '0.5', '50%', '3500000' or '3.5B', '3.5KB'"),
        ("size_bytes", "much", "size_bytes is 'much'"),
        ("params", [3], "params is a list"),
        ("params", True, "params is a bool"),
    ],
)
def test_what_is_no_amount_is_told(name: str, amount: object, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Budget(name, amount)  # type: ignore[arg-type]


def steps_of(widths: list[int], order: list[int], together: bool = False) -> Steps:
    """Groups of these widths, which lose one channel a step, in this order of groups."""
    taken = [0] * len(widths)
    shares = []
    for group in order:
        taken[group] += 1
        shares.append(taken[group] / widths[group])
    return Steps(
        np.array(order, np.int64), np.array(shares), np.ones(len(order), np.int64), np.array(widths),
        np.arange(0, len(order) + 1, 2 if together else 1),
    )  # fmt: skip


@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=2), st.randoms(use_true_random=False), st.integers(1, 500),
    st.integers(0, 60), st.booleans(),
)  # fmt: skip
def test_the_result_is_within_the_budget_and_no_single_step_back_fits(
    prices: list[int], random: object, limit: int, overhead: int, fill: bool
) -> None:
    """Prices per channel differ by group, and something comes on top that no step can take away."""
    order = [0] * 7 + [1] * 11
    random.shuffle(order)  # type: ignore[attr-defined]
    steps = steps_of([8, 12], order)
    dense = 8 * prices[0] + 12 * prices[1] + overhead

    def left(shares: Floats) -> int:
        kept = np.round((1 - shares) * [8, 12]).astype(int)
        return int(kept @ np.array(prices)) + overhead

    tried: list[int] = []

    def attempt(shares: Floats) -> tuple[Floats, int]:
        tried.append(left(shares))
        return shares, tried[-1]

    budget = Budget("params", limit if limit > 1 else 2)
    limit = budget.amount  # type: ignore[assignment]
    if prices[0] + prices[1] + overhead > limit:
        with pytest.raises(InputError, match=f"with all that may go gone, {sum(prices) + overhead:,} are left"):
            within(budget, dense, steps, attempt, fill=fill)
        return
    shares = within(budget, dense, steps, attempt, fill=fill)
    assert left(shares) <= limit
    assert len(tried) <= 40
    if left(shares) < 0.999 * limit and shares.any():
        cheapest = min(price for price, share in zip(prices, shares, strict=True) if share > 0)
        last = max(prices)
        assert left(shares) + (cheapest if fill else last) > limit


def test_a_search_that_stops_where_all_have_come_as_far_fills_nothing() -> None:
    steps = steps_of([4, 4], [0, 1, 0, 1, 0, 1], together=True)
    shares = within(Budget("params", 51), 80, steps, lambda s: (s, int(((1 - s) * 40).sum())), fill=False)
    assert shares.tolist() == [0.5, 0.5]


def test_nothing_goes_where_the_dense_model_is_within_the_budget() -> None:
    steps = steps_of([4, 4], [0, 1])
    assert not within(Budget("params", 100), 80, steps, lambda s: (s, 80), fill=True).any()
