"""Which set-up is the best, and whether these seeds and questions can tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from sftmix_jax.analysis import rule
from sftmix_jax.analysis.outcomes import Outcome
from sftmix_jax.analysis.rule import Claim, Finding
from sftmix_jax.analysis.uncertain import Uncertain

BEST, BETTER = "is the best", "is better than the default"


@dataclasses.dataclass(frozen=True)
class Best:
    """The best set-up of an outcome, compared with the next one and with the default."""

    outcome: Outcome
    setup: int
    equal: tuple[int, ...]  # others that have the same score
    of: int  # set-ups that have this outcome
    next: int
    lead: Uncertain  # over the next, in points (Outcome.gain)
    finding: Finding
    default: int | None = None  # where it is neither of the two
    gain: Uncertain | None = None  # over the default
    gain_finding: Finding | None = None

    @property
    def leaders(self) -> tuple[int, ...]:
        """The set-ups with the best score; none where all have the same."""
        return () if len(self.equal) + 1 == self.of else (self.setup, *self.equal)


def find(outcomes: Sequence[Outcome], name: Callable[[int], str], default: int | None = None) -> list[Best]:
    """The best set-up of each outcome that two or more have, all verdicts tested together by `rule.judge`.

    `name` gives a set-up in words.

    The best is the one only if it is better than each of the others, so the largest p of these comparisons counts;
    choosing it by its own value costs no more than that (Hung and Fithian 2019, "Rank verification for exponential
    families"). Against a default that is not the next, p is multiplied by the number of set-ups that could have been
    compared with it, or is that of being better than every other, if this is less.
    """
    compared = [outcome for outcome in outcomes if len(outcome.scores) > 1]
    claims: list[Claim] = []
    for outcome in compared:
        claims.append(_is_best(outcome, name))
        if _has_default(outcome, default):
            claims.append(_beats(outcome, int(default or 0), name, claims[-1]))
    said = {finding.claim: finding for finding in rule.judge(claims)}
    found = []
    for outcome in compared:
        first, second, *rest = outcome.ranked()
        equal = tuple(i for i in (second, *rest) if outcome.scores[i].value == outcome.scores[first].value)
        lead, finding = outcome.gain(first, second), said[f"{outcome.name} {BEST}"]
        best = Best(outcome, first, equal, len(outcome.scores), second, lead, finding)
        if _has_default(outcome, default):
            against = int(default or 0)
            best = dataclasses.replace(
                best, default=against, gain=outcome.gain(first, against), gain_finding=said[f"{outcome.name} {BETTER}"]
            )
        found.append(best)
    return found


def _has_default(outcome: Outcome, default: int | None) -> bool:
    """Whether there is a default to compare with: neither the best itself nor the next."""
    return default is not None and default in outcome.ranked()[2:]


def _smallest(outcome: Outcome) -> float:
    """The smallest effect of interest; where there is no best possible score there are no points to say it in."""
    return rule.SMALLEST if outcome.best else 0.0


def _is_best(outcome: Outcome, name: Callable[[int], str]) -> Claim:
    first, *others = outcome.ranked()
    leads = [outcome.gain(first, other) for other in others]
    verdicts = {rule.HOLDS: max(rule.is_positive(lead, _smallest(outcome)) for lead in leads)}
    if outcome.best:
        # the next is the one with the smallest lead, which chance has made smaller
        verdicts[rule.NO_EFFECT] = min(1.0, len(others) * rule.is_within(leads[0], rule.SMALLEST))
    numbers = f"{_amount(outcome, leads[0])} better than the next, {name(others[0])}"
    least = max(leads, key=lambda lead: rule.is_positive(lead, _smallest(outcome)))  # what the verdict rests on
    return _claim(outcome, BEST, numbers, leads, verdicts, least)


def _beats(outcome: Outcome, default: int, name: Callable[[int], str], is_best: Claim) -> Claim:
    gain, candidates = outcome.gain(outcome.ranked()[0], default), len(outcome.scores) - 1
    alone = candidates * rule.is_positive(gain, _smallest(outcome))
    verdicts = {rule.HOLDS: min(1.0, alone, is_best.verdicts[rule.HOLDS])}
    if outcome.best:
        verdicts[rule.NO_EFFECT] = min(1.0, candidates * rule.is_within(gain, rule.SMALLEST))
    numbers = f"{_amount(outcome, gain)} better than the default, {name(default)}"
    return _claim(outcome, BETTER, numbers, [gain], verdicts, gain, candidates)


def _amount(outcome: Outcome, effect: Uncertain) -> str:
    """`4.2 points (1.0 to 7.4)`; a single run has no interval, as it says nothing of another."""
    digits, unit = (".1f", " points") if outcome.best else (".3g", "")
    is_known = effect.runs != 1 and effect.has_spread
    between = f" ({effect.low:{digits}} to {effect.high:{digits}})" if is_known else ""
    left = f", on {effect.restricted}" if effect.restricted else ""
    return f"{effect.value:{digits}}{unit}{between}{left}"


def _claim(
    outcome: Outcome,
    claim: str,
    numbers: str,
    effects: Sequence[Uncertain],
    verdicts: dict[str, float],
    effect: Uncertain,
    comparisons: int = 1,
) -> Claim:
    unit = " points" if outcome.best else ""
    return Claim("", f"{outcome.name} {claim}", numbers, verdicts, rule.least_runs(*effects), effect, unit, comparisons)
