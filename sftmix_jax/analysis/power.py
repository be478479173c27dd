"""Which differences studies detect: two set-ups over the same seeds and questions."""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import optimize, stats

from sftmix_jax.analysis.assumptions import LEVEL, SEED_SPREAD

POWER = 0.8  # of studies in which a difference is told from 0
_DISAGREE = 1 / 3  # of the questions: those that two models of one seed answer with other success
_MOST_SEEDS = 1000


def border(degrees: float, level: float = LEVEL) -> float:
    """From how many standard errors on an effect differs from 0: Student's t, two-sided; normal where degrees are inf.
    """
    return float(stats.t.ppf(1 - level / 2, degrees))


@functools.cache
def detectable(degrees: float, level: float = LEVEL) -> float:
    """The smallest difference, in standard errors, that a two-sided t-test tells from 0 in 80 % of studies."""
    high = 1.0
    while _power(high, degrees, level) < POWER:
        high *= 2
    return float(optimize.brentq(lambda effect: _power(effect, degrees, level) - POWER, 0.0, high))


def planned(seeds: int, questions: int, spread: float = SEED_SPREAD, findings: int = 1) -> float:
    """The smallest difference, in points, that a planned study detects as one of so many findings.

    inf for one seed, which tells nothing of another. The level is the one at which Holm's correction judges the least
    p. Each seed's difference varies by the spread of both set-ups' seeds and by the noise of the answers.
    """
    if seeds < 2:
        return math.inf
    return _deviation(questions, spread) / math.sqrt(seeds) * detectable(seeds - 1, LEVEL / findings)


def seeds_for(points: float, questions: int, spread: float = SEED_SPREAD, findings: int = 1) -> int | None:
    """How many seeds detect a difference in 80 % of studies; None if it takes more than a thousand."""
    if planned(_MOST_SEEDS, questions, spread, findings) > points:
        return None
    few, many = 1, _MOST_SEEDS
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if planned(middle, questions, spread, findings) <= points else (middle, many)
    return many


def _deviation(questions: int, spread: float) -> float:
    """Standard deviation of one seed's difference, in points."""
    return math.sqrt(2 * spread**2 + 100**2 * _DISAGREE / questions)


def _power(effect: float, degrees: float, level: float) -> float:
    """Of a two-sided t-test, the effect being in standard errors; scipy's nct is NaN for few degrees."""
    least = border(degrees, level) * _spreads(degrees)
    return float(np.mean(stats.norm.sf(least - effect) + stats.norm.cdf(-least - effect)))


@functools.cache
def _spreads(degrees: float) -> np.ndarray:
    """Quantiles of an estimated standard deviation over the true one; 1 where it is known."""
    if math.isinf(degrees):
        return np.ones(1)
    return np.asarray(np.sqrt(stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, degrees) / degrees))
