"""Numbers in texts: how answers to word problems are read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.errors import UserError
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict, mean_over_samples

_NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+"
_MARKED = re.compile(rf"####\s*({_NUMBER})")
_ANY = re.compile(_NUMBER)
_COLUMNS = (  # the question's and the answer's, by collection
    (("input",), "target"),  # GSM-Hard
    (("Body", "Question"), "Answer"),  # SVAMP
    (("body", "question"), "answer"),  # ASDiv
    (("sQuestion",), "lSolutions"),  # MAWPS
    (("question",), "answer"),
)
METRICS = (
    Metric("strict", about="first `#### number`"),
    Metric("flexible", about="strict, else the last number"),
    Metric("majority", about="the flexible answer that most samples give", samples=2),
)


def number(text: str) -> float:
    """`$1,234.50` → 1234.5"""
    return float(text.replace(",", "").replace("$", ""))


def strict(response: str) -> float | None:
    """The first number behind `####`."""
    found = _MARKED.search(response)
    return number(found.group(1)) if found else None


def flexible(response: str) -> float | None:
    """The strict answer, else the last number anywhere."""
    marked = strict(response)
    if marked is not None:
        return marked
    numbers = _ANY.findall(response)
    return number(numbers[-1]) if numbers else None


def load(task: str, path: str) -> list[Question]:
    """Word problems with a number for an answer, in the columns of any of the collections below. Raises UserError."""
    questions = []
    for i, row in enumerate(read_rows(Source(path))):
        said, gold = _problem(row.value, row.where)
        found = _ANY.search(gold)
        if found:
            questions.append(Question(f"{task}/{i}", (said,), {"answer": number(found.group())}))
        elif task != "asdiv":  # ASDiv has a few answers in words, which no number can be compared with
            raise UserError(f"{row.where}: the answer '{gold}' is no number")
    return questions


def task(name: str, default_data: str) -> Task:
    """Word problems asked zero-shot, greedy, read by both rules."""
    return Task(
        name=name, load=partial(load, name), score=score, pool=pool, extract=extract, metrics=METRICS,
        default_data=default_data, max_new_tokens=512,
    )  # fmt: skip


def _problem(row: dict[str, Any], where: str) -> tuple[str, str]:
    """Question and answer."""
    for asked, answer in _COLUMNS:
        if answer in row and all(column in row for column in asked):
            gold = row[answer]
            return " ".join(str(row[column]) for column in asked), str(gold[0] if isinstance(gold, list) else gold)
    known = "; ".join(f"{' and '.join(asked)} with {answer}" for asked, answer in _COLUMNS)
    raise UserError(f"{where}: no columns of a word problem (known: {known})")


def score(question: Question, answers: Turns) -> Verdict:
    """One sample by both rules; the reference holds `answer`, a number. Equal is within 1e-4."""
    return {"strict": _right(question, strict(answers[0])), "flexible": _right(question, flexible(answers[0]))}


def extract(question: Question, answers: Turns) -> float | None:
    """What the flexible rule compares."""
    return flexible(answers[0])


def pool(question: Question, samples: Sequence[Turns], verdicts: Sequence[Verdict]) -> Verdict:
    """Means over the samples, and the majority's answer; the earliest of those that are given equally often."""
    votes = Counter(found for turns in samples if (found := flexible(turns[0])) is not None)
    return {
        **mean_over_samples(question, samples, verdicts),
        "majority": _right(question, votes.most_common(1)[0][0] if votes else None),
    }


def _right(question: Question, found: float | None) -> float:
    return float(found is not None and abs(found - question.reference["answer"]) < 1e-4)
