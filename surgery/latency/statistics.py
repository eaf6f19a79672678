"""From raw samples to words: a summary of one model's times, and the ratio of two with what may be said about it.

Samples come in pairs: in each round every model runs once, so both times of a pair saw the same machine. The ratio is
the median over pairs of first / second. Its 95 % interval is a bootstrap over *blocks* of consecutive pairs, since
neighbours in time share their disturbances and are no independent draws.

Why an interval that excludes 1 is not enough: it shrinks with 1/sqrt(n), but the luck of one process (where the
weights lie in memory, which model was loaded first) does not, so with many pairs a model is "0.2 % faster" than its
own copy, with certainty. Hence a margin of practical equivalence, `EQUIVALENCE`: a median ratio within 1 % of 1 is
never called faster or slower.

The verdict, about the second model:

- "faster": the whole interval lies above 1 and the median above 1 + margin; "slower" likewise, below.
- "no difference": the median lies within the margin and the interval is at most `SETTLED_WIDTH` wide.
- "too noisy to say": everything else.

Where the process was disturbed (`disturbance`: it had the processor for much less or much more time than its threads
account for) or the ratios scatter (IQR above `SCATTER` of their median), the margin is `NOISY_MARGIN` and must be
cleared by the whole interval: a factor of 3 can still be seen, a few percent cannot, and neither can their absence.
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
NOISY_MARGIN = 0.10
SCATTER = 0.20
WIDE_IQR = 0.10
"""An IQR above this share of the median earns a warning."""

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
    low, p50, high, p90 = (float(p) for p in np.percentile(latency_ms, [25, 50, 75, 90]))
    mean, least = float(np.mean(latency_ms)), float(np.min(latency_ms))
    return Summary(len(latency_ms), p50, high - low, p90, mean, least, 1000 / p50)


def paired_ratio(first_ms: Sequence[float], second_ms: Sequence[float], *, disturbed: str = "", seed: int = 0) -> Ratio:
    """The median of first / second over pairs, its 95 % interval and a verdict on the second.

    Args:
        first_ms: Times of the first model, one per round.
        second_ms: Times of the second, of the same rounds.
        disturbed: Why the times are doubtful, if they are.
        seed: Of the bootstrap.
    """
    ratios = np.asarray(first_ms, dtype=np.float64) / np.asarray(second_ms, dtype=np.float64)
    low, median, high = _interval(ratios, seed)
    if not disturbed:
        quarter, three_quarters = np.percentile(ratios, [25, 75])
        if (scatter := float(three_quarters - quarter) / median) > SCATTER:
            disturbed = f"the middle half of the ratios spans {scatter:.0%} of their median"
    verdict, why = _verdict(median, low, high, disturbed)
    return Ratio(median, low, high, verdict, why, len(ratios))


def _verdict(median: float, low: float, high: float, disturbed: str) -> tuple[Verdict, str]:
    """The rules of the module's docstring, and the one that applied."""
    margin = NOISY_MARGIN if disturbed else EQUIVALENCE
    above, below = (low, high) if disturbed else (median, median)
    if low > 1 and above > 1 + margin:
        return "faster", "the interval excludes 1, the margin is passed"
    if high < 1 and below < 1 / (1 + margin):
        return "slower", "the interval excludes 1, the margin is passed"
    if disturbed:
        return "too noisy to say", disturbed
    width = (high - low) / median
    if 1 / (1 + margin) <= median <= 1 + margin:
        if width <= SETTLED_WIDTH:
            return "no difference", f"the median is within {margin:.0%} of 1"
        return "too noisy to say", f"the interval is {width:.1%} wide"
    return "too noisy to say", "the interval includes 1"


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
