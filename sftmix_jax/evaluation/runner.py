"""Run tasks on a model: questions → responses → scores, with everything that fixed them written down."""

import dataclasses
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from sftmix_jax import __version__
from sftmix_jax.data.chat import Chat
from sftmix_jax.data.sources import Message
from sftmix_jax.errors import UserError, did_you_mean
from sftmix_jax.evaluation import sandbox
from sftmix_jax.evaluation.statistics import bootstrap_mean, wilson
from sftmix_jax.evaluation.task import Question, Task, find_task, questions_hash
from sftmix_jax.sampling.sampler import Request, Response, Sampler


@dataclasses.dataclass
class EvaluationConfig:
    tasks: tuple[str, ...] = ()  # files of eval/, evaluated on the base and after each stage
    limit: int = 0  # the first so many questions of each task; 0: all
    data: dict[str, str] = dataclasses.field(default_factory=dict)  # task → its file, where not the task's default
    allow_unsandboxed_code: bool = False  # run model-written code even where it cannot be contained


@dataclasses.dataclass(frozen=True)
class Model:
    """Something that answers, and where its scores go."""

    name: str
    identity: dict[str, Any]  # what fixes its answers
    sampler: Sampler
    chat: Chat
    folder: epath.Path  # eval/<task>/ is made in here


Answers = dict[str, list[str]]  # question id → the answer of each turn


def run_task(model: Model, name: str, config: EvaluationConfig) -> dict[str, Any]:
    """One task on one model → its score.json; taken from disk if the same was scored before."""
    task, version = find_task(name)
    questions = load_questions(task, config)
    _check_sandbox(task, config)
    fixed = {
        **_fixed_by(task, version, questions, config),
        "model": model.identity,
        "template": model.chat.name,
        "decoding": {"temperature": task.temperature, "max_new_tokens": task.max_new_tokens, "seed": 0},
        "slots": model.sampler.slots,
    }
    folder = model.folder / "eval" / task.name
    if (folder / "score.json").exists():
        known = json.loads((folder / "score.json").read_text())
        if known["fixed_by"] == fixed:
            return known
    answers, counts, seconds = ask(model, task, questions)
    verdicts = score(task, questions, answers)
    record = {
        "task": task.name,
        "model": model.name,
        "metrics": summarise(task, verdicts),
        "questions": len(questions),
        "finish_reasons": dict(counts),
        "seconds": round(seconds, 2),
        "fixed_by": fixed,
    }
    write(folder, task, questions, answers, verdicts, record)
    return record


def score_responses(name: str, file: epath.Path, config: EvaluationConfig) -> dict[str, Any]:
    """Score stored responses, `{"id", "response"}` a line, without a model."""
    task, version = find_task(name)
    questions = load_questions(task, config)
    _check_sandbox(task, config)
    answers = read_responses(file, questions)
    missing = [q.id for q in questions if q.id not in answers]
    verdicts = score(task, questions, answers)
    return {
        "task": task.name,
        "model": str(file),
        "metrics": summarise(task, verdicts),
        "questions": len(questions),
        "missing": missing,
        "fixed_by": _fixed_by(task, version, questions, config),
    }


def _fixed_by(task: Task, version: str, questions: Sequence[Question], config: EvaluationConfig) -> dict[str, Any]:
    return {
        "task": task.name,
        "task_version": version,
        "data": questions_hash(questions),
        "limit": config.limit,
        "code_version": __version__,
    }


def _check_sandbox(task: Task, config: EvaluationConfig) -> None:
    if task.runs_code and not sandbox.is_safe() and not config.allow_unsandboxed_code:
        raise UserError(
            f"{task.name} runs code that a model wrote, and this machine cannot contain it (standing: "
            f"{', '.join(sandbox.walls()) or 'nothing'}; needed: landlock, and namespaces or seccomp). Use a newer "
            "kernel, or accept the risk with --allow_unsandboxed_code"
        )


def load_questions(task: Task, config: EvaluationConfig) -> list[Question]:
    """The task's questions, at most `limit`. Raises UserError."""
    data = config.data.get(task.name, task.default_data)
    try:
        questions = task.load(data)
    except KeyError as error:
        raise UserError(f"{data}: not a file of {task.name}: a row has no column {error}") from None
    if not questions:
        raise UserError(f"{data}: holds no questions")
    return questions[: config.limit or None]


def ask(model: Model, task: Task, questions: Sequence[Question]) -> tuple[Answers, Counter[str], float]:
    """Every turn of every question, turn after turn."""
    begin = time.monotonic()
    answers: Answers = {q.id: [] for q in questions}
    reasons: Counter[str] = Counter()
    for turn in range(max(len(q.turns) for q in questions)):
        asked = [q for q in questions if len(q.turns) > turn]
        requests = [
            Request(tuple(_prompt(model.chat, q, answers[q.id])), task.max_new_tokens, task.temperature) for q in asked
        ]
        done = Counter[str]()

        def finished(index: int, response: Response, done: Counter[str] = done, total: int = len(asked)) -> None:
            done[response.finish_reason] += 1
            if sys.stderr.isatty():
                sys.stderr.write(f"\r\033[K{task.name} on {model.name}: {sum(done.values())}/{total} answers")

        responses = model.sampler.generate(requests, finished)
        reasons += done
        for question, response in zip(asked, responses, strict=True):
            answers[question.id].append(response.text)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    return answers, reasons, time.monotonic() - begin


def _prompt(chat: Chat, question: Question, answers: Sequence[str]) -> list[int]:
    messages = []
    for said, answer in zip(question.turns, answers, strict=False):
        messages += [Message("user", said), Message("assistant", answer)]
    messages.append(Message("user", question.turns[len(answers)]))
    return chat.prompt(messages)


def score(task: Task, questions: Sequence[Question], answers: Answers) -> list[dict[str, float | None]]:
    """Each question's metrics; a question without an answer is scored as an empty one (and listed as missing)."""

    def one(question: Question) -> dict[str, float | None]:
        given = answers.get(question.id, [])
        return task.score(question, [*given, *[""] * (len(question.turns) - len(given))])

    with ThreadPoolExecutor(os.cpu_count() if task.runs_code else 1) as pool:
        return list(pool.map(one, questions))


def summarise(task: Task, verdicts: Sequence[dict[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Each metric's value, n and 95 % interval: Wilson's for rates, bootstrap over questions for means."""
    metrics: dict[str, dict[str, Any]] = {}
    for metric in task.metrics:
        values = [v for verdict in verdicts if (v := verdict[metric.name]) is not None]
        n = len(values)
        if n == 0:  # no question is about it: no number either
            metrics[metric.name] = {"value": None, "n": 0, "low": None, "high": None, "best": metric.best}
            continue
        low, high = wilson(sum(values), n) if metric.is_rate else bootstrap_mean(values)
        metrics[metric.name] = {"value": sum(values) / n, "n": n, "low": low, "high": high, "best": metric.best}
    return metrics


def read_responses(file: epath.Path, questions: Sequence[Question]) -> Answers:
    """Stored responses by question id; `response` is a string, or a list with one a turn. Raises UserError."""
    if not file.exists():
        raise UserError(f"no file {file}")
    known = {q.id: len(q.turns) for q in questions}
    answers: Answers = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            identifier, response = row["id"], row["response"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{file}:{number}: must be {{"id": …, "response": …}} ({type(error).__name__}: {error}); '
                "a half-written last line can be deleted, its question then counts as missing"
            ) from None
        if identifier not in known:
            raise UserError(f"{file}:{number}: no question '{identifier}' in this benchmark; "
                            f"{did_you_mean(str(identifier), known)}")  # fmt: skip
        if identifier in answers:
            raise UserError(f"{file}:{number}: a second response to '{identifier}'; keep one of them")
        turns = response if isinstance(response, list) else [response]
        if not all(isinstance(turn, str) for turn in turns) or len(turns) > known[identifier]:
            raise UserError(f"{file}:{number}: response must be text, or a list of {known[identifier]} texts")
        answers[identifier] = turns
    return answers


def write(
    folder: epath.Path,
    task: Task,
    questions: Sequence[Question],
    answers: Answers,
    verdicts: Sequence[dict[str, float | None]],
    record: dict[str, Any],
) -> None:
    """responses.jsonl (question, response, verdict a line), then score.json."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "responses.jsonl").open("w") as stream:
        for question, verdict in zip(questions, verdicts, strict=True):
            given = answers.get(question.id, [])
            row = {
                "id": question.id, "turns": question.turns,
                "response": given[0] if len(question.turns) == 1 and given else given,
                "scores": verdict, "reference": dict(question.reference),
            }  # fmt: skip
            stream.write(json.dumps(row) + "\n")
    partial = folder / "score.json.partial"
    partial.write_text(json.dumps(record, indent=1))
    partial.rename(folder / "score.json")
