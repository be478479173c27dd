"""Numbers that know how sure they are: a value and what it is over resampled seeds and questions."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Uncertain:
    """A value with its draws, float64 [R]; draws of two numbers from the same seeds and questions belong together."""

    value: float
    draws: np.ndarray
    interval: tuple[float, float] | None = None  # 95 %, where it is known without the draws

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.interval[0] if self.interval else float(np.percentile(self.draws, 2.5))

    @property
    def high(self) -> float:
        return self.interval[1] if self.interval else float(np.percentile(self.draws, 97.5))

    def probability(self, holds: Callable[[np.ndarray], np.ndarray]) -> float:
        """Share of the draws of which something holds."""
        return float(np.mean(holds(self.draws)))

    def __add__(self, other: Uncertain | float) -> Uncertain:
        return combined(lambda a, b: a + b, self, _lifted(other))

    def __sub__(self, other: Uncertain | float) -> Uncertain:
        return combined(lambda a, b: a - b, self, _lifted(other))

    def __mul__(self, factor: float) -> Uncertain:
        return Uncertain(self.value * factor, self.draws * factor)


def _lifted(number: Uncertain | float) -> Uncertain:
    return number if isinstance(number, Uncertain) else Uncertain(number, np.full(RESAMPLES, float(number)))


def combined(function: Callable[..., np.ndarray | float], *numbers: Uncertain) -> Uncertain:
    """A function of several numbers, of their values and draw by draw (the function takes arrays)."""
    value = float(function(*(np.float64(number.value) for number in numbers)))
    return Uncertain(value, np.asarray(function(*(number.draws for number in numbers)), np.float64))


def mean(numbers: Sequence[Uncertain]) -> Uncertain:
    """Of several numbers, draw by draw."""
    return combined(lambda *each: sum(each) / len(each), *numbers)


def from_verdicts(
    verdicts: np.ndarray, weights: np.ndarray | None = None, geometric: bool = False, best: float = 1.0
) -> Uncertain:
    """The mean over seeds of the (weighted, geometric) mean of verdicts float64 [seeds, questions], up to `best`.

    A bootstrap over seeds and questions at once. Every set-up of the same shape is resampled alike, so that differences
    are paired. The spread between S seeds is widened by √(S / (S - 1)): a bootstrap of so few is too sure. With one
    seed the interval is over questions alone. No resampling shows a doubt about rates that are all 0 or all 1: they get
    Wilson's interval of one seed's questions, and draws of Jeffreys' prior.
    """
    S, Q = verdicts.shape
    rate = best == 1 and bool(((verdicts >= 0) & (verdicts <= 1)).all())
    if rate and verdicts.min() == verdicts.max() and verdicts.min() in (0, 1):
        passed = int(Q * verdicts.min())
        draws = np.random.default_rng([S, Q]).beta(passed + 0.5, Q - passed + 0.5, RESAMPLES)
        wilson = stats.binomtest(passed, Q).proportion_ci(0.95, method="wilson")
        return Uncertain(float(verdicts.mean()), draws, (float(wilson.low), float(wilson.high)))
    weights = np.ones_like(verdicts) if weights is None else weights
    worth = np.log(verdicts) if geometric else verdicts
    means = np.average(worth, axis=1, weights=weights)  # [S]
    widened = worth + (np.sqrt(S / (S - 1)) - 1) * (means - means.mean())[:, None] if S > 1 else worth
    rng = np.random.default_rng([S, Q])
    seeds = rng.multinomial(S, np.full(S, 1 / S), RESAMPLES) / S  # [R, S]
    questions = rng.multinomial(Q, np.full(Q, 1 / Q), RESAMPLES) / Q  # [R, Q]
    draws = (seeds * (questions @ (weights * widened).T) / (questions @ weights.T)).sum(axis=1)
    if geometric:
        return Uncertain(float(np.exp(means.mean())), np.exp(draws))
    return Uncertain(float(means.mean()), draws.clip(0, 1) if rate else draws)


def from_seeds(values: np.ndarray) -> Uncertain:
    """The mean of one number per seed, float64 [S ≥ 2], with Student's t for so few."""
    value, S = float(values.mean()), len(values)
    error = float(values.std(ddof=1) / np.sqrt(S))
    draws = value + error * np.random.default_rng(S).standard_t(S - 1, RESAMPLES)
    low, high = stats.t.interval(0.95, S - 1) if error else (0.0, 0.0)
    return Uncertain(value, draws, (value + error * float(low), value + error * float(high)))


def published(value: float, error: float, name: str, interval: tuple[float, float] | None = None) -> Uncertain:
    """A number of which no more is known than its standard error; `name` makes its draws its own."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return Uncertain(value, value + error * rng.standard_normal(RESAMPLES), interval)
