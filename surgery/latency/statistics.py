"""From raw samples to words: a summary of one model's times, and the ratio of two with what may be said about it.

Samples come in pairs: in each round every model runs once, so both times of a pair saw the same machine. The ratio is
the median over pairs of first / second. Pairs come in sittings, between which the models were opened anew: where the
weights lie in memory is luck that lasts for a sitting. So the 95 % interval is a bootstrap over sittings, its level
raised for their small number (Hesterberg 2015, What Teachers Should Know about the Bootstrap: the expanded percentile
interval). Where a model was opened once, it is a bootstrap over *blocks* of consecutive pairs, since neighbours in time
share their disturbances, and the luck stays unknown: what is to be called faster must be so by `LUCK`.

A margin of practical equivalence: a ratio within 1 % of 1 (`EQUIVALENCE`) is never called faster or slower, nor is one
whose interval reaches into that margin.

The verdict, about the second model:

- "faster": the whole interval lies above 1 + margin; "slower" likewise, below.
- "no difference": the median lies within 1 % of 1 and the interval is at most 2 % wide.
- "too noisy to say": everything else.

Where the process was disturbed (`disturbance`: it had the processor for much less or much more time than its threads
account for) or the ratios scatter (IQR above `SCATTER` of their median), the margin is `NOISY_MARGIN`: a factor of 3
can still be seen, a few percent cannot, and neither can their absence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["faster", "slower", "no difference", "too noisy to say"]

CONFIDENCE = 0.95
EQUIVALENCE = 0.01
SETTLED_WIDTH = 0.02
LUCK = 0.05
NOISY_MARGIN = 0.10
SCATTER = 0.20
BETWEEN_RUNS = 0.05
"""Between two runs of a benchmark, whose processes and hours differ, this much is no difference."""

WIDE_IQR = 0.10
"""An IQR above this share of the median earns a warning."""

LAUNCH_BOUND = 0.8
"""A call whose launches take this share of its time waits for the processor, not for the GPU."""

TAIL = 100
"""The least number of samples of which the slowest hundredth means something."""

FEW = 4
"""Below so many sittings their differences tell too little of luck."""

POINTS = 50
"""Quantiles that stand for one sitting."""

_BLOCKS = 100
_RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """One model's times in milliseconds, and calls per second at the median."""

    n: int
    p50_ms: float
    iqr_ms: float
    p90_ms: float
    mean_ms: float
    min_ms: float
    calls_per_s: float
    p99_ms: float | None = None
    """None below 100 samples: the slowest of 50 calls is no percentile."""

    @property
    def wide(self) -> bool:
        """Whether the IQR passes 10 % of the median."""
        return self.iqr_ms > WIDE_IQR * self.p50_ms

    def __str__(self) -> str:
        digits = 2 if self.p50_ms >= 1 else 4
        return f"{self.p50_ms:.{digits}f} ms (IQR {self.iqr_ms:.{digits}f}, n={self.n})"


@dataclass(frozen=True)
class Ratio:
    """First over second: above 1 the second model is faster; `low` and `high` bound the median with 95 % confidence.

    `verdict` is about the second model; `why` gives its reason, and `n` the number of pairs.
    """

    median: float
    low: float
    high: float
    verdict: Verdict
    why: str
    n: int

    def __str__(self) -> str:
        interval = f"{self.median:.3f}x [{self.low:.3f}, {self.high:.3f}]"
        return f"{interval}: {self.verdict} ({self.why}; {self.n} pairs)"


def summarize(latency_ms: Sequence[float]) -> Summary:
    """Median, spread and tail of one model's times; `latency_ms` holds at least one."""
    low, p50, high, p90, p99 = (float(p) for p in np.percentile(latency_ms, [25, 50, 75, 90, 99]))
    mean, least, n = float(np.mean(latency_ms)), float(np.min(latency_ms)), len(latency_ms)
    return Summary(n, p50, high - low, p90, mean, least, 1000 / p50, p99 if n >= TAIL else None)


def paired_ratio(
    first_ms: Sequence[float],
    second_ms: Sequence[float],
    *,
    sittings: Sequence[int] = (),
    disturbed: str = "",
    seed: int = 0,
) -> Ratio:
    """The median of first / second over pairs, its 95 % interval and a verdict on the second.

    Args:
        first_ms: Times of the first model, one per round.
        second_ms: Times of the second, of the same rounds.
        sittings: The number of rounds in each sitting; () where that is not known.
        disturbed: Why the times are doubtful, if they are.
        seed: Of the bootstrap.
    """
    ratios = np.asarray(first_ms, dtype=np.float64) / np.asarray(second_ms, dtype=np.float64)
    if len(sittings) >= FEW:
        low, median, high = _interval_of_sittings(ratios, sittings, seed)
    else:
        low, median, high = _interval(ratios, seed)
    if not disturbed:
        quarter, three_quarters = np.percentile(ratios, [25, 75])
        if (scatter := float(three_quarters - quarter) / median) > SCATTER:
            disturbed = f"the middle half of the ratios spans {scatter:.0%} of their median"
    verdict, why = _verdict(median, low, high, disturbed, LUCK if 0 < len(sittings) < FEW else EQUIVALENCE)
    return Ratio(median, low, high, verdict, why, len(ratios))


def unpaired_ratio(
    first_ms: Sequence[float], second_ms: Sequence[float], *, disturbed: str = "", seed: int = 0
) -> Ratio:
    """The ratio of the medians of two runs, its 95 % interval and a verdict on the second.

    As `paired_ratio`, but nothing pairs the samples: what changed in the machine between the runs stays in the ratio.
    The margin is `BETWEEN_RUNS`.
    """
    from scipy import stats  # slow to import

    first, second = (np.asarray(ms, dtype=np.float64) for ms in (first_ms, second_ms))
    median = float(np.median(first) / np.median(second))
    if min(len(first), len(second)) < 2 or (np.ptp(first) == 0 and np.ptp(second) == 0):
        return Ratio(median, median, median, "too noisy to say", "there are too few samples", len(second))

    def of_medians(a: NDArray[np.float64], b: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(np.median(a, axis=axis) / np.median(b, axis=axis))

    found: Any = stats.bootstrap(
        (first, second),
        of_medians,
        n_resamples=_RESAMPLES,
        batch=max(1, 1_000_000 // max(len(first), len(second))),
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = float(found.confidence_interval.low), float(found.confidence_interval.high)
    low, high = min(low, median), max(high, median)
    verdict, why = _verdict(median, low, high, disturbed, BETWEEN_RUNS, BETWEEN_RUNS)
    return Ratio(median, low, high, verdict, why, len(second))


def _verdict(
    median: float, low: float, high: float, disturbed: str, usual: float = EQUIVALENCE, same: float = EQUIVALENCE
) -> tuple[Verdict, str]:
    """The rules of the module's docstring, and the one that applied.

    `usual` is the margin of an undisturbed run, `same` how far from 1 is no difference.
    """
    margin = NOISY_MARGIN if disturbed else usual
    if low > 1 + margin:
        return "faster", f"the whole interval is more than {margin:.0%} above 1"
    if high < 1 / (1 + margin):
        return "slower", f"the whole interval is more than {margin:.0%} below 1"
    if disturbed:
        return "too noisy to say", disturbed
    width = (high - low) / median
    if 1 / (1 + same) <= median <= 1 + same:
        if width <= 2 * same:
            return "no difference", f"the median is within {same:.0%} of 1"
        return "too noisy to say", f"the interval is {width:.1%} wide"
    if margin == LUCK:
        return "too noisy to say", f"opened once, for which {margin:.0%} either way may be luck"
    return "too noisy to say", f"the interval reaches within {margin:.0%} of 1"


def _interval_of_sittings(
    ratios: NDArray[np.float64], sittings: Sequence[int], seed: int
) -> tuple[float, float, float]:
    """Low, median and high; whole sittings are drawn."""
    from scipy import stats  # slow to import, and not needed where times are taken

    median, count = float(np.median(ratios)), len(sittings)
    if np.all(ratios == ratios[0]):
        return median, median, median
    ends = np.cumsum(sittings)
    parts = [ratios[end - length : end] for end, length in zip(ends, sittings, strict=True)]
    # every sitting counts alike, however many rounds it has: so many quantiles of each stand for it
    points = np.linspace(0, 1, 2 * min(POINTS, max(sittings)) + 1)[1::2]
    quantiles = np.stack([np.quantile(part, points) for part in parts])
    tail = stats.norm.cdf(-stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * (count / (count - 1)) ** 0.5)

    def median_of(drawn: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        picked = quantiles[drawn]  # (..., sittings, points)
        return np.asarray(np.median(picked.reshape(*drawn.shape[:-1], -1), axis=axis))

    result: Any = stats.bootstrap(
        (np.arange(count),),
        median_of,
        n_resamples=_RESAMPLES,
        vectorized=True,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    return min(low, median), median, max(high, median)


def _interval(ratios: NDArray[np.float64], seed: int) -> tuple[float, float, float]:
    """Low, median and high; the bootstrap draws blocks of consecutive pairs."""
    from scipy import stats  # slow to import, and not needed where times are taken

    median = float(np.median(ratios))
    length = max(1, len(ratios) // _BLOCKS)
    blocks = ratios[len(ratios) % length :].reshape(-1, length)
    if len(blocks) < 2 or np.all(ratios == ratios[0]):
        return float(ratios.min()), median, float(ratios.max())

    def median_of_blocks(drawn: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        picked = blocks[drawn]  # (..., blocks, length)
        return np.asarray(np.median(picked.reshape(*drawn.shape[:-1], -1), axis=axis))

    result: Any = stats.bootstrap(
        (np.arange(len(blocks)),),
        median_of_blocks,
        n_resamples=_RESAMPLES,
        batch=max(1, 1_000_000 // len(ratios)),
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",  # BCa needs a jackknife, which is degenerate for a median
        rng=np.random.default_rng(seed),
    )
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    return min(low, median), median, max(high, median)


def settled(first_ms: Sequence[float], second_ms: Sequence[float]) -> bool:
    """Whether the interval of the median ratio is narrower than `SETTLED_WIDTH` already.

    By order statistics: the 95 % interval of a median has its ends at ranks n/2 ± 0.98 sqrt(n). Far cheaper than a
    bootstrap, so that asking between two rounds does not disturb the next one.
    """
    ratios = np.sort(np.asarray(first_ms) / np.asarray(second_ms))
    n, reach = len(ratios), 0.98 * len(ratios) ** 0.5
    low, high = ratios[max(0, int(n / 2 - reach))], ratios[min(n - 1, int(np.ceil(n / 2 + reach)))]
    return bool(high - low < SETTLED_WIDTH * ratios[n // 2])


def settled_between(first_ms: Sequence[float], second_ms: Sequence[float], sittings: Sequence[int]) -> bool:
    """Whether the interval of the median ratio is narrower than `SETTLED_WIDTH` already, by the medians of sittings.

    By Student's t on their logarithms: cheap, and close to the bootstrap that is made of them in the end.
    """
    from scipy.special import stdtrit

    logs = np.log(np.asarray(first_ms) / np.asarray(second_ms))
    medians = [np.median(part) for part in np.split(logs, np.cumsum(sittings)[:-1])]
    reach = float(stdtrit(len(medians) - 1, (1 + CONFIDENCE) / 2)) * float(np.std(medians, ddof=1))
    return bool(2 * reach / len(medians) ** 0.5 < SETTLED_WIDTH)


def disturbance(cpu_ms: Sequence[float], latency_ms: Sequence[float], threads: int) -> str:
    """Why the times of one model on a CPU are doubtful, or "".

    A call on one thread that had the machine to itself takes as much processor time as wall time. Much less: it
    waited for someone else. Much more than its threads can take: something else ran in the process. With several
    threads, anything from a bit under one core to all of them is normal: few models keep all threads busy.
    """
    wall = float(np.median(latency_ms))
    share = float(np.median(cpu_ms)) / wall
    clocks = 0.005 / wall  # reading both clocks costs up to 5 microseconds of processor time
    if share < 0.9:
        return f"a call had the processor for {share:.0%} of its time"
    if share > 1.1 * threads + clocks:
        return f"a call used {share:.1f} cores with {threads} thread{'s' * (threads > 1)}"
    return ""


def launch_bound(host_ms: Sequence[float], latency_ms: Sequence[float]) -> str:
    """Whether a call on a GPU mostly waits for its own launches, in words, or "".

    The call returns when everything is launched; what is left of its time the GPU still works. Little left means that
    the GPU kept pace with the launches, and idled between them.
    """
    if not host_ms:
        return ""
    share = float(np.median(host_ms)) / float(np.median(latency_ms))
    if share < LAUNCH_BOUND:
        return ""
    return f"launching takes {share:.0%} of the time: CUDA graphs or a larger batch would tell more about the model"
