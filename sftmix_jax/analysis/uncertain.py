"""Numbers with their uncertainty over the seeds and questions that they rest on.

A number is a function of scores. It is evaluated on the seeds and questions that all of its scores share, so a
difference is paired by seed number and question id, whatever the shape of what was measured. Two errors are added:

  seeds      Student's t with one weight per seed number, the same for all scores on the same seeds; scores that share
             too few seeds to pair have independent weights (few seeds: a bootstrap is too sure)
  questions  the Bayesian bootstrap (Rubin 1981) with one weight per question id, the same for every score; a score
             with a best value has two pseudo-questions of weight Gamma(1/2) at its ends, so that one run of passes and
             failures has exactly the posterior of a rate under Jeffreys' prior, and a score of 0 is no certainty

The noise of single answers is a part of both errors and must count once. By how much the questions' error is made less:

  one seed, or one number per seed     not at all: there is no second estimate of that noise
  several scores of one task on the    for the sum, as its noise is independent where the questions' difficulty is not,
  same seeds and questions that add    so that a difference has another part than each of its scores
  up (a difference, a mean)
  any other number                     for each of its scores alone

Numbers without questions whose seeds all agree tell no spread: everything is then possible (`Uncertain.has_spread`).
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from scipy import stats
from scipy.stats import qmc

RESAMPLES = 4096  # a power of two, as Sobol's points want
_BUCKETS = 2048  # questions whose ids share a bucket share a weight; memory does not grow with a benchmark
_SEEDS, _QUESTIONS, _ENDS = range(3)  # independent streams of random numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """A score on some seeds and questions with its errors, float64 [RESAMPLES]; of a geometric mean all in logarithms.

    `means`, float64 [S], are those of the seeds; `pulls`, float64 [S, Q], is by how much each answer pulls its seed's.
    """

    mean: float
    seeds: np.ndarray
    questions: np.ndarray
    kept: np.ndarray | float = 1.0  # the part of all weight that the questions have, beside the pseudo-questions
    pull: np.ndarray | float = 0.0  # by how much the pseudo-questions move the mean
    means: np.ndarray | None = None
    pulls: np.ndarray | None = None
    geometric: bool = False

    def scaled(self, mean: float | np.ndarray) -> np.ndarray:
        """A mean as the score itself."""
        return np.exp(mean) if self.geometric else np.asarray(mean)

    def draws(self, shrink: float) -> np.ndarray:
        """float64 [RESAMPLES], the questions' error times `shrink`."""
        return self.scaled(self.mean + self.seeds + shrink * self.kept * self.questions + self.pull)


class Score(Protocol):
    """What a number rests on."""

    @property
    def task(self) -> str: ...

    @property
    def seeds(self) -> tuple[int, ...] | None:
        """The seeds' numbers; None where no seed has a part in it, as in the score of a base."""

    @property
    def questions(self) -> tuple[str, ...]: ...

    def drawn(self, seeds: tuple[int, ...] | None, questions: tuple[str, ...]) -> Drawn: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Verdicts:
    """A set-up's verdicts on a task's questions, float64 [seeds, questions], and each one's weight in the mean."""

    name: str  # of the set-up and its task
    task: str
    seeds: tuple[int, ...] | None  # None: one row, of a model that every seed shares
    questions: tuple[str, ...]
    values: np.ndarray
    weights: np.ndarray
    best: float = 1.0  # the best possible verdict; 0: none
    geometric: bool = False
    worst: float = 0.0  # the worst possible verdict, where there is a best

    def drawn(self, seeds: tuple[int, ...] | None, questions: tuple[str, ...]) -> Drawn:
        """The score on some of its seeds and questions."""
        return self._drawn_once(seeds, None if questions == self.questions else questions)

    @functools.cached_property
    def _drawn_once(self) -> Callable[[tuple[int, ...] | None, tuple[str, ...] | None], Drawn]:
        return functools.cache(self._drawn)

    def _drawn(self, seeds: tuple[int, ...] | None, questions: tuple[str, ...] | None) -> Drawn:
        values, weights, buckets = self.values, self.weights, self._buckets
        if self.seeds and seeds and seeds != self.seeds:
            rows = [self.seeds.index(seed) for seed in seeds]
            values, weights = values[rows], weights[rows]
        if questions is not None:
            places = {question: place for place, question in enumerate(self.questions)}
            columns = [places[question] for question in questions]
            values, weights, buckets = values[:, columns], weights[:, columns], buckets[columns]
        worth = np.log(values) if self.geometric else values
        means = np.average(worth, axis=1, weights=weights)  # [S]
        mean, S = float(means.mean()), len(means)
        pulls = weights / weights.mean() * (worth - means[:, None])
        buckets, places_ = np.unique(buckets, return_inverse=True)
        sums = [np.bincount(places_, each.mean(axis=0)) for each in (pulls, weights / weights.mean())]
        above, below = (np.stack(sums).astype(np.float32) @ _question_weights()[buckets]).astype(np.float64)
        error = _students(seeds or ()) @ (means - mean) / np.sqrt(S * (S - 1)) if S > 1 else np.zeros(RESAMPLES)
        least, most = self._ends
        whole = below + least + most
        pull = (most * (self.best - mean) + least * (self.worst - mean)) / whole
        return Drawn(mean, error, above / below, below / whole, pull, means, pulls, self.geometric)

    @property
    def _ends(self) -> np.ndarray:
        """Weights of the pseudo-questions at the worst and the best value, float64 [2, RESAMPLES]."""
        if not self.best or self.geometric:
            return np.zeros((2, RESAMPLES))
        rng = np.random.default_rng([_ENDS, zlib.crc32(self.name.encode(errors="surrogatepass"))])
        return rng.gamma(0.5, size=(2, RESAMPLES))

    @functools.cached_property
    def _buckets(self) -> np.ndarray:
        """A bucket for each question, int [Q]."""
        names = (f"{self.task}\n{question}".encode(errors="surrogatepass") for question in self.questions)
        return np.array([zlib.crc32(name) % _BUCKETS for name in names], np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Published:
    """A number of which no more is known than its standard error."""

    value: float
    error: float
    name: str  # makes its draws its own
    task: str = ""
    seeds: tuple[int, ...] | None = None
    questions: tuple[str, ...] = ()

    def drawn(self, seeds: tuple[int, ...] | None, questions: tuple[str, ...]) -> Drawn:
        """The number; its error is counted as one of seeds."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode(errors="surrogatepass")))
        error = self.error * rng.standard_normal(RESAMPLES)
        return Drawn(self.value, error, np.zeros(RESAMPLES))


def _shrink(means: np.ndarray, pulls: np.ndarray) -> float:
    """The part of the questions' error that the spread between seeds does not hold: means [S], pulls float64 [S, Q].

    The noise of single answers is a part of both, and counts once. Where seeds agree more closely than that noise
    allows, as two seeds with the same number of passes do, it counts here.
    """
    S, Q = pulls.shape
    each = pulls.mean(axis=0)
    if S == 1 or Q == 1 or not (spread := float(each.var(ddof=1))):
        return 1.0
    noise = float(((pulls - each) ** 2).sum()) / ((S - 1) * (Q - 1))
    counted = min(noise, Q * float(means.var(ddof=1)))
    return float(np.sqrt(max(0.0, 1 - counted / S / spread)))


def _shrinks(found: Mapping[Score, Drawn], slopes: Mapping[Score, float]) -> dict[Score, float]:
    """By how much the questions' error of each of some paired scores is made less, by the cases of the module."""
    moving = [slopes[score] for score in found]
    if len(found) > 1 and np.isfinite(moving).all() and any(moving):
        return dict.fromkeys(found, _shrink(_added(found, slopes, "means"), _added(found, slopes, "pulls")))
    return {s: _shrink(d.means, d.pulls) for s, d in found.items() if d.means is not None and d.pulls is not None}


def _added(found: Mapping[Score, Drawn], slopes: Mapping[Score, float], part: str) -> np.ndarray:
    """The sum of what several scores add to a number."""
    return sum((slopes[score] * getattr(drawn, part) for score, drawn in found.items()), np.zeros(()))


def _has_spread(found: Mapping[Score, Drawn], slopes: Mapping[Score, float]) -> bool:
    """Whether the part of some paired scores in a number varies, where they have several seeds and no questions."""
    if not all(d.pulls is not None and len(d.pulls) > 1 and d.pulls.shape[1] == 1 for d in found.values()):
        return True
    added = _added(found, slopes, "means")
    return not np.ptp(added) <= 1e-12 * max(1.0, float(np.abs(added).max()))  # NaN counts as spread


@functools.cache
def _question_weights() -> np.ndarray:
    """float32 [_BUCKETS, RESAMPLES], exponential: divided by their sum they are the Bayesian bootstrap's."""
    return np.random.default_rng(_QUESTIONS).standard_exponential((_BUCKETS, RESAMPLES), np.float32)


@functools.cache
def _students(seeds: tuple[int, ...]) -> np.ndarray:
    """Weights of the seeds' deviations, float64 [RESAMPLES, S]; every sum of them is Student's t with S - 1 degrees.

    They belong to all of the seeds together: scores that share only some have independent weights, as they are not
    paired. Sobol's points (Owen 1998) reach the tails that a correction for many findings asks for about twice as
    closely as independent numbers; they are shuffled, since two scrambled sequences are not independent in their order.
    """
    rng, degrees = np.random.default_rng([_SEEDS, *seeds]), len(seeds) - 1
    points = rng.permutation(qmc.Sobol(len(seeds) + 1, rng=rng).random(RESAMPLES)) + 2.0**-31  # never 0
    spread = stats.chi2.ppf(points[:, :1], degrees) / degrees
    return np.asarray(stats.norm.ppf(points[:, 1:]) / np.sqrt(spread))


class Uncertain:
    """A number, evaluated where it is asked for; its draws belong together with those of every other number."""

    def __init__(
        self,
        scores: Iterable[Score],
        function: Callable[[Mapping[Score, np.ndarray]], np.ndarray],
        interval: tuple[float, float] | None = None,
        least: float = -np.inf,
        most: float = np.inf,
    ):
        self._scores, self._function = tuple(dict.fromkeys(scores)), function
        self.interval = interval  # 95 %, where it is known otherwise
        self._ends = least, most

    @functools.cached_property
    def _evaluated(self) -> tuple[float, np.ndarray, bool]:
        """Value, draws, and whether the seeds show any spread where nothing else does."""
        seeds, questions = shared_seeds(self._scores), shared_questions(self._scores)
        on = {s: (s.seeds and (seeds or s.seeds), questions[s.task] or s.questions) for s in self._scores}
        found = {score: score.drawn(*on[score]) for score in self._scores}
        slopes = {score: self._slope(score, found) for score in found}
        has_spread, shrink = True, dict.fromkeys(found, 1.0)
        paired: dict[Hashable, dict[Score, Drawn]] = defaultdict(dict)  # never by the shape of their arrays
        for score, drawn in found.items():
            if drawn.means is not None:
                paired[score.task, *on[score]][score] = drawn
        for mine in paired.values():
            has_spread &= _has_spread(mine, slopes)
            shrink |= _shrinks(mine, slopes)
        value = self._function({score: drawn.scaled(drawn.mean) for score, drawn in found.items()})
        draws = self._function({score: drawn.draws(shrink[score]) for score, drawn in found.items()})
        return float(value), np.broadcast_to(np.asarray(draws, np.float64), RESAMPLES), has_spread

    def _slope(self, score: Score, found: Mapping[Score, Drawn]) -> float:
        """How the number moves with one of its scores."""
        step = 1e-4 * max(abs(found[score].mean), 1e-2)
        low, high = (
            self._function({s: d.scaled(d.mean + (moved if s is score else 0.0)) for s, d in found.items()})
            for moved in (-step, step)
        )
        return float(high - low) / (2 * step)

    @property
    def value(self) -> float:
        return self._evaluated[0]

    @property
    def draws(self) -> np.ndarray:
        """float64 [RESAMPLES]"""
        return self._evaluated[1]

    @property
    def has_spread(self) -> bool:
        """False of several seeds without questions that all agree: what another seed would give is not known."""
        return self._evaluated[2]

    def quantiles(self, *shares: float) -> list[float]:
        """Of the draws; everything is possible where no spread is known."""
        if not self.has_spread:
            return [self._ends[share > 0.5] for share in shares]
        return [min(max(float(end), self._ends[0]), self._ends[1]) for end in np.quantile(self.draws, shares)]

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval, which holds the value: at a rate's ends its draws are drawn inwards."""
        return min(self.interval[0] if self.interval else self.quantiles(0.025)[0], self.value)

    @property
    def high(self) -> float:
        return max(self.interval[1] if self.interval else self.quantiles(0.975)[0], self.value)

    def below(self, border: float = 0.0) -> float:
        """The probability that it is below a border; ties count half, and no number of draws makes it 0 or 1."""
        if not self.has_spread:
            return 0.5
        less, tied = np.count_nonzero(self.draws < border), np.count_nonzero(self.draws == border)
        return float((less + tied / 2 + 0.5) / (len(self.draws) + 1))

    def probability(self, holds: Callable[[np.ndarray], np.ndarray]) -> float:
        """Share of the draws of which something holds."""
        return float(np.mean(holds(self.draws)))

    @property
    def runs(self) -> int | None:
        """How many seeds it rests on, at each of its scores at least; None where seeds have no part in it."""
        counts = [len(score.seeds) for score in self._scores if score.seeds is not None]
        return (len(shared_seeds(self._scores)) or min(counts)) if counts else None

    @property
    def restricted(self) -> str:
        """What of the seeds and questions is left out because not all of its scores have them, in words."""
        told = []
        seeds = dict.fromkeys(seed for score in self._scores for seed in score.seeds or ())
        if seeds and (shared := shared_seeds(self._scores)) and len(shared) < len(seeds):
            told.append(f"{len(shared)} of {len(seeds)} seeds")
        elif seeds and not shared and len({score.seeds for score in self._scores} - {None}) > 1:
            some = set.intersection(*(set(score.seeds) for score in self._scores if score.seeds is not None))
            told.append("1 seed in common, too few to pair" if some else "no seeds in common, unpaired")
        for task, questions in shared_questions(self._scores).items():
            every = dict.fromkeys(q for score in self._scores if score.task == task for q in score.questions)
            if every and len(questions) < len(every):
                told.append(
                    f"{len(questions)} of {len(every)} questions of {task}"
                    if questions
                    else f"no questions of {task} in common, unpaired"
                )
        return ", ".join(told)

    def __add__(self, other: Uncertain | float) -> Uncertain:
        return combined(lambda a, b: a + b, self, other)

    def __sub__(self, other: Uncertain | float) -> Uncertain:
        return combined(lambda a, b: a - b, self, other)

    def __mul__(self, factor: float) -> Uncertain:
        return combined(lambda a: a * factor, self)

    def __neg__(self) -> Uncertain:
        return self * -1.0

    @property
    def scores(self) -> tuple[Score, ...]:
        return self._scores

    def at(self, found: Mapping[Score, np.ndarray]) -> np.ndarray:
        """The number where its scores have given values."""
        return self._function(found)


def shared_seeds(scores: Iterable[Score]) -> tuple[int, ...]:
    """The seeds that all scores have which have any; none where these are fewer than two and each has more."""
    each = [score.seeds for score in scores if score.seeds is not None]
    if not each:
        return ()
    shared = tuple(seed for seed in each[0] if all(seed in seeds for seeds in each))
    return shared if len(shared) >= min(2, *map(len, each)) else ()


def shared_questions(scores: Iterable[Score]) -> dict[str, tuple[str, ...]]:
    """Task → the questions that all of its scores have; none where they have none in common."""
    found: dict[str, tuple[str, ...]] = {}
    for score in scores:
        known = found.get(score.task)
        if known is None or known == score.questions:
            found[score.task] = score.questions
        else:
            mine = set(score.questions)
            found[score.task] = tuple(question for question in known if question in mine)
    return found


def combined(function: Callable[..., np.ndarray | float], *numbers: Uncertain | float) -> Uncertain:
    """A function of several numbers, of their values and draw by draw (the function takes arrays)."""

    def at(found: Mapping[Score, np.ndarray]) -> np.ndarray:
        return np.asarray(function(*(n.at(found) if isinstance(n, Uncertain) else n for n in numbers)))

    return Uncertain((score for n in numbers if isinstance(n, Uncertain) for score in n.scores), at)


def mean(numbers: Sequence[Uncertain]) -> Uncertain:
    """Of several numbers, draw by draw."""
    return combined(lambda *each: sum(each) / len(each), *numbers)


def of(score: Score, interval: tuple[float, float] | None = None, best: float = 0.0, worst: float = 0.0) -> Uncertain:
    """A score as it stands; its interval stays between its worst and best value, if it has these."""
    least, most = (worst, best) if best else (-np.inf, np.inf)
    return Uncertain((score,), lambda found: found[score], interval, least, most)


def from_verdicts(
    values: np.ndarray,
    weights: np.ndarray | None = None,
    geometric: bool = False,
    best: float = 1.0,
    seeds: Sequence[int] | None = None,
    questions: Sequence[str] | None = None,
    name: str = "",
    task: str = "",
) -> Uncertain:
    """The mean over seeds of the (weighted, geometric) mean of verdicts, float64 [seeds, questions]."""
    S, Q = values.shape
    score = Verdicts(
        name,
        task,
        tuple(range(S) if seeds is None else seeds),
        tuple(map(str, range(Q))) if questions is None else tuple(questions),
        values,
        np.ones_like(values) if weights is None else weights,
        best,
        geometric,
    )
    return of(score, best=0.0 if geometric else best)


def from_seeds(
    values: Sequence[float], seeds: Sequence[int] | None = None, task: str = "", best: float = 0.0
) -> Uncertain:
    """The mean of one number per seed: Student's t alone; its interval stays between 0 and a best value.

    Seeds that all agree show no spread, so that nothing is known of another seed.
    """
    made = from_verdicts(np.asarray(values, np.float64)[:, None], best=0.0, seeds=seeds, questions=("",), task=task)
    return of(made.scores[0], best=best)


def published(value: float, error: float, name: str, interval: tuple[float, float] | None = None) -> Uncertain:
    """A number of which no more is known than its standard error; `name` makes its draws its own."""
    return of(Published(value, error, name), interval)
