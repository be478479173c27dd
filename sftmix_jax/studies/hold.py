"""Comparisons that keep something else equal than the epochs: steps, or trained tokens."""

from __future__ import annotations

import copy
import dataclasses
import math

from sftmix_jax.experiment.stages import Resolved
from sftmix_jax.studies.study import Run, Study


def held(study: Study) -> Study:
    """The study with every experiment as long as its longest, in what `study.hold` names.

    The last stage takes up the difference, going through its data again, so that stages in common stay in common.
    """
    if study.hold == "epochs":
        return study
    amounts = [_amounts(run, study.hold) for run in study.runs]
    target = max(sum(each for each, _ in stages) for stages in amounts)
    runs = []
    for run, stages in zip(study.runs, amounts, strict=True):
        experiment = copy.deepcopy(run.experiment)
        last = list(experiment.stages)[-1]
        own, steps = stages[-1]
        missing = target - sum(each for each, _ in stages)
        experiment.stages[last].steps = math.ceil(steps * (own + missing) / own)
        runs.append(Run(experiment, run.labels))
    return dataclasses.replace(study, runs=runs)


def _amounts(run: Run, hold: str) -> list[tuple[float, int]]:
    """Of each stage: how much of what is held, and its steps."""
    resolved, out = Resolved(run.experiment), []
    for stage in resolved.chain():
        plan, _ = resolved.plan(stage.stage)
        steps = stage.stage.steps or plan.num_steps
        trained = sum(account["trained_tokens"] for account in plan.ledger(steps).values())
        out.append((steps if hold == "steps" else trained, steps))
    return out
