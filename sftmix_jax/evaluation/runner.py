"""Score a model's answers, or stored ones: questions → responses → score.json, with everything that fixed it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from sftmix_jax.evaluation import stored
from sftmix_jax.evaluation.answers import Answers, Model, ask, leased
from sftmix_jax.evaluation.config import EvaluationConfig, load_questions
from sftmix_jax.evaluation.fixed import asked_by, decoding_of, fixed_by, is_scored
from sftmix_jax.evaluation.journal import Journal
from sftmix_jax.evaluation.judging import Judge
from sftmix_jax.evaluation.scoring import Scored, check, failures_in, fewest_samples, rated, said, score
from sftmix_jax.evaluation.summary import summarise
from sftmix_jax.evaluation.task import Question, Task, find_task
from sftmix_jax.machine import processes, ranges
from sftmix_jax.workdir import records


def run_task(model: Model, name: str, config: EvaluationConfig, judge: Judge | None = None) -> dict[str, Any]:
    """One task on one model → its score.json; taken from disk if the same was scored before.

    Waits while another process scores the task in the model's folder, and takes its score if it is the same.
    """
    task, version = find_task(name)
    questions = load_questions(task, config)
    check(task, config, judge)
    decoding = decoding_of(task, config)
    fixed = {
        **fixed_by(task, version, questions, config, judge),
        **asked_by(task, config),
        "model": model.identity,
        "template": model.chat.fingerprint,
        "stops": model.sampler.stops,
        "slots": model.sampler.slots,
    }
    folder = model.folder / "eval" / task.name
    if processes.first_says(is_scored(folder, fixed)):
        return records.score(folder / "score.json")

    def running(question: Question, text: str) -> float | None:
        cheap = task.score is not None and not task.runs_code and len(question.turns) == 1
        return rated(task, question, [text]).get(task.metrics[0].name) if cheap else None

    with leased(model, task.name) as check_lease:
        if processes.first_says(is_scored(folder, fixed, report=True)):  # by another process meanwhile
            return records.score(folder / "score.json")
        journal = Journal(folder / "answers")
        processes.wait_for_all("answers are read")  # before process 0 writes more
        asked = ask(model, task.name, questions, decoding, journal, running)
        if not processes.is_first():
            processes.wait_for_all("scored")
            return records.score(folder / "score.json")
        scored = score(task, questions, asked.answers, config, judge, folder, model.folder.name)
        record = {
            "task": task.name,
            "ability": task.ability,
            "model": model.name,
            "metrics": summarise(task, questions, scored.verdicts, decoding.samples),
            "questions": len(questions),
            "finish_reasons": dict(asked.finish_reasons),
            **failures_in(scored),
            **scored.judgment,
            "seconds": round(asked.seconds, 2),
            "fixed_by": fixed,
        }
        check_lease()
        record = write(folder, task, questions, asked.answers, scored, record)
        processes.wait_for_all("scored")
        return record


def score_responses(
    name: str,
    file: epath.Path,
    config: EvaluationConfig,
    judge: Judge | None = None,
    out: epath.Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Score stored responses without a model → a score.json with every question's verdict; into `out` too.

    `columns` names the file's fields where its layout is not a known one (layouts.py).
    """
    task, version = find_task(name)
    ranges.check(config, "evaluation")
    everything = load_questions(task, dataclasses.replace(config, limit=0))
    questions = everything[: config.limit or None]
    check(task, config, judge)
    answers = stored.read_responses(file, everything, task.runs_code, columns)
    samples = fewest_samples(answers, questions)
    scored = score(task, questions, answers, config, judge, out, file.stem)
    record = {
        "task": task.name,
        "ability": task.ability,
        "model": str(file),
        "metrics": summarise(task, questions, scored.verdicts, samples),
        "questions": len(questions),
        "missing": [q.id for q in questions if q.id not in answers],
        "empty": [q.id for q in questions if any(not any(map(str.strip, turns)) for turns in answers.get(q.id, []))],
        **failures_in(scored),
        **scored.judgment,
        "fixed_by": fixed_by(task, version, questions, config, judge),
    }
    if out is not None:
        record = write(out, task, questions, answers, scored, record)
    return {**record, "verdicts": {q.id: v for q, v in zip(questions, scored.verdicts, strict=True)}}


def write(
    folder: epath.Path,
    task: Task,
    questions: Sequence[Question],
    answers: Answers,
    scored: Scored,
    record: dict[str, Any],
) -> dict[str, Any]:
    """Write each question's response, what of it was compared, verdict and reasons; then score.json → its record."""
    rows = []
    for question, verdict in zip(questions, scored.verdicts, strict=True):
        given = [turns[0] if len(question.turns) == 1 and turns else turns for turns in answers.get(question.id, [])]
        row = {
            "id": question.id,
            "turns": question.turns,
            **({"group": question.group} if question.group else {}),
            **({"response": given[0]} if len(given) == 1 else {"samples": given}),
            **(
                {"extracted": [task.extract(question, said(turns)) for turns in answers.get(question.id, [])]}
                if task.extract
                else {}
            ),
            "scores": verdict,
            **({"reasons": scored.reasons[question.id]} if question.id in scored.reasons else {}),
            "reference": dict(question.reference),
        }
        rows.append(row)
    return records.write_scored(folder, rows, record)
