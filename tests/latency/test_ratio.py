from __future__ import annotations

import numpy as np
import pytest

from surgery.latency.statistics import (
    disturbance,
    launch_bound,
    paired_ratio,
    settled,
    settled_between,
    summarize,
    unpaired_ratio,
)


def times(n: int, scale: float, noise: float, seed: int) -> list[float]:
    return list(scale * np.exp(noise * np.random.default_rng(seed).standard_normal(n)))


def test_a_known_ratio_is_found_and_called_faster() -> None:
    ratio = paired_ratio(times(200, 2.0, 0.02, 1), times(200, 1.0, 0.02, 2))
    assert ratio.verdict == "faster"
    assert ratio.n == 200
    assert 1.97 < ratio.low < ratio.median < ratio.high < 2.03
    assert ratio.low < 2 < ratio.high


def test_the_other_way_round_is_slower() -> None:
    ratio = paired_ratio(times(200, 1.0, 0.02, 2), times(200, 2.0, 0.02, 1))
    assert ratio.verdict == "slower"
    assert ratio.low < 0.5 < ratio.high


def test_pairing_removes_what_both_models_suffered() -> None:
    first = times(200, 3.0, 0.005, 1)
    drift = np.linspace(1, 5, 200)
    ratio = paired_ratio(list(np.array(first) * drift), list(drift))
    assert (ratio.verdict, round(ratio.median, 2)) == ("faster", 3.0)


def test_identical_samples_are_no_difference() -> None:
    same = times(50, 1.0, 0.3, 0)
    ratio = paired_ratio(same, same)
    assert (ratio.low, ratio.median, ratio.high, ratio.verdict) == (1.0, 1.0, 1.0, "no difference")


def test_a_tiny_bias_is_no_difference_however_certain() -> None:
    ratio = paired_ratio(times(20_000, 1.003, 0.01, 1), times(20_000, 1.0, 0.01, 2))
    assert ratio.low > 1  # certain
    assert ratio.verdict == "no difference"  # and of no importance


def test_two_percent_is_seen_when_the_interval_is_narrow() -> None:
    assert paired_ratio(times(500, 1.02, 0.01, 1), times(500, 1.0, 0.01, 2)).verdict == "faster"


def test_an_interval_that_reaches_into_the_margin_says_nothing() -> None:
    ratio = paired_ratio(times(200, 1.015, 0.02, 1), times(200, 1.0, 0.02, 2))
    assert 1 < ratio.low < 1.01 < ratio.median
    assert (ratio.verdict, ratio.why) == ("too noisy to say", "the interval reaches within 1% of 1")


@pytest.mark.parametrize(
    ("scale", "noise", "n", "why"),
    [
        (1.0, 0.06, 120, "% wide"),
        (1.02, 0.09, 60, "the interval reaches within 1% of 1"),
        (1.0, 0.3, 60, "the middle half"),
    ],
)
def test_noise_is_admitted(scale: float, noise: float, n: int, why: str) -> None:
    ratio = paired_ratio(times(n, scale, noise, 1), times(n, 1.0, noise, 2))
    assert ratio.verdict == "too noisy to say"
    assert why in ratio.why


@pytest.mark.parametrize(("scale", "verdict"), [(1.0, "too noisy to say"), (1.05, "too noisy to say"), (3.0, "faster")])
def test_a_disturbed_process_supports_only_large_claims(scale: float, verdict: str) -> None:
    ratio = paired_ratio(times(200, scale, 0.01, 1), times(200, 1.0, 0.01, 2), disturbed="had half the processor")
    assert ratio.verdict == verdict
    assert (ratio.why == "had half the processor") == (verdict != "faster")


def test_samples_that_share_their_disturbances_give_a_wider_interval() -> None:
    generator = np.random.default_rng(0)
    drifting = np.repeat(np.exp(0.03 * generator.standard_normal(50)), 100)  # 50 quiet and loud spells of 100 pairs
    shuffled = generator.permutation(drifting)
    ones = [1.0] * 5000
    honest, naive = paired_ratio(list(drifting), ones), paired_ratio(list(shuffled), ones)
    assert honest.high - honest.low > 3 * (naive.high - naive.low)


def test_the_interval_holds_the_truth_about_95_times_in_100() -> None:
    held = 0
    for seed in range(100):
        ratio = paired_ratio(times(120, 1.5, 0.05, 2 * seed), times(120, 1.0, 0.05, 2 * seed + 1))
        held += ratio.low <= 1.5 <= ratio.high
    assert 88 <= held <= 100
    assert held < 100 or ratio.high - ratio.low < 0.05


def test_the_bootstrap_is_repeatable_and_follows_its_seed() -> None:
    a, b = times(100, 1.1, 0.05, 1), times(100, 1.0, 0.05, 2)
    assert paired_ratio(a, b, seed=3) == paired_ratio(a, b, seed=3)
    assert paired_ratio(a, b, seed=3) != paired_ratio(a, b, seed=4)


def test_two_pairs_are_enough_to_answer() -> None:
    assert paired_ratio([1.0, 2.0], [1.0, 1.0]).verdict == "too noisy to say"


def test_a_summary_has_the_textbook_figures_and_carries_its_doubt() -> None:
    summary = summarize([float(n) for n in range(1, 102)])
    assert (summary.n, summary.p50_ms, summary.iqr_ms, summary.p90_ms) == (101, 51.0, 50.0, 91.0)
    assert (summary.mean_ms, summary.min_ms) == (51.0, 1.0)
    assert summary.calls_per_s == pytest.approx(1000 / 51)
    assert summary.wide
    assert summary.p99_ms == 100.0
    assert summarize([1.0] * 99).p99_ms is None
    quiet = summarize([4.20, 4.21, 4.22])
    assert not quiet.wide
    assert str(quiet) == "4.21 ms (IQR 0.01, n=3)"
    assert str(summarize([0.0042] * 5)) == "0.0042 ms (IQR 0.0000, n=5)"


def test_settled_means_an_interval_below_two_percent() -> None:
    ones = [1.0] * 400
    assert settled(times(400, 1.3, 0.05, 0), ones)
    assert not settled(times(400, 1.3, 0.2, 0), ones)
    assert not settled(times(10, 1.3, 0.05, 0), ones[:10])


@pytest.mark.parametrize(
    ("cpu", "threads", "what"),
    [
        (1.0, 1, ""),
        (0.5, 1, "a call had the processor for 50% of its time"),
        (2.0, 1, "a call used 2.0 cores with 1 thread"),
        (1.3, 2, ""),
        (2.0, 2, ""),
        (0.6, 2, "a call had the processor for 60% of its time"),
        (4.0, 2, "a call used 4.0 cores with 2 threads"),
    ],
)
def test_processor_time_far_from_the_threads_is_a_disturbance(cpu: float, threads: int, what: str) -> None:
    assert disturbance([10 * cpu] * 5, [10.0] * 5, threads) == what


def test_reading_the_clocks_is_no_disturbance_of_a_tiny_call() -> None:
    assert disturbance([0.012] * 5, [0.010] * 5, 1) == ""


def test_two_runs_differ_only_beyond_five_percent() -> None:
    now = times(200, 1.0, 0.02, 2)
    assert unpaired_ratio(times(300, 1.04, 0.02, 1), now).verdict == "no difference"
    faster = unpaired_ratio(times(300, 1.2, 0.02, 1), now)
    assert (faster.verdict, faster.n) == ("faster", 200)
    assert 1.18 < faster.low < faster.median < faster.high < 1.22
    assert unpaired_ratio(times(300, 0.8, 0.02, 1), now).verdict == "slower"
    assert unpaired_ratio(times(300, 1.2, 0.02, 1), now, disturbed="loud").verdict == "faster"
    assert unpaired_ratio(times(300, 1.1, 0.02, 1), now, disturbed="loud").verdict == "too noisy to say"
    assert unpaired_ratio([2.0], [1.0]).verdict == "too noisy to say"


def test_a_call_that_returns_late_is_bound_by_its_launches() -> None:
    assert launch_bound([], [1.0]) == ""
    assert launch_bound([0.5] * 3, [1.0] * 3) == ""
    assert launch_bound([0.9] * 3, [1.0] * 3).startswith("launching takes 90% of the time: CUDA graphs")


def lucky(sittings: int, luck: float, seed: int, rounds: int = 100) -> list[float]:
    """Times with a quiet noise, and a luck of its own in each sitting."""
    generator = np.random.default_rng(seed)
    levels = np.exp(luck * generator.standard_normal(sittings)).repeat(rounds)
    return list(levels * np.exp(0.01 * generator.standard_normal(sittings * rounds)))


def test_the_luck_of_a_sitting_is_not_taken_for_a_difference() -> None:
    """With many pairs, one that forgets the sittings is certain of what is luck."""
    ones, wrong, forgetful = [1.0] * 600, 0, 0
    for seed in range(100):
        times = lucky(6, 0.03, seed)
        wrong += paired_ratio(times, ones, sittings=[100] * 6).verdict in ("faster", "slower")
        forgetful += paired_ratio(times, ones).verdict in ("faster", "slower")
    assert wrong <= 3
    assert forgetful >= 10


def test_the_interval_over_sittings_holds_the_truth_about_95_times_in_100() -> None:
    ones = [1.0] * 600
    found = [paired_ratio(lucky(6, 0.03, seed), ones, sittings=[100] * 6) for seed in range(100)]
    held = sum(ratio.low <= 1 <= ratio.high for ratio in found)
    assert 90 <= held <= 100
    assert np.median([ratio.high - ratio.low for ratio in found]) < 0.09


def test_sittings_that_agree_give_a_narrow_interval() -> None:
    ratio = paired_ratio(lucky(6, 0.001, 1), [1.0] * 600, sittings=[100] * 6)
    assert (ratio.verdict, ratio.high - ratio.low < 0.005) == ("no difference", True)
    assert settled_between(lucky(6, 0.001, 1), [1.0] * 600, [100] * 6)
    assert not settled_between(lucky(6, 0.05, 1), [1.0] * 600, [100] * 6)


def test_sittings_of_different_length_count_alike() -> None:
    """Nine tenths of the rounds are of the first sitting, which had luck."""
    times = [1.2] * 900 + [1.0 + 0.001 * (i % 7) for i in range(100)]
    ratio = paired_ratio(times, [1.0] * 1000, sittings=[900, 20, 20, 20, 20, 20])
    assert ratio.low < 1.01


def test_what_was_opened_once_must_be_faster_by_more_than_luck() -> None:
    ones = [1.0] * 500
    assert paired_ratio(times(500, 1.04, 0.01, 1), ones, sittings=[500]).verdict == "too noisy to say"
    assert paired_ratio(times(500, 1.04, 0.01, 1), ones).verdict == "faster"
    assert paired_ratio(times(500, 1.07, 0.01, 1), ones, sittings=[500]).verdict == "faster"
    assert paired_ratio(times(500, 1.0, 0.01, 1), ones, sittings=[500]).verdict == "no difference"
