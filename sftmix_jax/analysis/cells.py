"""What findings are read from: an ability of a set-up, over its seeds; measured here, or published by the paper."""

from __future__ import annotations

import json
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

_TASKS = {"gsm8k": "math", "humaneval": "code", "mt_bench": "general"}
_QUESTIONS = {"gsm8k": 1319, "humaneval": 164}


def paper_tables() -> dict[str, Any]:
    """The numbers that the paper prints (arXiv 2310.05492), as data."""
    return json.loads(resources.files("sftmix_jax.analysis").joinpath("paper.json").read_text())


def published(size: str) -> Cells:
    """The paper's tables for one model size, as if they were ours.

    It has one run each. Rates get the standard error of their questions; MT-Bench that of its configurations that the
    paper reports twice (they differ by 0.15, so one run's error is 0.15/√2).
    """
    tables, cells = paper_tables(), {}

    def put(row: dict[str, float], **labels: Any) -> None:
        for task, ability in _TASKS.items():
            if task not in row:
                continue
            key = (ability, tuple(sorted(labels.items())))
            if ability == "general":
                value, error = row[task], tables["noise_from_the_papers_own_repeats_7b"][task] / math.sqrt(2)
            else:
                value = row[task] / 100
                error = math.sqrt(value * (1 - value) / _QUESTIONS[task])
            cells[key] = uncertain.published(value, error, f"{size} {key}")

    main = tables["main_table"].get(size, {})
    for k, row in tables["rq1_single_source"].get(size, {}).items():
        for task, ability in _TASKS.items():
            if task in row:
                put({task: row[task]}, strategy="single", source=ability, k=k)
    for k, row in tables["rq2_all_sources_at_k"].get(size, {}).items():
        put(row, strategy="mixed", k=k)
    if size == "7b":
        for setup, name in (("a", "full_specialised_general_at_k"), ("b", "specialised_at_k_full_general"),
                            ("c", "specialised_at_k_general_1_64")):  # fmt: skip
            for k, row in tables["rq3_ratio_7b"][name].items():
                put(row, strategy="mixed", setup=setup, k=k)
        for k, row in tables["ablation_general_without_code_and_math"].items():
            put(row, strategy="mixed", without="code,math", k=k)
    for k, row in tables["rq4_dmt_k"].get(size, {}).items():
        put(row, strategy="mixed_sequential" if k == "0" else "dmt", k=k)
    for name in ("multitask", "sequential"):
        if name in main:
            put(main[name], strategy=name)
    if "mixed_sequential" in main:
        put(main["mixed_sequential"], strategy="mixed_sequential", k="0")
    if "dmt_k_1_256" in main:
        put(main["dmt_k_1_256"], strategy="dmt", k="1/256")
    return Cells(cells, "published by the paper, one run each", 1)


def series(cells: Cells, ability: str, parts: Sequence[str], **labels: Any) -> list[tuple[str, Uncertain]]:
    """(k, score) for those parts that are there."""
    found = [(k, cells.at(ability, k=k, **labels)) for k in parts]
    return [(k, cell) for k, cell in found if cell is not None]
