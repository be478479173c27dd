"""What findings are read from: an ability of a set-up, over its seeds; measured here, or published by the paper."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

import numpy as np

from sftmix_jax.analysis import results, uncertain
from sftmix_jax.analysis.results import Result
from sftmix_jax.analysis.uncertain import Uncertain

_AXES = ("strategy", "source", "k", "setup", "without", "stage")
BEST = {"math": 1.0, "code": 1.0, "general": 10.0}


class Cells:
    """Scores by (ability, labels); `at` gives none where a set-up was not run or is not finished."""

    def __init__(self, cells: dict[tuple[str, tuple[tuple[str, Any], ...]], Uncertain], source: str, seeds: int):
        self._cells, self.source, self.seeds = cells, source, seeds

    def at(self, ability: str, **labels: Any) -> Uncertain | None:
        """The score of the set-up with just these axes (labels that name none of _AXES are not looked at).

        Labels of value None or "" stand for an axis that the set-up does not have.
        """
        wanted = _axes(labels.items())
        for (own, setup), cell in self._cells.items():
            if own == ability and _axes(setup) == wanted:
                return cell
        return None

    @property
    def abilities(self) -> list[str]:
        return sorted({ability for ability, _ in self._cells}, key=["math", "code", "general"].index)


def _axes(labels: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in labels if key in _AXES and value not in ("", None)}


def measured(found: Iterable[Result], size: str) -> Cells:
    """The primary metric of each ability's first task, at every stage of every set-up of one model size.

    The score after the last stage stands without a `stage` label, those before it with theirs.
    """
    groups: dict[tuple[str, tuple[tuple[str, Any], ...]], dict[int, Result]] = {}
    for result in found:
        if not result.primary or result.ability not in BEST or result.labels.get("size", size) != size:
            continue
        stage = () if result.is_last else (("stage", result.stage),)
        groups.setdefault((result.ability, result.setup + stage), {})[result.seed] = result
    cells, seeds = {}, 0
    for key, by_seed in groups.items():
        rows = [results.verdicts(result) for _, result in sorted(by_seed.items())]
        if len({len(row) for row in rows}) == 1:  # else the seeds were asked different questions
            cells[key] = uncertain.from_verdicts(np.stack(rows))
            seeds = max(seeds, len(rows))
    return Cells(cells, f"measured here, {seeds} seed{'s' if seeds != 1 else ''}", seeds)


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


def series(cells: Cells, ability: str, parts: Sequence[str], **labels: Any) -> list[tuple[str, Uncertain]]:
    """(k, score) for those parts that are there."""
    found = [(k, cells.at(ability, k=k, **labels)) for k in parts]
    return [(k, cell) for k, cell in found if cell is not None]
