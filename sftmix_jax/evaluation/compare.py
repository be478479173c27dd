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
from sftmix_jax.machine.escaping import file_name
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
    """Every metric of a task on two stage folders; of lm-eval's (`lm_eval/NAME`) those that are means over documents.

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
        asked = [
            (one, verdicts[1][id])
            for id, one in verdicts[0].items()
            if id in verdicts[1] and group in (None, one.get("group"))
        ]
        told = [
            (a["scores"], b["scores"])
            for a, b in asked
            if a["scores"][metric] is not None and b["scores"][metric] is not None
        ]
        if told:  # n tells how many these are
            pairs = np.array([[a[metric], b[metric]] for a, b in told], np.float64)
            weights = np.array([a[weight] if weight else 1.0 for a, _ in told], np.float64)
            found.append(_difference(name, pairs, weights, summary))
    if not found:
        raise UserError(f"{task}: {first.name} and {second.name} have no verdicts on single questions to compare")
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
    of_lm_eval = task.startswith("lm_eval/")
    scored = folder / "eval" / (file_name(task.replace("/", "_", 1)) if of_lm_eval else task)
    if not (scored / "score.json").exists():
        asked = f"--lm_eval {task.removeprefix('lm_eval/')}" if of_lm_eval else f"--tasks {task}"
        raise UserError(f"{folder}: has no score on {task}; run evaluate {asked} on it first")
    record = records.score(scored / "score.json")
    if of_lm_eval:
        return record, _documents(records.samples(scored / "samples.jsonl"), record["metrics"])
    return record, {row["id"]: row for row in records.responses(scored / "responses.jsonl")}


def _documents(samples: list[dict[str, Any]], metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """lm-eval's samples as responses: by document, each metric that is the mean of its values over documents."""
    values: dict[str, dict[str, float]] = {}
    for name, summary in metrics.items():
        metric, _, which = name.removesuffix(")").partition(" (")
        each = {
            str(sample["doc_id"]): float(sample[metric])
            for sample in samples
            if sample.get("filter", "none") == (which or "none") and isinstance(sample.get(metric), int | float)
        }
        if each and math.isclose(sum(each.values()) / len(each), summary["value"], abs_tol=1e-9):
            values[name] = each
    ids = dict.fromkeys(id for each in values.values() for id in each)
    return {id: {"id": id, "scores": {name: values.get(name, {}).get(id) for name in metrics}} for id in ids}


def _differing(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What fixed two scores differently; that the models differ is the point of comparing them."""
    keys = (first.keys() | second.keys()) - {"model"}
    return {key: (first.get(key), second.get(key)) for key in sorted(keys) if first.get(key) != second.get(key)}
