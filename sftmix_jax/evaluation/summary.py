"""Verdicts → metrics: each one's value, interval and number of questions."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from sftmix_jax.evaluation.statistics import bootstrap_mean, wilson
from sftmix_jax.evaluation.task import Metric, Question, Task, Verdict
from sftmix_jax.machine.errors import UserError


def summarise(
    task: Task, questions: Sequence[Question], verdicts: Sequence[Verdict], samples: int = 1
) -> dict[str, dict[str, Any]]:
    """Each metric's value, n and 95 % interval, over all questions and by group."""
    metrics = [metric for metric in task.metrics if metric.samples <= samples]
    metrics += task.of_samples(samples) if task.of_samples else []
    groups = list(dict.fromkeys(question.group for question in questions if question.group))
    for metric, (question, verdict) in itertools.product(metrics, zip(questions, verdicts, strict=True)):
        if lost := {metric.name, metric.weight or metric.name} - verdict.keys():
            given = ", ".join(verdict) or "none"
            raise UserError(f"{task.name}: its score of '{question.id}' has no '{min(lost)}', only {given}")
        value = verdict[metric.name]
        if value is not None and metric.best and not 0 <= value <= metric.best:
            raise UserError(
                f"{task.name}: its score of '{question.id}' has {metric.name}={value:g}; must be from 0 to "
                f"{metric.best:g}, or the task says another `best`"
            )
    found = {metric.name: _summary(metric, verdicts) for metric in metrics}
    for metric in metrics:
        for group in groups:
            mine = [verdict for question, verdict in zip(questions, verdicts, strict=True) if question.group == group]
            found[f"{metric.name}, {group}"] = _summary(metric, mine) | {"of": metric.name, "group": group}
    return found


def _summary(metric: Metric, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Wilson's interval for rates, bootstrap over questions for means."""
    told = [verdict for verdict in verdicts if verdict[metric.name] is not None]
    values = [float(verdict[metric.name] or 0) for verdict in told]
    weights = [float(verdict[metric.weight] or 0) if metric.weight else 1.0 for verdict in told]
    n = len(values)
    kind = {"best": metric.best, "weight": metric.weight, "geometric": metric.geometric}
    if n == 0:  # no question is about it: no number either
        return {"value": None, "n": 0, "low": None, "high": None, **kind}
    if metric.geometric:
        values = [math.log(value) for value in values]
    value = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    alike = len(set(values)) == 1  # a bootstrap of such shows no doubt at all
    passes = alike or (metric.is_rate and not metric.weight and all(v in (0, 1) for v in values))
    counted = passes and metric.best == 1 and not metric.geometric
    low, high = wilson(round(sum(values)), n) if counted else bootstrap_mean(values, weights)
    if metric.geometric:
        value, low, high = math.exp(value), math.exp(low), math.exp(high)
    return {"value": value, "n": n, "low": low, "high": high, **kind}
