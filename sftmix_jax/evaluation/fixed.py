"""What fixes a score: task, questions, decoding, judge; and whether such a score is stored already."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from sftmix_jax import __version__
from sftmix_jax.evaluation import judging
from sftmix_jax.evaluation.answers import Decoding
from sftmix_jax.evaluation.config import EvaluationConfig, load_questions
from sftmix_jax.evaluation.judging import Judge, Rubric
from sftmix_jax.evaluation.task import Question, Task, find_task, questions_hash
from sftmix_jax.machine import processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.workdir import records


def decoding_of(task: Task, config: EvaluationConfig) -> Decoding:
    decoding = Decoding(float(config.temperature or task.temperature), task.max_new_tokens, config.samples, config.seed)
    if decoding.samples > 1 and decoding.temperature == 0:
        raise UserError(f"{task.name}: {decoding.samples} greedy samples would all be the same; set a temperature")
    return decoding


def fixed_by(
    task: Task, version: str, questions: Sequence[Question], config: EvaluationConfig, judge: Judge | None
) -> dict[str, Any]:
    fixed = {
        "task": task.name,
        "task_version": version,
        "data": questions_hash(questions),
        # in words where the task says it; task_version covers the code of every rule
        "extraction": {metric.name: metric.about for metric in task.metrics if metric.about},
        "limit": config.limit,
        "code_version": __version__,
    }
    if task.rubric and judge:
        fixed["judge"] = {"id": judge.name, **_judged_by(task.rubric, questions, config)}
    return fixed


def asked_by(task: Task, config: EvaluationConfig) -> dict[str, Any]:
    decoding = dataclasses.asdict(decoding_of(task, config))
    return {"few_shot": 0, "decoding": decoding, "padding": "right"}  # a row of the cache is filled from its front


def _judged_by(rubric: Rubric, questions: Sequence[Question], config: EvaluationConfig) -> dict[str, Any]:
    given = config.judge
    prompts = [prompt for q in questions for prompt in rubric.prompts(q, [""] * len(q.turns))]
    return {
        "temperature": given.temperature,
        "judgings": given.judgings,
        "max_tokens": given.max_tokens,
        "prompts": judging.prompts_hash(prompts),
    }


def wanted(name: str, config: EvaluationConfig) -> dict[str, Any]:
    """What a config fixes of a task's score, whatever model answers, for `is_scored`. Raises UserError."""
    task, version = find_task(name)
    questions = load_questions(task, config)
    judge = {"judge": _judged_by(task.rubric, questions, config)} if task.rubric else {}
    return {**fixed_by(task, version, questions, config, None), **asked_by(task, config), **judge}


def is_scored(folder: epath.Path, wanted: Mapping[str, Any], report: bool = False) -> bool:
    """Whether eval/TASK holds a score with all of `wanted` in what fixed it, and the responses that were scored.

    A damaged or changed score.json or responses.jsonl counts as none; `report` prints which file it is.
    """
    if not (folder / "score.json").exists():
        return False
    remedy = "it is written anew"
    try:
        if not _agrees(records.score(folder / "score.json", remedy)["fixed_by"], wanted):
            return False
        records.responses(folder / "responses.jsonl", remedy)
        return True
    except UserError as error:
        if report and processes.is_first():
            terminal.err(f"scored again: {error}")
        return False


def _agrees(fixed: Any, wanted: Any) -> bool:
    """Whether every entry of `wanted`, at any depth, is in `fixed`; numbers are one value as int and as float."""
    if isinstance(wanted, Mapping):
        return isinstance(fixed, Mapping) and all(_agrees(fixed.get(key), value) for key, value in wanted.items())
    return bool(fixed == (list(wanted) if isinstance(wanted, tuple) else wanted))
