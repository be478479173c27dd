"""The paper's findings, each tested on cells: ours, or the paper's own tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from sftmix_jax.analysis import uncertain
from sftmix_jax.analysis.cells import BEST, Cells, number, series
from sftmix_jax.analysis.uncertain import Uncertain

PARTS = ("1/256", "1/64", "1/16", "1/4", "1")
REPLAYS = ("0", *PARTS)
_HOLDS, _FAILS = 0.8, 0.2
RULE = (
    "P is the share of draws (resampled seeds and questions) that agree: from 0.8 on a finding holds, to 0.2 it does "
    "not, in between these numbers cannot tell. Parentheses hold 95 % intervals."
)
MARGIN = 0.03  # of the best possible score: a difference that nobody would mind


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim of the paper, and what the numbers say of it."""

    question: str  # RQ1 … RQ4
    claim: str
    verdict: str  # holds, does not, cannot tell, or not measured
    numbers: str

    @property
    def is_measured(self) -> bool:
        return self.verdict != "not measured"


def find(cells: Cells) -> list[Finding]:
    """Every finding, those too that nothing was measured for."""
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


def _judge(question: str, claim: str, probability: float, numbers: str) -> Finding:
    verdict = "holds" if probability >= _HOLDS else "does not" if probability <= _FAILS else "cannot tell"
    return Finding(question, claim, verdict, f"{numbers} (P = {probability:.3f})")


def _missing(question: str, claim: str) -> Finding:
    return Finding(question, claim, "not measured", "")


def shown(number: Uncertain, best: float, signed: bool = False) -> str:
    """`+4.2 (1.0–7.4)`, rates in points of a hundred."""
    scale = 100.0 if best == 1 else 1.0
    sign = "+" if signed else ""
    digits = 1 if best == 1 else 2
    low, high = scale * number.low, scale * number.high
    return f"{scale * number.value:{sign}.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _slope(cells: list[tuple[str, Uncertain]]) -> Uncertain:
    """Gain for four times the data, least squares over the parts."""
    x = np.arange(len(cells)) - (len(cells) - 1) / 2
    weights = x / (x @ x)
    return uncertain.combined(
        lambda *each: sum(w * e for w, e in zip(weights, each, strict=True)), *(cell for _, cell in cells)
    )


def rising(cells: Cells, ability: str) -> Finding:
    """RQ1: mathematics and code keep improving with their own data, up to all of it."""
    claim = f"{ability} keeps rising with its own data"
    alone = series(cells, ability, PARTS, strategy="single", source=ability)
    if len(alone) < 4:
        return _missing("RQ1", claim)
    upper = _slope(alone[-3:])
    numbers = f"for four times the data, from 1/16 on: {shown(upper, cells.best(ability), signed=True)}"
    return _judge("RQ1", claim, upper.probability(lambda d: d > 0), numbers)


def flattening(cells: Cells) -> Finding:
    """RQ1: the general ability gains little beyond the first sixteenth."""
    claim = "general flattens"
    alone = series(cells, "general", PARTS, strategy="single", source="general")
    if len(alone) < 4:
        return _missing("RQ1", claim)
    upper, whole = _slope(alone[-3:]), _slope(alone)
    less = uncertain.combined(lambda u, w: w / 2 - u, upper, whole)
    best = cells.best("general")
    numbers = f"for four times the data: {shown(whole, best, True)} over all, {shown(upper, best, True)} from 1/16 on"
    return _judge("RQ1", claim, less.probability(lambda d: d > 0), numbers)


def alone_and_mixed(cells: Cells, ability: str, k: str) -> tuple[Uncertain, Uncertain] | None:
    """An ability with the part k of its own data alone, and with the same part of every source."""
    # in our study of RQ4 the mixture of everything is named multitask
    whole = cells.at(ability, strategy="multitask") if k == "1" else None
    mixed = cells.at(ability, strategy="mixed", k=k) or whole
    alone = cells.at(ability, strategy="single", source=ability, k=k)
    return (alone, mixed) if alone and mixed else None


def mixed_minus_single(cells: Cells, abilities: Sequence[str] = ()) -> list[tuple[str, Uncertain]]:
    """At each k: what mixing changes, as a part of an ability's full single score; the mean of some (the paper's).

    Full is the largest k. The negative of the paper's conflict. Draws are paired.
    """
    asked = abilities or [ability for ability in cells.abilities if ability in BEST]
    parts = sorted({k for a in asked for k in cells.parts(strategy="single", source=a)}, key=number)
    if not parts:
        return []
    full = {a: cells.at(a, strategy="single", source=a, k=parts[-1]) for a in asked}
    out = []
    for k in parts:
        changes = []
        for ability, whole in full.items():
            both = alone_and_mixed(cells, ability, k)
            if both and whole and whole.value > 0:
                alone, mixed = both
                changes.append((mixed - alone) * (1 / whole.value))
        if changes:
            out.append((k, uncertain.mean(changes)))
    return out


def mixing_helps_with_little(cells: Cells) -> Finding:
    claim = "mixing helps where data is scarce"
    changes = dict(mixed_minus_single(cells))
    if not {"1/256", "1/64"} <= changes.keys():
        return _missing("RQ2", claim)
    little = uncertain.mean([changes["1/256"], changes["1/64"]])
    numbers = f"mixed minus single at 1/256 and 1/64, % of the full single score: {shown(little, 1, True)}"
    return _judge("RQ2", claim, little.probability(lambda d: d > 0), numbers)


def mixing_hurts_with_much(cells: Cells) -> Finding:
    claim = "mixing hurts at full data (conflict)"
    changes = mixed_minus_single(cells)
    if not changes or number(changes[-1][0]) < 1:
        return _missing("RQ2", claim)
    k, change = changes[-1]
    numbers = f"mixed minus single at k = {k}, % of the full single score: {shown(change, 1, True)}"
    return _judge("RQ2", claim, change.probability(lambda d: d < 0), numbers)


def crossover_part(cells: Cells, abilities: Sequence[str] = ()) -> Uncertain | None:
    """log₄ of the part at which mixing turns from gain to loss; the last change of sign, linear in between."""
    changes = mixed_minus_single(cells, abilities)
    if len(changes) < 3:
        return None
    positions = np.array([np.log2(number(k)) / 2 for k, _ in changes])

    def last_zero(*each: np.ndarray) -> np.ndarray:
        heights = np.stack([np.atleast_1d(e) for e in each])  # [parts, R]
        out = np.full(heights.shape[1], np.nan)
        for i in range(len(positions) - 1):
            falls = (heights[i] > 0) & (heights[i + 1] <= 0)
            part = heights[i] / np.where(falls, heights[i] - heights[i + 1], 1)
            out = np.where(falls, positions[i] + part * (positions[i + 1] - positions[i]), out)
        return out if out.size > 1 else out[0]

    found = uncertain.combined(last_zero, *(change for _, change in changes))
    kept = found.draws[np.isfinite(found.draws)]
    if not np.isfinite(found.value) or len(kept) < len(found.draws) / 2:
        return None
    return Uncertain(found.value, kept)


def part(log4: float) -> str:
    """log₄ of a part in words: -2.5 → `1/32`, 0.5 → `2`."""
    return f"1/{4**-log4:.0f}" if log4 < 0 else f"{4**log4:.2g}"


def crossover(cells: Cells) -> Finding:
    """RQ2, at 7B: gain turns to loss between 1/64 and 1/16."""
    claim = "mixing turns from gain to loss between 1/64 and 1/16"
    if len(mixed_minus_single(cells)) < 3:
        return _missing("RQ2", claim)
    where = crossover_part(cells)
    if where is None:
        return Finding("RQ2", claim, "does not", "the two curves do not cross in most draws")
    numbers = f"they cross at {part(where.value)} ({part(where.low)} to {part(where.high)})"
    return _judge("RQ2", claim, where.probability(lambda d: (d >= -3) & (d <= -2)), numbers)


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


def explained(design: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """R² of a linear regression with an intercept: design [n, p], scores [n] or [n, R] → [] or [R]."""
    X = np.column_stack([np.ones(len(design)), design])
    residual = scores - X @ np.linalg.lstsq(X, scores, rcond=None)[0]
    total = ((scores - scores.mean(axis=0)) ** 2).sum(axis=0)
    return np.where(total > 0, 1 - (residual**2).sum(axis=0) / np.maximum(total, 1e-30), 0.0)


def standardised_effects(own: np.ndarray, other: np.ndarray, scores: list[Uncertain]) -> tuple[Uncertain, Uncertain]:
    """Standard deviations of score for one of the log amount: own, and the others'.

    Of the scores as they are: each draw's own would grow with its noise, and every effect shrink.
    """
    spread = max(float(np.std([score.value for score in scores])), 1e-30)
    X = np.column_stack([np.ones(len(own)), *((x - x.mean()) / x.std() for x in (own, other))])

    def effects(*each: np.ndarray | np.float64) -> np.ndarray:
        y = np.stack(np.broadcast_arrays(*each))
        rows = y.reshape(len(y), -1)
        return np.linalg.lstsq(X, rows, rcond=None)[0][1:] / spread

    value = effects(*(np.float64(s.value) for s in scores))[:, 0]
    draws = effects(*(s.draws for s in scores))
    return Uncertain(float(value[0]), draws[0]), Uncertain(float(value[1]), draws[1])


def amount_outweighs_ratio(cells: Cells) -> Finding:
    """RQ3: the amount of an ability's own data explains its score, the ratio to the rest hardly."""
    claim = "the amount of an ability's own data outweighs its ratio"
    advantages, told = [], []
    for ability in ("math", "code"):
        own, other, scores = ratio_design(cells, ability)
        if len(scores) < 12:
            return _missing("RQ3", claim)

        def advantage(*each: np.ndarray, own: np.ndarray = own, ratio: np.ndarray = own - other) -> np.ndarray:
            y = np.stack(each)
            return explained(own[:, None], y) - explained(ratio[:, None], y)

        advantages.append(uncertain.combined(advantage, *scores))
        value = np.array([score.value for score in scores])
        mine, theirs = standardised_effects(own, other, scores)
        told.append(
            f"{ability}: R² of the amount {explained(own[:, None], value):.2f}, of the ratio "
            f"{explained((own - other)[:, None], value):.2f}; effect of its own amount {mine.value:+.2f} "
            f"({mine.low:+.2f} to {mine.high:+.2f}), of the others' {theirs.value:+.2f} ({theirs.low:+.2f} to "
            f"{theirs.high:+.2f}) standard deviations"
        )
    return _judge("RQ3", claim, uncertain.mean(advantages).probability(lambda d: d > 0), "; ".join(told))


def _specialised(cells: Cells, **labels: str) -> Uncertain | None:
    """Mean of mathematics and code."""
    found = [cells.at(ability, **labels) for ability in ("math", "code")]
    return uncertain.mean([cell for cell in found if cell]) if all(found) else None


def stages_forget(cells: Cells) -> Finding:
    """RQ4: training in sequence loses mathematics and code that training on everything at once keeps."""
    claim = "sequential training forgets the specialised abilities"
    together, after = _specialised(cells, strategy="multitask"), _specialised(cells, strategy="sequential")
    if together is None or after is None:
        return _missing("RQ4", claim)
    loss = after - together
    numbers = f"sequential minus multitask, mean of math and code: {shown(loss, 1, True)}"
    return _judge("RQ4", claim, loss.probability(lambda d: d < 0), numbers)


def replay_keeps(cells: Cells) -> Finding:
    """RQ4: DMT's small replay keeps more of mathematics and code than mixed sequential training."""
    claim = "DMT at k = 1/256 keeps more of math and code than no replay"
    without, small = (
        _specialised(cells, strategy="mixed_sequential", k="0"),
        _specialised(cells, strategy="dmt", k="1/256"),
    )
    if without is None or small is None:
        return _missing("RQ4", claim)
    gain = small - without
    numbers = f"mean of math and code: {shown(gain, 1, True)}"
    enough = next((k for k in PARTS if (c := _specialised(cells, strategy="dmt", k=k))
                   and (c - without).probability(lambda d: d > 0) >= 0.975), None)  # fmt: skip
    numbers += f"; the smallest k that surely does: {enough or 'none'}"
    return _judge("RQ4", claim, gain.probability(lambda d: d > 0), numbers)


def replay_costs_nothing(cells: Cells) -> Finding:
    """RQ4: at the paper's k DMT costs the general ability nothing."""
    claim = "DMT at k = 1/256 costs the general ability nothing"
    without, small = (
        cells.at("general", strategy="mixed_sequential", k="0"),
        cells.at("general", strategy="dmt", k="1/256"),
    )
    if without is None or small is None:
        return _missing("RQ4", claim)
    change, best = small - without, cells.best("general")
    most = 100 if best == 1 else best
    numbers = (
        f"DMT minus mixed sequential: {shown(change, best, True)}; nothing is within {most * MARGIN:g} of {most:g}"
    )
    return _judge("RQ4", claim, change.probability(lambda d: d > -best * MARGIN), numbers)


def ablation(cells: Cells) -> Finding:
    """Ablation: without its code and mathematics the general data conflicts less."""
    claim = "without code and math in the general data, mixing at k = 1 hurts them less"
    tagged = _specialised(cells, strategy="mixed", without="code,math", k="1")
    whole = _specialised(cells, strategy="mixed", k="1")
    if tagged is None or whole is None:
        return _missing("Ablation", claim)
    gain = tagged - whole
    if not np.any(gain.draws):
        return Finding("Ablation", claim, "not measured", "nothing was left out: the general data here holds neither")
    return _judge(
        "Ablation", claim, gain.probability(lambda d: d > 0), f"mean of math and code: {shown(gain, 1, True)}"
    )
