"""What findings are read from: an ability of a set-up, over its seeds; measured here, or published by the paper."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from importlib import resources
from typing import Any

import numpy as np

from sftmix_jax.analysis import results, uncertain
from sftmix_jax.analysis.results import Result
from sftmix_jax.analysis.uncertain import Uncertain

_AXES = ("strategy", "source", "k", "setup", "without", "stage")
_PAPER = ("gsm8k", "humaneval", "mt_bench")
BEST = {"math": 1.0, "code": 1.0, "general": 10.0}


class Cells:
    """Scores by (ability, labels); `at` gives none where a set-up was not run or is not finished."""

    def __init__(
        self, cells: dict[tuple[str, tuple[tuple[str, Any], ...]], Uncertain], source: str, seeds: int,
        left_out: Sequence[str] = (),
    ):  # fmt: skip
        self._cells, self.source, self.seeds = cells, source, seeds
        self.left_out = left_out  # what could not be counted, in words

    def at(self, ability: str, **labels: Any) -> Uncertain | None:
        """The score of the set-up with just these axes (labels that name none of _AXES are not looked at).

        Labels of value None or "" stand for an axis that the set-up does not have.
        """
        wanted = _axes(labels.items())
        for (own, setup), cell in self._cells.items():
            if own == ability and _axes(setup) == wanted:
                return cell
        return None

    def parts(self, **labels: Any) -> list[str]:
        """The k at which the set-up with just these axes was run, the smallest first."""
        wanted, every = _axes(labels.items()), [_axes(setup) for _, setup in self._cells]
        found = {own["k"] for own in every if own.keys() - wanted == {"k"} and own == own | wanted}
        return sorted(filter(is_part, found), key=number)

    @property
    def abilities(self) -> list[str]:
        return sorted({ability for ability, _ in self._cells}, key=["math", "code", "general"].index)


def number(k: str) -> float:
    """`1/16` → 0.0625"""
    return float(Fraction(k))


def is_part(k: Any) -> bool:
    """Whether a label is such a part: a study of one's own may call another axis k."""
    try:
        return number(k) >= 0
    except (ValueError, TypeError, ArithmeticError):
        return False


def _axes(labels: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in labels if key in _AXES and value not in ("", None)}


def benchmarks(found: Iterable[Result]) -> dict[str, str]:
    """Ability → the one of its tasks that stands for it.

    The one with most scores; of several the paper's own, else the first by name.
    """
    counts = Counter((result.ability, result.task) for result in found if result.primary)
    order = sorted(counts, key=lambda each: (-counts[each], each[1] not in _PAPER, each[1]))
    return {ability: task for ability, task in reversed(order)}


def measured(found: Sequence[Result], size: str) -> Cells:
    """The primary metric of the task that stands for each ability, at every stage of every set-up of one model size.

    The score after the last stage stands without a `stage` label, those before it with theirs.
    """
    groups: dict[tuple[str, tuple[tuple[str, Any], ...]], dict[int, Result]] = {}
    mine = [result for result in found if result.primary and result.labels.get("size", size) == size]
    chosen = benchmarks(mine)
    for result in mine:
        if result.ability in BEST and result.task == chosen[result.ability]:
            stage = () if result.is_last else (("stage", result.stage),)
            groups.setdefault((result.ability, result.setup + stage), {})[result.seed] = result
    cells, seeds, left_out = {}, 0, []
    for key, by_seed in groups.items():
        rows = [results.verdicts(result) for _, result in sorted(by_seed.items())]
        asked = dict.fromkeys(question for row in rows for question in row)
        shared = [question for question in asked if all(question in row for row in rows)]
        if len(shared) < len(asked):
            first = next(iter(by_seed.values()))
            left_out.append(
                f"{first.experiment} and its other seeds, after {first.stage}: {len(asked) - len(shared)} of "
                f"{len(asked)} questions of {first.task} have no verdict for some seed and are left out"
            )
        if shared:
            cells[key] = uncertain.from_verdicts(np.array([[row[question] for question in shared] for row in rows]))
            seeds = max(seeds, len(rows))
    return Cells(cells, f"measured here, {seeds} seed{'s' if seeds != 1 else ''}", seeds, left_out)


# --- the paper's own ----------------------------------------------------------------------------

_QUESTIONS = {"math": 1319, "code": 164}  # of GSM8K and HumanEval, in percent; general is MT-Bench's rating
_REPEATED = 0.15  # by so much the MT-Bench ratings differ of the set-ups that the paper reports twice


def paper_table() -> list[dict[str, str]]:
    """The numbers that the paper prints (arXiv 2310.05492), a row a set-up, the cells that it leaves out empty.

    Where its tables disagree (13B, all of the code data alone: 17.1 and 18.4) the one of the scaling curve stands.
    """
    text = resources.files("sftmix_jax.analysis").joinpath("paper.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


def published(size: str) -> Cells:
    """The paper's table for one model size, as if it were ours.

    It has one run each. Rates get the standard error of their questions, MT-Bench that of one run of two.
    """
    cells = {}
    for row in paper_table():
        if row["size"] != size:
            continue
        setup = tuple(sorted((axis, row[axis]) for axis in _AXES if row.get(axis)))
        for ability in BEST:
            if not row[ability]:
                continue
            value, error = float(row[ability]), _REPEATED / math.sqrt(2)
            if ability in _QUESTIONS:
                value /= 100
                error = math.sqrt(value * (1 - value) / _QUESTIONS[ability])
            cells[ability, setup] = uncertain.published(value, error, f"{size} {ability} {setup}")
    return Cells(cells, "published by the paper, one run each", 1)


def series(
    cells: Cells, ability: str, parts: Sequence[str] | None = None, **labels: Any
) -> list[tuple[str, Uncertain]]:
    """(k, score) for those of the parts (by default of all) that are there."""
    found = [(k, cells.at(ability, k=k, **labels)) for k in (cells.parts(**labels) if parts is None else parts)]
    return [(k, cell) for k, cell in found if cell is not None]
