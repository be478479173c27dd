"""What a study is asked by: each ability's final score, and their mean where there are several."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sftmix_jax.analysis import uncertain
from sftmix_jax.analysis.cells import Cells
from sftmix_jax.analysis.uncertain import Uncertain

MEAN = "mean of the abilities"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A score after the last stage, by the number of the set-up."""

    name: str
    best: float  # the best possible; 0: none, and less is better
    scores: Mapping[int, Uncertain]

    @property
    def scale(self) -> float:
        """From the score to points: hundredths of the best possible; 1 where there is none."""
        return 100.0 / self.best if self.best else 1.0

    def gain(self, better: int, worse: int) -> Uncertain:
        """By how much one set-up is better than another, in points."""
        change = (self.scores[better] - self.scores[worse]) * self.scale
        return change if self.best else -change

    def ranked(self) -> list[int]:
        """The set-ups that have it, the best first."""
        sign = -1.0 if self.best else 1.0
        return sorted(self.scores, key=lambda each: sign * self.scores[each].value)


def of_study(cells: Cells, setups: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """An outcome per ability; then the mean of those that have a best possible score, where a set-up has all."""
    found = []
    for ability in cells.abilities:
        scores = {i: cell for i, setup in enumerate(setups) if (cell := cells.exactly(ability, setup)) is not None}
        found.append(Outcome(ability, cells.best(ability), scores))
    rated = [outcome for outcome in found if outcome.best and outcome.scores]
    if len(rated) > 1:
        whole = [i for i in range(len(setups)) if all(i in outcome.scores for outcome in rated)]
        means = {i: uncertain.mean([o.scores[i] * (1.0 / o.best) for o in rated]) for i in whole}
        if means:
            found.append(Outcome(MEAN, 1.0, means))
    return [outcome for outcome in found if outcome.scores]
