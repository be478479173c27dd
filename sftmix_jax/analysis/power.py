"""Which differences a study can detect, known before it is run: two set-ups over the same seeds and questions."""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import optimize, stats

from sftmix_jax.analysis.assumptions import SEED_SPREAD
from sftmix_jax.analysis.rule import LEVEL

POWER = 0.8  # of studies in which a difference is told from 0
_DISAGREE = 1 / 3  # of the questions: those that two models of one seed answer with other success
_MOST_SEEDS = 1000


def detectable(seeds: int, questions: int, spread: float = SEED_SPREAD) -> float:
    """The smallest difference, in points, that a paired t-test over seeds detects in 80 % of studies.

    inf for one seed, which tells nothing of another. Each seed's difference varies by the spread of both set-ups'
    seeds and by the noise of the answers.
    """
    if seeds < 2:
        return math.inf
    error = _deviation(questions, spread) / math.sqrt(seeds)
    high = error
    while _power(high / error, seeds) < POWER:
        high *= 2
    return float(optimize.brentq(lambda points: _power(points / error, seeds) - POWER, 0.0, high))


def seeds_for(points: float, questions: int, spread: float = SEED_SPREAD) -> int | None:
    """How many seeds detect a difference in 80 % of studies; None if it takes more than a thousand."""
    if detectable(_MOST_SEEDS, questions, spread) > points:
        return None
    few, many = 1, _MOST_SEEDS
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if detectable(middle, questions, spread) <= points else (middle, many)
    return many


def _deviation(questions: int, spread: float) -> float:
    """Standard deviation of one seed's difference, in points."""
    return math.sqrt(2 * spread**2 + 100**2 * _DISAGREE / questions)


def _power(effect: float, seeds: int) -> float:
    """Of a two-sided paired t-test, the effect being in standard errors; scipy's nct is NaN for few seeds."""
    border = stats.t.ppf(1 - LEVEL / 2, seeds - 1) * _spreads(seeds - 1)
    return float(np.mean(stats.norm.sf(border - effect) + stats.norm.cdf(-border - effect)))


@functools.cache
def _spreads(degrees: int) -> np.ndarray:
    """Quantiles of an estimated standard deviation over the true one."""
    return np.sqrt(stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, degrees) / degrees)
