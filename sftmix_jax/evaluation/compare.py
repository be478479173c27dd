"""Two models on the same questions, question by question.

What is compared are two checkpoints: that a recipe is better than another needs several seeds of each, as in a study.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
from etils import epath

from sftmix_jax.evaluation.statistics import mcnemar, newcombe, paired_bootstrap, paired_t
from sftmix_jax.machine.errors import UserError
from sftmix_jax.workdir import records


@dataclasses.dataclass(frozen=True)
class Difference:
    """Second minus first, for one metric."""

    metric: str
    n: int
    first: float
    second: float
    low: float  # 95 % interval of second - first
    high: float
    p: float  # of no difference, two-sided
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
    """Of pairs [n, 2]: rates by Newcombe and McNemar, other means by Student's t, the rest by a bootstrap."""
    geometric, n = summary.get("geometric", False), len(pairs)

    def means(chosen: np.ndarray) -> np.ndarray:
        """The two models' scores [..., 2] over chosen questions [..., n], as `evaluate` makes them."""
        weight = weights[chosen][..., None]
        values = np.log(pairs) if geometric else pairs
        mean = (values[chosen] * weight).sum(axis=-2) / weight.sum(axis=-2)
        return np.exp(mean) if geometric else mean

    first, second = means(np.arange(n))
    if geometric or summary.get("weight"):
        low, high, p = paired_bootstrap(lambda chosen: np.diff(means(chosen))[..., 0], n)
    elif set(np.unique(pairs)) <= {0.0, 1.0}:
        counts = Counter(map(tuple, pairs.tolist()))
        both, only_first, only_second, neither = (counts[a, b] for a, b in ((1, 1), (1, 0), (0, 1), (0, 0)))
        low, high = newcombe(both, only_first, only_second, neither)
        p = mcnemar(only_first, only_second)
    else:
        low, high, p = paired_t(np.diff(pairs)[:, 0].tolist())
    return Difference(name, n, float(first), float(second), low, high, p, summary["best"])


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
