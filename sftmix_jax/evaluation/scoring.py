"""Answers → verdicts: by a task's own code, or by a judge."""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from sftmix_jax.evaluation import failures, fastchat, judging, sandbox
from sftmix_jax.evaluation.answers import Answers
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.evaluation.journal import Journal
from sftmix_jax.evaluation.judging import Judge, JudgeConfig
from sftmix_jax.evaluation.replies import without_reasoning
from sftmix_jax.evaluation.task import Explained, Question, Task, Turns, Verdict
from sftmix_jax.machine import processes, terminal
from sftmix_jax.machine.errors import UserError


@dataclasses.dataclass
class Scored:
    """A verdict for each question, why its samples failed, and what a judge had to say."""

    verdicts: list[Verdict]
    judgment: dict[str, Any]  # tokens, cost, unparsed and failed judgments, flags; empty without a judge
    reasons: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # by question id, of tasks that say why


def check(task: Task, config: EvaluationConfig, judge: Judge | None) -> None:
    """Raise UserError for what would only show after all answers are there."""
    if task.rubric and judge is None:
        raise UserError(
            f"{task.name} is rated by a judge: --judge openai:MODEL (any compatible endpoint: OPENAI_BASE_URL and "
            "OPENAI_API_KEY) or --judge model:DIR_OR_HUB_ID"
        )
    if task.runs_code and not sandbox.is_safe() and not config.allow_unsandboxed_code:
        raise UserError(
            f"{task.name} runs code that a model wrote, and this machine cannot contain it (standing: "
            f"{', '.join(sandbox.walls()) or 'nothing'}; needed: landlock, and namespaces or seccomp). Use a newer "
            "kernel, or accept the risk with --allow_unsandboxed_code"
        )
    if task.runs_code and processes.is_first():
        _say_walls()


@functools.cache
def _say_walls() -> None:
    """Once a process: what stands between model-written code and this machine."""
    terminal.err(f"model-written code runs behind: {', '.join(sandbox.walls()) or 'nothing'}")


def score(
    task: Task,
    questions: Sequence[Question],
    answers: Answers,
    config: EvaluationConfig | None = None,
    judge: Judge | None = None,
    folder: epath.Path | None = None,
    model: str = "",
) -> Scored:
    """Each question's verdict; a question without an answer is scored as empty ones (and listed as missing)."""
    count = fewest_samples(answers, questions)
    whole = [_whole(question, answers.get(question.id, []), count) for question in questions]
    if task.rubric:
        assert judge is not None and config is not None
        return _judge(task, questions, whole, config.judge, judge, folder, model)

    def one(item: tuple[Question, list[list[str]]]) -> tuple[Verdict, list[str]]:
        question, samples = item[0], list(map(said, item[1]))
        verdicts = [rated(task, question, turns) for turns in samples]
        reasons = [verdict.reason for verdict in verdicts if isinstance(verdict, Explained)]
        return task.pool(question, samples, verdicts), reasons

    if not task.runs_code:  # in this thread: some comparisons guard themselves by signals
        found = list(map(one, zip(questions, whole, strict=True)))
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(one, zip(questions, whole, strict=True)))
    reasons = {
        question.id: each
        for question, (_, each) in zip(questions, found, strict=True)
        if each and answers.get(question.id)
    }
    return Scored([verdict for verdict, _ in found], {}, reasons)


def rated(task: Task, question: Question, turns: Turns) -> Verdict:
    """What the task's own code says of a sample. Raises UserError for what is no verdict."""
    assert task.score is not None
    found = task.score(question, said(turns))
    numbers = [value for value in found.values() if value is not None] if isinstance(found, dict) else [math.nan]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
        raise UserError(
            f"{task.name}: its score of '{question.id}' is {str(found)[:80]}; must be a dict of finite numbers"
        )
    return found


def said(turns: Turns) -> list[str]:
    """What of a sample is scored: every turn's answer without the reasoning before it."""
    return list(map(without_reasoning, turns))


def fewest_samples(answers: Answers, questions: Sequence[Question]) -> int:
    """How many samples every one of these questions that has some has at least."""
    return min((len(samples) for question in questions if (samples := answers.get(question.id))), default=1)


def failures_in(scored: Scored) -> dict[str, Any]:
    """What score.json says of samples that failed, where the task says why."""
    if not scored.reasons:
        return {}
    counts = failures.count(reason for reasons in scored.reasons.values() for reason in reasons)
    return {"failures": counts, "warning": failures.warning(counts)}


def _whole(question: Question, samples: Sequence[Sequence[str]], count: int = 1) -> list[list[str]]:
    """Each sample with an answer a turn; `count` empty ones where there are none."""
    return [[*given, *[""] * (len(question.turns) - len(given))] for given in (samples or [[]] * count)]


def _judge(
    task: Task,
    questions: Sequence[Question],
    answers: Sequence[list[list[str]]],
    config: JudgeConfig,
    judge: Judge,
    folder: epath.Path | None,
    model: str,
) -> Scored:
    assert task.rubric is not None
    given = [(question, list(map(said, samples))) for question, samples in zip(questions, answers, strict=True)]
    journal = Journal((folder or epath.Path("runs") / "judged" / model) / "judgments", every=1)

    line = terminal.Line()

    def progress(done: int, total: int) -> None:
        line.show(f"{task.name}: {done}/{total} judgments")

    judged = judging.judge_all(task.rubric, judge, config, given, journal, progress)
    line.clear()
    ratings = judging.turn_ratings(judged.judgments)
    verdicts = []
    for question, samples in given:
        each = [
            task.rubric.rate(
                question,
                [
                    ratings.get((question.id, i), {}).get(prompt + 1)
                    for prompt in range(len(task.rubric.prompts(question, turns)))
                ],
            )
            for i, turns in enumerate(samples)
        ]
        verdicts.append(task.pool(question, samples, each))
    if folder is not None:
        when = time.time()
        fastchat.write_answers(folder, model, {q.id: each for q, each in zip(questions, answers, strict=True)}, when)
        if not task.rubric.pairwise:
            fastchat.write_judgments(folder, model, judge.name, judged.judgments, when)
    return Scored(
        verdicts,
        {
            "judgments": len(judged.judgments),
            "judgments_known_before": judged.known,
            "unparsed": judged.unparsed,
            "failed": judged.failed,
            "flags": judging.flags(given),
            "judge_input_tokens": judged.input_tokens,
            "judge_output_tokens": judged.output_tokens,
            "judge_dollars": round(judged.dollars, 4),
        },
    )
