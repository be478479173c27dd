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
    if not values:
        return float("nan"), float("nan")
    data = np.asarray(values, np.float64)
    weight = np.asarray(weights, np.float64) if len(weights) else np.ones_like(data)
    drawn = np.random.default_rng(seed).integers(0, len(data), (_RESAMPLES, len(data)))
    means = (data * weight)[drawn].sum(axis=1) / weight[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test: the questions that just one of two models got right (McNemar 1947)."""
    from scipy.stats import binomtest

    n = only_first + only_second
    return float(binomtest(only_first, n).pvalue) if n else 1.0


def paired_bootstrap(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p of a mean difference over the same questions being 0, by resampling the questions."""
    data = np.asarray(differences, np.float64)
    rng = np.random.default_rng(seed)
    means = data[rng.integers(0, len(data), (_RESAMPLES, len(data)))].mean(axis=1)
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (_RESAMPLES + 1)))


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Unbiased estimate of P(one of k passes) from `passed` of `samples` (Chen et al. 2021, equation 1)."""
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {samples}")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)
