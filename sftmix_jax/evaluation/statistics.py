"""How sure a score is: 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_RESAMPLES = 2000


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson 1927)."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    found = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    # rounding must not push the border past a rate of 0 or 1
    return max(0.0, min(found.low, successes / n)), min(1.0, max(found.high, successes / n))


def bootstrap_mean(values: Sequence[float], weights: Sequence[float] = (), seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of a (weighted) mean over questions; the same numbers give the same interval."""
    from scipy.stats import bootstrap

    if len(values) < 2:  # nothing can be resampled
        return (values[0], values[0]) if values else (float("nan"), float("nan"))
    data = np.asarray(values, np.float64)
    weight = np.asarray(weights, np.float64) if len(weights) else np.ones_like(data)
    found = bootstrap(
        (data, weight),
        lambda v, w, axis: (v * w).sum(axis) / w.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided mid-p of McNemar's test: the questions that just one of two models got right (Fagerland et al. 2013).

    The exact test's p is too large for few such questions; the mid-p counts half of what is as likely as the data.
    """
    from scipy.stats import binom

    n, fewer = only_first + only_second, min(only_first, only_second)
    if only_first == only_second:
        return 1.0
    return float(2 * binom.cdf(fewer, n, 0.5) - binom.pmf(fewer, n, 0.5))


def newcombe(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """Interval of the second rate minus the first over the same questions (Newcombe 1998, paired method 10).

    Wilson's intervals of both rates, put together by how the two go along on the questions. None of them: [-1, 1].
    """
    n = both + only_first + only_second + neither
    if not n:
        return -1.0, 1.0
    passed = both + only_first, both + only_second
    (low1, high1), (low2, high2) = (wilson(count, n) for count in passed)
    first, second = (count / n for count in passed)
    margins = math.prod((passed[0], n - passed[0], passed[1], n - passed[1]))
    excess = float(both * neither - only_first * only_second)
    excess = max(excess - n / 2, 0.0) if excess > 0 else excess  # continuity
    going_along = excess / math.sqrt(margins) if margins else 0.0

    def reach(down: float, up: float) -> float:
        return math.sqrt(max(down**2 - 2 * going_along * down * up + up**2, 0.0))

    difference = second - first
    low = difference - reach(second - low2, high1 - first)
    high = difference + reach(first - low1, high2 - second)
    return max(low, -1.0), min(high, 1.0)


def paired_t(differences: Sequence[float], weights: Sequence[float] = ()) -> tuple[float, float, float]:
    """Interval of a (weighted) mean difference over the same questions, and the two-sided p of its being 0.

    Student's t; of a weighted mean with the standard error of a ratio (Cochran 1977, section 6.3). NaN where fewer than
    two questions differ from one another in it: no spread is seen, so that nothing is known of other questions.
    """
    from scipy.stats import t

    values = np.asarray(differences, np.float64)
    n, weight = len(values), np.asarray(weights, np.float64) if len(weights) else np.ones(len(values))
    used = values[weight > 0]
    if len(used) < 2 or np.ptp(used) <= 1e-12 * max(1.0, float(np.abs(used).max())):
        return math.nan, math.nan, math.nan
    mean = float(np.average(values, weights=weight))
    error = math.sqrt(n / (n - 1) * float((weight**2 * (values - mean) ** 2).sum())) / float(weight.sum())
    reach = float(t.ppf(0.975, n - 1)) * error
    return mean - reach, mean + reach, float(2 * t.sf(abs(mean) / error, n - 1))


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Unbiased estimate of P(one of k passes) from `passed` of `samples` (Chen et al. 2021, equation 1)."""
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {samples}")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)
