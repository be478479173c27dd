"""The paper's findings, each tested on cells: ours, or the paper's own tables. Effects are in points of 100."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from sftmix_jax.analysis import rule, uncertain
from sftmix_jax.analysis.cells import BEST, Cells, number, series
from sftmix_jax.analysis.rule import Claim, Finding
from sftmix_jax.analysis.uncertain import Uncertain, Verdicts

PARTS = ("1/256", "1/64", "1/16", "1/4", "1")
REPLAYS = ("0", *PARTS)
RULE = (
    "A finding holds when its 95 % interval lies above 0 and its value reaches {smallest:g} points, where a point is a "
    "hundredth of the best possible score; there is no effect that matters when the interval lies within ±{smallest:g} "
    "points. Four are judged otherwise. The general ability flattens when its whole rise holds and the interval of its "
    "last step lies within ±{flat:g} points. Amount outweighs ratio when the effect of the own amount reaches "
    "{standard:g} standard deviations, with an interval above 0, and that of the others' lies within ±{standard:g}. A "
    "crossover holds when a falling curve through the differences crosses 0 in the named range with a probability of "
    "0.975. A replay costs nothing when training gained something and the replay costs at most {cost:.0%} of it, with "
    "a probability of 0.95. Otherwise these numbers cannot tell, and the difference that they could have told from 0 "
    "is named. {tested} findings are tested here, together as one family of the whole study, and {theirs} on the "
    "paper's numbers, each family with Holm's correction. Parentheses hold 95 % intervals before it. The paper's "
    "numbers are of one run each: their intervals are over questions alone and leave out the spread between seeds."
)
_FLAT = 3.0  # points: a last step of less has flattened
_STANDARD = 0.2  # of a standard deviation: an effect that does not matter (Cohen 1988, section 2.2)
_COST = 0.1  # of what training gained: a replay that costs less costs nothing


def find(cells: Cells) -> list[Finding]:
    """Every finding, those too that nothing was measured for, judged as one family."""
    return rule.judge(claims(cells))


def claims(cells: Cells) -> list[Claim]:
    """What the cells say of every finding, before it is judged."""
    return [
        *(rising(cells, ability) for ability in ("math", "code")),
        flattening(cells),
        mixing_helps_with_little(cells),
        mixing_hurts_with_much(cells),
        crossover(cells),
        amount_outweighs_ratio(cells),
        stages_forget(cells),
        replay_keeps(cells),
        replay_costs_nothing(cells),
        ablation(cells),
    ]


def rule_in_words(ours: Sequence[Finding], theirs: Sequence[Finding]) -> str:
    """The rule, with the numbers of findings that it was used on: of the whole study, and the paper's."""
    tested, paper = (sum(finding.is_tested for finding in found) for found in (ours, theirs))
    return RULE.format(
        smallest=rule.SMALLEST, flat=_FLAT, standard=_STANDARD, cost=_COST, tested=tested or "No", theirs=paper
    )


def shown(number: Uncertain, best: float, signed: bool = False) -> str:
    """`+4.2 (1.0 to 7.4)`, rates in points of a hundred; what it leaves out for want of a partner is named."""
    scale = 100.0 if best == 1 else 1.0
    sign = "+" if signed else ""
    digits = 1 if best == 1 else 2
    low, high = scale * number.low, scale * number.high
    left = f", on {number.restricted}" if number.restricted else ""
    return f"{scale * number.value:{sign}.{digits}f} ({low:.{digits}f} to {high:.{digits}f}){left}"


def points(cells: Cells, ability: str, cell: Uncertain) -> Uncertain:
    """A score in hundredths of the best possible one."""
    return cell * (100.0 / cells.best(ability))


def _points(effect: Uncertain) -> str:
    """`+4.2 points (1.0 to 7.4)`; of a single run `+4.2 points`."""
    left = f", on {effect.restricted}" if effect.restricted else ""
    is_known = effect.runs != 1 and effect.has_spread
    between = f" ({effect.low:.1f} to {effect.high:.1f})" if is_known else ""
    return f"{effect.value:+.1f} points{between}{left}"


def _of_effect(question: str, claim: str, effect: Uncertain, said: str = "") -> Claim:
    """A claim that an effect in points is above 0; numbers are shown of what it is called."""
    numbers = f"{said}: {_points(effect)}" if said else _points(effect)
    return Claim(question, claim, numbers, rule.of_effect(effect), effect.runs, effect)


def rising(cells: Cells, ability: str) -> Claim:
    """RQ1: mathematics and code keep improving with their own data, up to all of it: so does the last step."""
    claim = f"{ability} keeps rising with its own data"
    alone = series(cells, ability, PARTS, strategy="single", source=ability)
    if len(alone) < 4:
        return Claim("RQ1", claim)
    (before, less), (last, all_of_it) = alone[-2:]
    step = points(cells, ability, all_of_it - less)
    return _of_effect("RQ1", claim, step, f"from {before} to {last} of its data")


def flattening(cells: Cells) -> Claim:
    """RQ1: the general ability rises, and gains nothing that matters by the last step of its data."""
    claim = "general flattens"
    alone = series(cells, "general", PARTS, strategy="single", source="general")
    if len(alone) < 4:
        return Claim("RQ1", claim)
    (first, least), (before, less), (last, all_of_it) = alone[0], *alone[-2:]
    whole, step = (points(cells, "general", all_of_it - each) for each in (least, less))
    rises, is_flat = rule.is_positive(whole, rule.SMALLEST), rule.is_within(step, _FLAT)
    still = 2 * min(step.below(_FLAT), 1 - step.below(-_FLAT))
    falls = rule.is_positive(-whole)
    numbers = (
        f"from {first} to {last}: {_points(whole)}; from {before} to {last}: {_points(step)}; flat is within "
        f"{_FLAT:g} points"
    )
    verdicts = {rule.HOLDS: max(rises, is_flat), rule.FAILS: min(1.0, 2 * min(still, falls))}
    return Claim("RQ1", claim, numbers, verdicts, rule.least_runs(whole, step))


def alone_and_mixed(cells: Cells, ability: str, k: str) -> tuple[Uncertain, Uncertain] | None:
    """An ability with the part k of its own data alone, and with the same part of every source."""
    # in our study of RQ4 the mixture of everything is named multitask
    whole = cells.at(ability, strategy="multitask") if k == "1" else None
    mixed = cells.at(ability, strategy="mixed", k=k) or whole
    alone = cells.at(ability, strategy="single", source=ability, k=k)
    return (alone, mixed) if alone and mixed else None


def mixed_minus_single(cells: Cells, abilities: Sequence[str] = ()) -> list[tuple[str, Uncertain]]:
    """At each k: what mixing changes, in points, as the mean over some abilities (the paper's).

    The negative of the paper's conflict.
    """
    asked = abilities or [ability for ability in cells.abilities if ability in BEST]
    parts = sorted({k for a in asked for k in cells.parts(strategy="single", source=a)}, key=number)
    out = []
    for k in parts:
        both = {ability: found for ability in asked if (found := alone_and_mixed(cells, ability, k))}
        changes = [points(cells, ability, mixed - alone) for ability, (alone, mixed) in both.items()]
        if changes:
            out.append((k, uncertain.mean(changes)))
    return out


def mixing_helps_with_little(cells: Cells) -> Claim:
    claim = "mixing helps where data is scarce"
    changes = dict(mixed_minus_single(cells))
    if not {"1/256", "1/64"} <= changes.keys():
        return Claim("RQ2", claim)
    little = uncertain.mean([changes["1/256"], changes["1/64"]])
    return _of_effect("RQ2", claim, little, "mixed minus single at 1/256 and 1/64")


def mixing_hurts_with_much(cells: Cells) -> Claim:
    claim = "mixing hurts at full data (conflict)"
    changes = mixed_minus_single(cells)
    if not changes or number(changes[-1][0]) < 1:
        return Claim("RQ2", claim)
    k, change = changes[-1]
    return _of_effect("RQ2", claim, -change, f"single minus mixed at k = {k}")


def falling(heights: np.ndarray) -> np.ndarray:
    """The falling curve that is nearest to each column's points: least squares, float64 [parts, R]."""
    n = len(heights)
    sums = np.concatenate([np.zeros((1, *heights.shape[1:])), np.cumsum(heights, axis=0)])
    # the min-max formula of isotonic regression: at i the least over starts of the greatest mean over ends
    means = np.full((n, n, *heights.shape[1:]), -np.inf)
    for start in range(n):
        for end in range(start, n):
            means[start, end] = (sums[end + 1] - sums[start]) / (end + 1 - start)
    return np.stack([means[: i + 1, i:].max(axis=1).min(axis=0) for i in range(n)])


def zero(positions: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Where a falling curve passes 0, float64 [R], linear in between; NaN where it does not."""
    fitted = falling(heights)
    out = np.full(heights.shape[1], np.nan)
    for i in range(len(positions) - 1):
        crosses = (fitted[i] > 0) & (fitted[i + 1] <= 0)
        way = fitted[i] / np.where(crosses, fitted[i] - fitted[i + 1], 1)
        out = np.where(crosses, positions[i] + way * (positions[i + 1] - positions[i]), out)
    return np.where(fitted[-1] < 0, out, np.nan)


def crossover_part(cells: Cells, abilities: Sequence[str] = ()) -> Uncertain | None:
    """log₄ of the part at which mixing turns from gain to loss, NaN in the draws where it does not.

    A falling curve through the differences over log k crosses 0 once or not at all. None with fewer than three parts.
    """
    changes = mixed_minus_single(cells, abilities)
    if len(changes) < 3:
        return None
    positions = np.array([np.log2(number(k)) / 2 for k, _ in changes])

    def place(*each: np.ndarray) -> np.ndarray:
        heights = np.stack([np.atleast_1d(e) for e in each])  # [parts, R]
        found = zero(positions, heights)
        return found if found.size > 1 else found[0]

    return uncertain.combined(place, *(change for _, change in changes))


def crossing(where: Uncertain) -> tuple[float, float, float, float]:
    """The probability that there is a crossing; of those that there are, the median part and 95 % of them, in log₄."""
    found = where.draws[np.isfinite(where.draws)]
    if not len(found):
        return 0.0, np.nan, np.nan, np.nan
    low, middle, high = np.percentile(found, [2.5, 50, 97.5])
    return len(found) / len(where.draws), float(middle), float(low), float(high)


def part(log4: float) -> str:
    """log₄ of a part in words: -2.5 → `1/32`, 0.5 → `2`."""
    return f"1/{4**-log4:.0f}" if log4 < 0 else f"{4**log4:.2g}"


def crossover(cells: Cells) -> Claim:
    """RQ2, at 7B: gain turns to loss between 1/64 and 1/16."""
    claim = "mixing turns from gain to loss between 1/64 and 1/16"
    where = crossover_part(cells)
    if where is None:
        return Claim("RQ2", claim)
    sure, middle, low, high = crossing(where)
    inside = where.probability(lambda d: (d >= -3) & (d <= -2))
    half = 0.5 / (len(where.draws) + 1)  # no number of draws makes it 0 or 1
    numbers = f"one crossing has the probability {sure:.2f}"
    if where.runs == 1:  # draws over questions alone say nothing of another run
        numbers = "the differences do not cross 0" if np.isnan(where.value) else f"crosses 0 at {part(where.value)}"
    elif sure >= 1 - rule.LEVEL:
        numbers += f"; at {part(middle)} ({part(low)} to {part(high)})"
    verdicts = {rule.HOLDS: min(1.0, 2 * (1 - inside + half)), rule.FAILS: min(1.0, 2 * (inside + half))}
    return Claim("RQ2", claim, numbers, verdicts, where.runs)


def ratio_design(cells: Cells, ability: str) -> tuple[np.ndarray, np.ndarray, list[Uncertain]]:
    """RQ3's set-ups: log₄ of the own part [n], of the others' part [n], and the scores."""
    own, other, scores = [], [], []
    for setup, (specialised, general) in {"a": ("1", "k"), "b": ("k", "1"), "c": ("k", "1/64")}.items():
        for k, cell in series(cells, ability, PARTS, strategy="mixed", setup=setup):
            parts = {"s": k if specialised == "k" else specialised, "g": k if general == "k" else general}
            mine, theirs = (parts["g"], parts["s"]) if ability == "general" else (parts["s"], parts["g"])
            own.append(np.log2(number(mine)) / 2)
            other.append(np.log2(number(theirs)) / 2)
            scores.append(cell)
    return np.array(own), np.array(other), scores


def standardised_effects(own: np.ndarray, other: np.ndarray, scores: list[Uncertain]) -> tuple[Uncertain, Uncertain]:
    """Standard deviations of score per one of the log amount: own, and the others'.

    Of the scores as they are: each draw's own would grow with its noise, and every effect shrink.
    """
    spread = max(float(np.std([score.value for score in scores])), 1e-30)
    X = np.column_stack([np.ones(len(own)), *((x - x.mean()) / x.std() for x in (own, other))])
    solve = np.linalg.pinv(X) / spread  # [3, n]

    def effect(row: int, *each: np.ndarray) -> np.ndarray:
        return sum((weight * score for weight, score in zip(solve[row], each, strict=True)), np.zeros(()))

    mine, theirs = (uncertain.combined(functools.partial(effect, row), *scores) for row in (1, 2))
    return mine, theirs


def amount_outweighs_ratio(cells: Cells) -> Claim:
    """RQ3: an ability's own amount moves its score, and the others' amount, which the ratio follows, does not."""
    claim = "the amount of an ability's own data outweighs its ratio"
    effects, told = [], []
    for ability in ("math", "code"):
        own, other, scores = ratio_design(cells, ability)
        if len(scores) < 12:
            return Claim("RQ3", claim)
        mine, theirs = standardised_effects(own, other, scores)
        effects.append((mine, theirs))
        told.append(
            f"{ability}: effect of its own amount {_deviations(mine)}, of the others' {_deviations(theirs)} "
            "standard deviations"
        )
    outweighs = max(max(rule.is_positive(m, _STANDARD), rule.is_within(t, _STANDARD)) for m, t in effects)
    others = min(2 * min(t.below(_STANDARD), 1 - t.below(-_STANDARD)) for _, t in effects)
    none = min(2 * (1 - m.below(_STANDARD)) for m, _ in effects)
    verdicts = {rule.HOLDS: outweighs, rule.FAILS: min(1.0, 4 * min(others, none))}  # any of four effects
    numbers = "; ".join(told) + f"; within {_STANDARD:g} the others' does not matter"
    runs = rule.least_runs(*(effect for both in effects for effect in both))
    return Claim("RQ3", claim, numbers, verdicts, runs)


def _deviations(effect: Uncertain) -> str:
    """`+0.82 (0.60 to 1.01)`; of a single run `+0.82`."""
    is_known = effect.runs != 1 and effect.has_spread
    return f"{effect.value:+.2f}" + (f" ({effect.low:+.2f} to {effect.high:+.2f})" if is_known else "")


def _specialised(cells: Cells, **labels: str) -> Uncertain | None:
    """Mean of mathematics and code, in points."""
    found = {ability: cell for ability in ("math", "code") if (cell := cells.at(ability, **labels))}
    return uncertain.mean([points(cells, *each) for each in found.items()]) if len(found) == 2 else None


def stages_forget(cells: Cells) -> Claim:
    """RQ4: training in sequence loses mathematics and code that training on everything at once keeps."""
    claim = "sequential training forgets the specialised abilities"
    together, after = _specialised(cells, strategy="multitask"), _specialised(cells, strategy="sequential")
    if together is None or after is None:
        return Claim("RQ4", claim)
    return _of_effect("RQ4", claim, together - after, "multitask minus sequential, mean of math and code")


def replay_keeps(cells: Cells) -> Claim:
    """RQ4: DMT's small replay keeps more of mathematics and code than mixed sequential training."""
    claim = "DMT at k = 1/256 keeps more of math and code than no replay"
    without = _specialised(cells, strategy="mixed_sequential", k="0")
    gains = {k: cell - without for k in PARTS if without and (cell := _specialised(cells, strategy="dmt", k=k))}
    if "1/256" not in gains:
        return Claim("RQ4", claim)
    made = _of_effect("RQ4", claim, gains["1/256"], "DMT minus mixed sequential, mean of math and code")
    several = {k: rule.is_positive(gain) for k, gain in gains.items() if gain.runs != 1}
    if made.runs == 1 or not several:
        return made
    shown = [k for k, kept in zip(several, rule.holm(list(several.values())), strict=True) if kept]
    more = f"; {len(several)} k tested together and apart from the other findings: {', '.join(shown) or 'none'} above 0"
    return dataclasses.replace(made, numbers=made.numbers + more)


def replay_costs_nothing(cells: Cells) -> Claim:
    """RQ4: at the paper's k DMT costs the general ability next to nothing of what training gained.

    Where it is not shown that training gained anything, a part of it says nothing.
    """
    claim = "DMT at k = 1/256 costs the general ability nothing"
    without = cells.at("general", strategy="mixed_sequential", k="0")
    small = cells.at("general", strategy="dmt", k="1/256")
    if without is None or small is None:
        return Claim("RQ4", claim)
    base = cells.at("general", strategy="mixed_sequential", k="0", stage="base")
    cost = points(cells, "general", without - small)
    numbers = f"mixed sequential minus DMT: {_points(cost)}"
    if base is None:
        more = "; what training gained is not known, as the base has no score"
        return Claim("RQ4", claim, numbers + more, dict.fromkeys((rule.HOLDS, rule.FAILS), 1.0), cost.runs)
    gain = points(cells, "general", without - base)
    over, gained = cost - gain * _COST, rule.is_positive(gain)
    numbers += f"; training gained {_points(gain)}"
    if gain.value > 0:
        numbers += f"; nothing is at most {_COST:.0%} of what training gained, {_COST * gain.value:.1f} points"
    verdicts = {rule.HOLDS: max(gained, 1 - over.below()), rule.FAILS: max(gained, over.below())}
    return Claim("RQ4", claim, numbers, verdicts, rule.least_runs(cost, gain))


def ablation(cells: Cells) -> Claim:
    """Ablation: without its code and mathematics the general data conflicts less."""
    claim = "without code and math in the general data, mixing at k = 1 hurts them less"
    tagged = _specialised(cells, strategy="mixed", without="code,math", k="1")
    whole = _specialised(cells, strategy="mixed", k="1")
    if tagged is None or whole is None:
        return Claim("Ablation", claim)
    if _is_same(tagged, whole):
        same = "every verdict is the same with them and without: nothing was left out here"
        return Claim("Ablation", claim, same)
    return _of_effect("Ablation", claim, tagged - whole, "mean of math and code")


def _is_same(first: Uncertain, second: Uncertain) -> bool:
    """Whether two numbers rest on the same verdicts."""
    pairs = list(zip(first.scores, second.scores, strict=False))
    return bool(pairs) and all(
        isinstance(a, Verdicts) and isinstance(b, Verdicts) and np.array_equal(a.values, b.values) for a, b in pairs
    )
