"""The rule by which a claim is judged: what its numbers say, and how surely, over all claims that are tested.

Every verdict but "cannot tell" is read from a confidence interval, so one claim is judged wrongly in at most 5 % of
studies. Holm's procedure (Holm 1979) keeps that bound for all claims of a study together.
Which kind of p a verdict has:

  two-sided  "holds" and "the opposite holds" of an effect (`is_positive`), and "no effect that matters" (`is_within`,
             the larger of two sides), each twice the share of draws beyond a border, as a 95 % interval asks
  one-sided  what a replay costs (P of 0.95 that it is at most, or more than, what is allowed)
  posterior  where a crossing lies: twice the share of draws outside, or inside, of where it is claimed to be
  largest    of a claim with several parts, all of which must be true: the largest p of these
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from sftmix_jax.analysis import power
from sftmix_jax.analysis.assumptions import LEVEL, SMALLEST
from sftmix_jax.analysis.uncertain import Uncertain

HOLDS, OPPOSITE, NO_EFFECT, FAILS = "holds", "the opposite holds", "no effect that matters", "does not hold"
UNCLEAR, ONE_RUN, MISSING = "cannot tell", "one run", "not measured"
VERDICTS = (HOLDS, OPPOSITE, NO_EFFECT, FAILS, UNCLEAR, ONE_RUN, MISSING)


@dataclasses.dataclass(frozen=True)
class Claim:
    """What could be said of a claim, each verdict with its p: the level at which the numbers would say it."""

    question: str  # RQ1 … RQ4
    claim: str
    numbers: str = ""
    verdicts: dict[str, float] = dataclasses.field(default_factory=dict)  # empty: not measured
    runs: int | None = None  # seeds, the least over all of its numbers; None: one published number each
    effect: Uncertain | None = None  # of which the claim says that it is above 0
    unit: str = " points"  # of the effect
    comparisons: int = 1  # that its p's allow for already


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim, its verdict, and the numbers behind it."""

    question: str
    claim: str
    verdict: str
    numbers: str

    @property
    def is_measured(self) -> bool:
        return self.verdict != MISSING

    @property
    def is_tested(self) -> bool:
        return self.verdict not in (MISSING, ONE_RUN)


def judge(claims: Sequence[Claim]) -> list[Finding]:
    """A verdict for each claim; those that have numbers of several seeds are tested together, as one family."""
    tested = [i for i, claim in enumerate(claims) if claim.verdicts and claim.runs != 1]
    said = holm([min(claims[i].verdicts.values()) for i in tested])
    sure = {i for i, each in zip(tested, said, strict=True) if each}
    return [_judged(claim, i in sure, len(tested)) for i, claim in enumerate(claims)]


def _judged(claim: Claim, is_sure: bool, tested: int) -> Finding:
    if not claim.verdicts:
        return Finding(claim.question, claim.claim, MISSING, claim.numbers)
    if claim.runs == 1:
        return Finding(claim.question, claim.claim, ONE_RUN, f"one run: {claim.numbers}")
    verdict = min(claim.verdicts, key=claim.verdicts.__getitem__)
    if is_sure:
        return Finding(claim.question, claim.claim, verdict, claim.numbers)
    told = f"; {_in_words(claim, tested)}" if claim.effect else ""
    if claim.verdicts[verdict] <= LEVEL:
        told = f"; tested alone it would be judged '{verdict}', among {tested} findings it is not" + told
    return Finding(claim.question, claim.claim, UNCLEAR, claim.numbers + told)


def _in_words(claim: Claim, tested: int) -> str:
    """What this study could have told of a claim's effect, which it cannot judge."""
    effect, level = claim.effect, LEVEL / tested / claim.comparisons
    if effect is None or not math.isfinite(least := detectable(effect, level)):
        return "the seeds show no spread, so nothing is known of another"
    if min(is_positive(effect), is_positive(-effect)) <= level:
        return f"it differs from 0, and whether it is more than {SMALLEST:g} points is not clear"
    around = "its interval contains 0, and " if effect.low <= 0 <= effect.high else ""
    digits, share = ".1f" if claim.unit else ".3g", f"{100 * power.POWER:.0f} %"
    among = f" at the level of one of {tested} findings" if tested > 1 else ""
    return (
        f"{around}a difference of {least:{digits}}{claim.unit} would have been told from 0 in {share} of "
        f"such studies{among}"
    )


def least_runs(*numbers: Uncertain) -> int | None:
    """The least number of seeds that some numbers rest on; None where seeds have no part in any."""
    counts = [number.runs for number in numbers if number.runs is not None]
    return min(counts, default=None)


def holm(p: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which hypotheses are rejected with a family-wise error of at most `level`.

    It asks no more of a p than to be at most a level that often where the hypothesis is true: two-sided, one-sided and
    posterior ones stand side by side (see above).
    """
    rejected = [False] * len(p)
    for step, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[i] > level / (len(p) - step):
            break
        rejected[i] = True
    return rejected


def is_positive(effect: Uncertain, smallest: float = 0.0) -> float:
    """The p of "above 0"; 1 where the value does not reach the smallest effect of interest."""
    return min(1.0, 2 * effect.below(0.0)) if effect.value >= smallest else 1.0


def is_within(effect: Uncertain, margin: float) -> float:
    """The p of "between -margin and margin"."""
    return min(1.0, 2 * max(1 - effect.below(margin), effect.below(-margin)))


def of_effect(effect: Uncertain, smallest: float = SMALLEST) -> dict[str, float]:
    """What an effect that a claim says is above 0 can show."""
    return {
        HOLDS: is_positive(effect, smallest),
        OPPOSITE: is_positive(-effect, smallest),
        NO_EFFECT: is_within(effect, smallest),
    }


def detectable(effect: Uncertain, level: float = LEVEL) -> float:
    """The difference that studies of this size tell from 0 at a level in 80 % of cases; inf where no spread is known.

    It is larger than every value that is not told from 0 at that level: the border is the effect's own.
    """
    ends = effect.quantiles(level / 2, 1 - level / 2)
    degrees = math.inf if effect.runs is None else max(effect.runs - 1, 1)
    reach = max(effect.value - ends[0], ends[1] - effect.value)
    return reach * power.detectable(degrees, level) / power.border(degrees, level)
