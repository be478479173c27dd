"""The rule by which a claim is judged: what its numbers say, and how surely, over all claims that are tested.

Every verdict but "cannot tell" is read from a confidence interval, so one claim is judged wrongly in at most 5 % of
studies. Holm's procedure (Holm 1979) keeps that bound for all claims of a study together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sftmix_jax.analysis.assumptions import SMALLEST
from sftmix_jax.analysis.uncertain import Uncertain

LEVEL = 0.05  # of a wrong verdict, in all claims that are tested together
HOLDS, OPPOSITE, NO_EFFECT, FAILS = "holds", "the opposite holds", "no effect that matters", "does not hold"
UNCLEAR, ONE_RUN, MISSING = "cannot tell", "one run", "not measured"
VERDICTS = (HOLDS, OPPOSITE, NO_EFFECT, FAILS, UNCLEAR, ONE_RUN, MISSING)
# the half-width of a 95 % interval → the difference that is told from 0 in 80 % of studies: (1.96 + 0.84) / 1.96
_DETECTED = 1.43


@dataclasses.dataclass(frozen=True)
class Claim:
    """What could be said of a claim, each verdict with its p: the level at which the numbers would say it."""

    question: str  # RQ1 … RQ4
    claim: str
    numbers: str = ""
    verdicts: dict[str, float] = dataclasses.field(default_factory=dict)  # empty: not measured
    runs: int | None = None  # seeds that the numbers rest on; None: one published number each
    detectable: str = ""  # which difference this study would have told from none


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
    """A verdict for each claim; those that have numbers of several seeds are tested together."""
    tested = [claim for claim in claims if claim.verdicts and claim.runs != 1]
    said = holm([min(claim.verdicts.values()) for claim in tested])
    sure = {claim.claim for claim, each in zip(tested, said, strict=True) if each}
    return [_judged(claim, claim.claim in sure, len(tested)) for claim in claims]


def _judged(claim: Claim, is_sure: bool, tested: int) -> Finding:
    if not claim.verdicts:
        return Finding(claim.question, claim.claim, MISSING, claim.numbers)
    if claim.runs == 1:
        return Finding(claim.question, claim.claim, ONE_RUN, f"one run: {claim.numbers}")
    verdict = min(claim.verdicts, key=claim.verdicts.__getitem__)
    if is_sure:
        return Finding(claim.question, claim.claim, verdict, claim.numbers)
    told = f"; {claim.detectable}" if claim.detectable else ""
    if claim.verdicts[verdict] <= LEVEL:
        told = f"; tested alone it would be judged '{verdict}', among {tested} findings it is not" + told
    return Finding(claim.question, claim.claim, UNCLEAR, claim.numbers + told)


def holm(p: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which hypotheses are rejected with a family-wise error of at most `level`."""
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
        HOLDS: is_positive(effect, smallest), OPPOSITE: is_positive(-effect, smallest),
        NO_EFFECT: is_within(effect, smallest),
    }  # fmt: skip


def detectable(effect: Uncertain) -> float:
    """The difference that studies of this size tell from 0 in 80 % of cases, alone at a level of 5 %."""
    return _DETECTED * (effect.high - effect.low) / 2
