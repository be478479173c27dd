"""Score what judges have said before, as files hold it; nothing is asked."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from etils import epath

from sftmix_jax.evaluation import fastchat, pairs
from sftmix_jax.evaluation.config import EvaluationConfig, load_questions
from sftmix_jax.evaluation.fixed import fixed_by
from sftmix_jax.evaluation.lookup import Lookup, Unusable
from sftmix_jax.evaluation.summary import summarise
from sftmix_jax.evaluation.task import Question, Task, find_task
from sftmix_jax.machine.errors import UserError


def score_judgments(name: str, files: Sequence[epath.Path], config: EvaluationConfig) -> list[dict[str, Any]]:
    """Stored judgments, read again → a score.json for each model in the files, or pair of models; nothing is asked.

    A question's turn is the mean of its judgings. A rating that its reply does not hold, or another one than the file
    says, is listed under `unparsed` or `differing`; what the reply says counts.
    """
    task, version = find_task(name)
    if task.rubric is None:
        raise UserError(f"--judgments are of a benchmark whose answers are judged, {name} is not")
    if twice := [file for i, file in enumerate(files) if file.resolve() in [each.resolve() for each in files[:i]]]:
        raise UserError(f"--judgments: {twice[0]} is named twice; its verdicts would count twice")
    everything = load_questions(task, dataclasses.replace(config, limit=0))
    questions = everything[: config.limit or None]
    asked = Lookup(everything)
    if task.rubric.pairwise:
        return _score_pairs(task, version, files, config, questions, asked)
    records = []
    for model, judgments in fastchat.read_judgments(files).items():
        ratings: dict[str, dict[int, list[float]]] = {}
        unparsed, differing = [], []
        for judgment in judgments:
            try:
                id = asked.by_id(judgment.number)
            except Unusable as reason:
                raise UserError(f"{judgment.where}: {reason}") from None
            if not 1 <= judgment.turn <= asked.turns[id]:
                raise UserError(f"{judgment.where}: no turn {judgment.turn} in question '{id}'")
            rating = task.rubric.read(judgment.reply)
            if rating is None:
                unparsed.append(judgment.where)
            else:
                ratings.setdefault(id, {}).setdefault(judgment.turn, []).append(rating)
            if rating != judgment.score:
                differing.append(judgment.where)
        verdicts = []
        for question in questions:
            turns = {turn: statistics.fmean(given) for turn, given in ratings.get(question.id, {}).items()}
            verdicts.append(task.rubric.rate(question, [turns.get(turn + 1) for turn in range(len(question.turns))]))
        judges = sorted({judgment.judge for judgment in judgments})
        records.append(
            {
                "task": task.name,
                "ability": task.ability,
                "model": model,
                "metrics": summarise(task, questions, verdicts),
                "questions": len(questions),
                "missing": [question.id for question in questions if question.id not in ratings],
                "stored_judgments": len(judgments),
                "unparsed": unparsed,
                "differing": differing,
                "fixed_by": {
                    **fixed_by(task, version, questions, config, None),
                    "judge": {"id": ", ".join(judges), "judgments": ", ".join(file.name for file in files)},
                },
            }
        )
    if not records:
        raise UserError(f"{', '.join(map(str, files))}: no judgments in it")
    return records


def _score_pairs(
    task: Task,
    version: str,
    files: Sequence[epath.Path],
    config: EvaluationConfig,
    questions: Sequence[Question],
    asked: Lookup,
) -> list[dict[str, Any]]:
    """Stored verdicts on pairs of answers → a score.json for each pair of models; the task combines both orders."""
    assert task.rubric is not None
    records = []
    for pair in pairs.read_stored(files, asked):
        verdicts = [task.rubric.rate(q, pair.ratings(q.id, len(q.turns))) for q in questions]
        judged = {question for question, _ in pair.found}
        records.append(
            {
                "task": task.name,
                "ability": task.ability,
                "model": f"{pair.model} against {pair.other}",
                "metrics": summarise(task, questions, verdicts),
                "questions": len(questions),
                "missing": [question.id for question in questions if question.id not in judged],
                "stored_judgments": pair.count,
                "one_order": pair.one_order,
                "unparsed": pair.unparsed,
                "differing": pair.differing,
                "fixed_by": {
                    **fixed_by(task, version, questions, config, None),
                    "judge": {
                        "id": ", ".join(sorted(pair.judges)),
                        "judgments": ", ".join(file.name for file in files),
                    },
                },
            }
        )
    return records
