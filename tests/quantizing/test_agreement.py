from __future__ import annotations

import numpy as np
import pytest

from surgery.quantizing.agreement import Agreement, compare, cosine
from surgery.quantizing.float_file import Array, Feed


def agreement(a: Array, b: Array, name: str = "scores", calls: int = 1) -> Agreement:
    """Of two outputs, in so many calls."""
    feeds = [{"x": part} for part in np.array_split(np.arange(len(a)), calls)]

    def picked(values: Array) -> object:
        def run(feed: Feed) -> list[Array]:
            return [values[feed["x"]]]

        return run

    (found,) = compare(picked(a), picked(b), feeds, [name])  # type: ignore[arg-type]
    return found


def test_cosine_of_known_vectors() -> None:
    assert cosine(np.array([1.0, 0]), np.array([1.0, 1])) == pytest.approx(0.5**0.5)
    assert cosine(np.array([1.0, 2]), np.array([-1.0, -2])) == pytest.approx(-1)
    assert cosine(np.zeros(3), np.zeros(3)) == 1
    assert cosine(np.zeros(3), np.ones(3)) == 0
    minus_inf = np.array([1.0, -np.inf])
    assert cosine(minus_inf, minus_inf) == 1
    assert cosine(np.array([1.0, 2]), np.array([1.0, np.nan])) == 0


def test_lowest_mean_and_top_1_over_samples_of_all_calls() -> None:
    a = np.array([[1.0, 0], [0, 1], [2, 0], [0, 3]])
    b = np.array([[1.0, 0], [1, 1], [1, 2], [0, 1]])
    for calls in (1, 2, 4):
        found = agreement(a, b, calls=calls)
        angles = [1, 0.5**0.5, 5**-0.5, 1]
        assert found.min_cosine == pytest.approx(min(angles))
        assert found.mean_cosine == pytest.approx(np.mean(angles))
        assert found.top1 == 0.5  # the second is a tie, which goes to the first class


def test_a_net_that_hardly_varies_cannot_hide() -> None:
    rng = np.random.default_rng(0)
    a = 100 + rng.normal(size=(50, 8))
    found = agreement(a, a + rng.normal(size=a.shape), calls=5)
    assert found.min_cosine is not None
    assert found.min_cosine > 0.999
    assert found.error == pytest.approx(1, rel=0.15)
    assert agreement(a, a).error == 0
    assert agreement(a[:1], a[:1]).error is None
    assert agreement(np.ones((4, 2)), np.ones((4, 2))).error is None


def test_outputs_without_classes() -> None:
    picture = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    assert agreement(picture, picture).top1 is None
    tokens = picture[:, 0]
    assert agreement(tokens, tokens).top1 is None
    assert agreement(tokens, -tokens, "logits").top1 == 0
    found = agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]))
    assert found == Agreement("scores", None, None, None, 0.75)
    assert str(found) == "scores: equal on 75.0%"
