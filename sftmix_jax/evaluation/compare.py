"""Two models on the same questions, question by question."""

from __future__ import annotations

import dataclasses
from typing import Any

from etils import epath

from sftmix_jax import records
from sftmix_jax.errors import UserError
from sftmix_jax.evaluation.statistics import bootstrap_mean, mcnemar, paired_bootstrap


@dataclasses.dataclass(frozen=True)
class Difference:
    """Second minus first, for one metric."""

    metric: str
    n: int
    first: float
    second: float
    low: float  # 95 % interval of second - first, bootstrap over questions
    high: float
    p: float  # McNemar's exact test for rates, paired bootstrap for ratings
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
    for metric, summary in scores[0]["metrics"].items():
        both = [(verdicts[0][id][metric], verdicts[1][id][metric]) for id in verdicts[0]]
        pairs = [(a, b) for a, b in both if a is not None and b is not None]  # n tells how many these are
        if pairs:
            found.append(_difference(metric, pairs, summary["best"]))
    return found


def _difference(metric: str, pairs: list[tuple[float, float]], best: float) -> Difference:
    differences = [b - a for a, b in pairs]
    low, high = bootstrap_mean(differences)
    if all(value in (0, 1) for pair in pairs for value in pair):
        p = mcnemar(differences.count(-1), differences.count(1))
    else:
        p = paired_bootstrap(differences)
    n = len(pairs)
    return Difference(metric, n, sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n, low, high, p, best)


def _read(folder: epath.Path, task: str) -> tuple[dict[str, Any], dict[str, dict[str, float | None]]]:
    scored = folder / "eval" / task
    if not (scored / "score.json").exists():
        raise UserError(f"{folder}: has no score on {task}; run evaluate --tasks {task} on it first")
    rows = records.responses(scored / "responses.jsonl")
    return records.score(scored / "score.json"), {row["id"]: row["scores"] for row in rows}


def _differing(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What fixed two scores differently; that the models differ is the point of comparing them."""
    keys = (first.keys() | second.keys()) - {"model"}
    return {key: (first.get(key), second.get(key)) for key in sorted(keys) if first.get(key) != second.get(key)}
