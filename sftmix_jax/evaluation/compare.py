"""Two models on the same questions, question by question.

What is compared are two checkpoints: that a recipe is better than another needs several seeds of each, as in a study.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
from etils import epath

from sftmix_jax.evaluation.statistics import mcnemar, newcombe, paired_t
from sftmix_jax.machine.errors import UserError
from sftmix_jax.workdir import records


@dataclasses.dataclass(frozen=True)
class Difference:
    """Second minus first, for one metric."""

    metric: str
    n: int
    first: float
    second: float
    low: float  # 95 % interval of second - first; NaN where the questions show no spread
    high: float
    p: float  # of no difference, two-sided; NaN as well
    best: float


def compare(first: epath.Path, second: epath.Path, task: str) -> list[Difference]:
    """Every metric of a task on two stage folders.

    Raises UserError if one was not scored, or if what fixed the scores (but for the model) differs.
    """
    scores, verdicts = zip(*(_read(folder, task) for folder in (first, second)), strict=True)
    differing = _differing(*(record["fixed_by"] for record in scores))
    if differing:
        raise UserError(
            f"{task}: the scores of {first.name} and {second.name} cannot stand side by side; they differ in "
            + "; ".join(f"{name}: {a} and {b}" for name, (a, b) in differing.items())
            + ". Evaluate both again in the same way"
        )
    found = []
    for name, summary in scores[0]["metrics"].items():
        metric, weight, group = summary.get("of", name), summary.get("weight"), summary.get("group")
        asked = [(first, verdicts[1][id]) for id, first in verdicts[0].items() if group in (None, first.get("group"))]
        told = [(a["scores"], b["scores"]) for a, b in asked
                if a["scores"][metric] is not None and b["scores"][metric] is not None]  # fmt: skip
        if told:  # n tells how many these are
            pairs = np.array([[a[metric], b[metric]] for a, b in told], np.float64)
            weights = np.array([a[weight] if weight else 1.0 for a, _ in told], np.float64)
            found.append(_difference(name, pairs, weights, summary))
    return found


def _difference(name: str, pairs: np.ndarray, weights: np.ndarray, summary: dict[str, Any]) -> Difference:
    """Of pairs [n, 2]: plain rates by Newcombe and McNemar, every other mean by Student's t on paired differences."""
    geometric, best = summary.get("geometric", False), summary["best"]
    values = np.log(pairs) if geometric else pairs
    means = np.average(values, axis=0, weights=weights)
    first, second = (float(mean) for mean in (np.exp(means) if geometric else means))
    if best == 1 and not summary.get("weight") and len(pairs) > 1 and bool(np.isin(pairs, (0.0, 1.0)).all()):
        counts = Counter(map(tuple, pairs.tolist()))
        both, only_first, only_second, neither = (counts[a, b] for a, b in ((1, 1), (1, 0), (0, 1), (0, 0)))
        low, high = newcombe(both, only_first, only_second, neither)
        return Difference(name, len(pairs), first, second, low, high, mcnemar(only_first, only_second), best)
    low, high, p = paired_t(np.diff(values)[:, 0].tolist(), weights.tolist())
    if geometric:  # the interval of the ratio, beside the first model's mean
        low, high = (first * math.expm1(end) for end in (low, high))
    elif best:
        low, high = (min(max(end, -best), best) if math.isfinite(end) else end for end in (low, high))
    return Difference(name, len(pairs), first, second, low, high, p, best)


def _read(folder: epath.Path, task: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A task's record on a stage, and its responses by question."""
    scored = folder / "eval" / task
    if not (scored / "score.json").exists():
        raise UserError(f"{folder}: has no score on {task}; run evaluate --tasks {task} on it first")
    rows = records.responses(scored / "responses.jsonl")
    return records.score(scored / "score.json"), {row["id"]: row for row in rows}


def _differing(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What fixed two scores differently; that the models differ is the point of comparing them."""
    keys = (first.keys() | second.keys()) - {"model"}
    return {key: (first.get(key), second.get(key)) for key in sorted(keys) if first.get(key) != second.get(key)}
