"""Which differences studies detect: two set-ups over the same seeds and questions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

from sftmix_jax.analysis.assumptions import LEVEL, SEED_SPREAD, SMALLEST

POWER = 0.8  # share of studies that detect a difference
_DISAGREE = 1 / 3  # of the questions: those that two models of one seed answer with other success
_PSEUDO = 50 * math.sqrt(2)  # points that two pseudo-questions move a difference of rates near 50 %, times questions
_MOST_SEEDS = 1000


def border(degrees: float, level: float = LEVEL) -> float:
    """Standard errors from which an effect differs from 0: two-sided Student's t; normal where degrees are inf."""
    return float(stats.t.ppf(1 - level / 2, degrees))


@functools.cache
def detectable(degrees: float, level: float = LEVEL) -> float:
    """The smallest difference, in standard errors, that a two-sided t-test tells from 0 in 80 % of studies."""
    return _smallest(lambda effect: _power(effect, degrees, level))


def planned(seeds: int, questions: int, spread: float = SEED_SPREAD, level: float = LEVEL) -> float:
    """The smallest difference, in points, that holds in 80 % of studies: its interval lies above 0, its value is large
    enough to matter.

    inf for one seed, which tells nothing of another. Holm's correction over n findings tests each at a level between
    LEVEL / n, where none of the others holds, and LEVEL, where all of them do. Each seed's difference varies by the
    spread of both set-ups' seeds and by the noise of the answers; both scores by their pseudo-questions (`uncertain`).
    """
    if seeds < 2:
        return math.inf
    error = math.hypot(_deviation(questions, spread) / math.sqrt(seeds), _PSEUDO / (questions + 1))
    return error * _smallest(lambda effect: _power(effect, seeds - 1, level, SMALLEST / error))


def seeds_for(points: float, questions: int, spread: float = SEED_SPREAD, level: float = LEVEL) -> int | None:
    """How many seeds it takes for a difference to hold in 80 % of studies; None if it takes more than a thousand."""
    if planned(_MOST_SEEDS, questions, spread, level) > points:
        return None
    few, many = 1, _MOST_SEEDS
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if planned(middle, questions, spread, level) <= points else (middle, many)
    return many


def _deviation(questions: int, spread: float) -> float:
    """Standard deviation of one seed's difference, in points."""
    return math.sqrt(2 * spread**2 + 100**2 * _DISAGREE / questions)


def _smallest(share: Callable[[float], float]) -> float:
    """The smallest effect of which the share of studies that detect it reaches POWER."""
    high = 1.0
    while share(high) < POWER:
        high *= 2
    return float(optimize.brentq(lambda effect: share(effect) - POWER, 0.0, high))


def _power(effect: float, degrees: float, level: float, least: float = 0.0) -> float:
    """Share of studies whose t is beyond its border and whose value is at least `least`, all in standard errors.

    scipy's nct is NaN for few degrees.
    """
    wanted = np.maximum(border(degrees, level) * _spreads(degrees), least)
    return float(np.mean(stats.norm.sf(wanted - effect)))


@functools.cache
def _spreads(degrees: float) -> np.ndarray:
    """Quantiles of an estimated standard deviation over the true one; 1 where it is known."""
    if math.isinf(degrees):
        return np.ones(1)
    return np.asarray(np.sqrt(stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, degrees) / degrees))
