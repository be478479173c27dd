"""Whether the report's intervals and verdicts are right as often as they say, on simulated scores and studies.

python benchmarks/simulation.py [--trials 300]     coverage of 95 % intervals
python benchmarks/simulation.py --studies 200      wrong verdicts and power per study and per finding

A question is as hard for every set-up, a seed moves a set-up's score on all questions, and an answer is random beside
both. The paper's design is simulated whole: every set-up of RQ1 to RQ4 and the ablation, on two benchmarks of passes
and failures and one of ratings.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter

import numpy as np

from sftmix_jax.analysis import findings, rule, uncertain
from sftmix_jax.analysis.cells import Cells
from sftmix_jax.analysis.rule import Finding
from sftmix_jax.analysis.uncertain import Uncertain, Verdicts

SEEDS, QUESTIONS, SPREADS = (2, 3, 5, 10), (80, 100, 1319), (0.0, 2.0, 5.0)  # spreads: points between seeds
_HARD = 1.5  # standard deviation of the questions' difficulty, in logits
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


def rate(middle: float, spread: float) -> float:
    """The true rate where a logit has a middle and a standard deviation."""
    return float((_WEIGHTS / (1 + np.exp(-(middle + spread * _NODES)))).sum() / _WEIGHTS.sum())


def middle_of(wanted: float, spread: float) -> float:
    """The middle logit that gives a true rate."""
    low, high = -15.0, 15.0
    for _ in range(60):
        half = (low + high) / 2
        low, high = (half, high) if rate(half, spread) < wanted else (low, half)
    return low


def logits_of(wanted: float, points: float) -> float:
    """A spread between seeds in logits, where a rate has one in points: 0.5 at most, a seed does not double a rate."""
    return min(points / 100 / _slope(wanted), 0.5)


def real(kind: str, points: float) -> float:
    """The spread between seeds that is simulated where so many points are asked for."""
    task, rate, _ = KINDS[kind]
    return points if task == "general" else 100 * logits_of(rate, points) * _slope(rate)


def _slope(rate: float) -> float:
    """Rate per logit, about."""
    return 0.7 * rate * (1 - rate)


class World:
    """Questions and seeds of one simulated study: what all of its set-ups share."""

    def __init__(self, rng: np.random.Generator, seeds: int, questions: int, points: float):
        self.rng, self.seeds, self.questions, self.points = rng, seeds, questions, points
        self.hard = {task: rng.normal(0, 1, questions) for task in ("math", "code", "general")}
        self.luck = rng.normal(0, 1, seeds)  # half of a seed's variance is the same in every set-up

    def score(self, task: str, wanted: float, name: str = "") -> Uncertain:
        """A set-up's scores: of a rate from 0 to 1, or a rating from 0 to 10."""
        own = (self.luck + self.rng.normal(0, 1, self.seeds)) / np.sqrt(2)
        if task == "general":
            means = wanted + 1.5 * self.hard[task] + self.points / 10 * own[:, None]
            values, best = means + self.rng.normal(0, 1.5, (self.seeds, self.questions)), 10.0
        else:
            spread = logits_of(wanted, self.points)
            whole = np.hypot(_HARD, spread)
            logits = middle_of(wanted, whole) + _HARD * self.hard[task] + spread * own[:, None]
            values, best = (self.rng.uniform(size=logits.shape) < 1 / (1 + np.exp(-logits))).astype(float), 1.0
        score = Verdicts(
            f"{task} {name}",
            task,
            tuple(range(self.seeds)),
            tuple(map(str, range(self.questions))),
            values,
            np.ones_like(values),
            best,
        )
        return uncertain.of(score, best=best)


KINDS = {
    "rate 50 %": ("math", 0.5, None),
    "difference of rates": ("math", 0.4, 0.5),
    "rating": ("general", 5.5, None),
    "difference of ratings": ("general", 5.0, 5.5),
    "rate 2 %": ("math", 0.02, None),
    "rate 98 %": ("math", 0.98, None),
    "difference near 0": ("math", 0.02, 0.04),
}


def coverage(kind: str, seeds: int, questions: int, points: float, trials: int) -> float:
    """How often the 95 % interval holds the truth."""
    task, first, second = KINDS[kind]
    held = 0
    for trial in range(trials):
        world = World(np.random.default_rng([trial, seeds, questions]), seeds, questions, points)
        found, truth = world.score(task, first, "a"), first
        if second is not None:
            found, truth = world.score(task, second, "b") - found, second - first
        held += found.low <= truth <= found.high
    return held / trials


def study(world: World, effect: float) -> Cells:
    """The paper's whole design. Every finding is false at an effect of 0, and true at one of so many points."""
    e = effect / 100
    level = {"math": 0.4, "code": 0.3, "general": 5.0}
    unit = {"math": 1.0, "code": 1.0, "general": 10.0}
    places = {k: i for i, k in enumerate(findings.PARTS)}
    made: dict[tuple[str, tuple[tuple[str, str], ...]], Uncertain] = {}

    def add(ability: str, more: float, **labels: str) -> None:
        setup = tuple(sorted(labels.items()))
        made[ability, setup] = world.score(ability, level[ability] + unit[ability] * more, str(setup))

    for ability in level:
        for k, i in places.items():
            grown = e * min(i, 3 if ability == "general" else i)  # the general ability's last step is flat
            add(ability, grown, strategy="single", source=ability, k=k)
            mixed = grown + (0 if ability == "general" else e * (1.5 - i))
            add(ability, mixed, strategy="mixed", k=k)
            for setup in "abc":
                own = i if setup != "a" else 4
                add(ability, e * own, strategy="mixed", setup=setup, k=k)
            add(ability, e if ability != "general" else 0, strategy="dmt", k=k)
        add(ability, e if ability != "general" else 0, strategy="multitask")
        add(ability, 0, strategy="sequential")
        add(ability, 0, strategy="mixed_sequential", k="0")
        add(ability, -0.2, strategy="mixed_sequential", k="0", stage="base")
        whole = 4 * e + (0 if ability == "general" else e * -2.5)
        add(ability, whole + e, strategy="mixed", without="code,math", k="1")
    return Cells(made, "simulated", world.seeds)


# A replay costs nothing in either world; every other finding has an effect of 0 or of so many points.
_COSTS_NOTHING = "DMT at k = 1/256 costs the general ability nothing"


def is_wrong(finding: Finding, effect: float) -> bool:
    """Whether a verdict says what is not so: an effect where there is none; none, or the opposite, where there is."""
    if effect or finding.claim == _COSTS_NOTHING:
        return finding.verdict in (rule.OPPOSITE, rule.NO_EFFECT, rule.FAILS)
    return finding.verdict in (rule.HOLDS, rule.OPPOSITE)


def studies(seeds: int, questions: int, points: float, effect: float, trials: int) -> tuple[Counter[str], Counter[str]]:
    """In how many studies each finding holds, and in how many it is judged wrongly; "" counts any finding."""
    holds, wrong = Counter[str](), Counter[str]()
    for trial in range(trials):
        world = World(np.random.default_rng([trial, seeds, questions, 7]), seeds, questions, points)
        found = findings.find(study(world, effect))
        holds.update(finding.claim for finding in found if finding.verdict == rule.HOLDS)
        mistaken = [finding.claim for finding in found if is_wrong(finding, effect)]
        wrong.update([*mistaken, *([""] if mistaken else [])])
    return holds, wrong


def show_studies(trials: int, effect: float) -> None:
    """For each number of seeds a line for each size of study, then every finding over these sizes."""
    sizes = list(itertools.product(QUESTIONS, SPREADS))
    for seeds in SEEDS:
        every = {verdict: Counter[str]() for verdict in ("wrong at no effect", "wrong at the effect", "holds")}
        for questions, points in sizes:
            _, at_none = studies(seeds, questions, points, 0.0, trials)
            holds, wrong = studies(seeds, questions, points, effect, trials)
            for verdict, found in zip(every, (at_none, wrong, holds), strict=True):
                every[verdict].update(found)
            print(
                f"{seeds:3} seeds {questions:5} questions {points:g} points: of {trials} studies wrong at no effect "
                f"{at_none['']}, at {effect:g} points {wrong['']}; findings that hold {holds.total() / trials:.1f}",
                flush=True,
            )
        for claim in sorted({claim for found in every.values() for claim in found}):
            counts = ", ".join(f"{verdict} {found[claim]}" for verdict, found in every.items())
            print(f"    {claim or 'any finding'}: {counts} of {len(sizes) * trials}", flush=True)


def show_coverage(trials: int) -> None:
    """A line for each kind of number and size of study: coverage at each spread that can be simulated."""
    for kind in KINDS:
        spreads = {f"{real(kind, points):.1f}": points for points in SPREADS}
        for seeds, questions in itertools.product(SEEDS, QUESTIONS):
            found = {name: coverage(kind, seeds, questions, points, trials) for name, points in spreads.items()}
            told = "  ".join(f"{held:.3f} at {name}" for name, held in found.items())
            print(f"{kind:22} {seeds:3} seeds {questions:5} questions  {told} points", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--studies", type=int, default=0)
    parser.add_argument("--effect", type=float, default=10.0, help="of every finding, in points")
    options = parser.parse_args()
    begin = time.monotonic()
    if options.studies:
        show_studies(options.studies, options.effect)
    else:
        show_coverage(options.trials)
    print(f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
