"""MMLU: multiple choice over 57 subjects, the likeliest letter, zero-shot (Hendrycks et al. 2021).

A row: {"question": "Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.",
"subject": "abstract_algebra", "choices": ["0", "4", "2", "6"], "answer": 1}

  accuracy  the letter with the highest log-likelihood as the answer in the chat template
A row has 2 to 26 choices; its answer is the number of one, from 0, or its letter. Stored responses are read as a reader
would: `B`, `(B)`, `B. 4`, `The answer is B`. One that names several letters and settles on none is wrong.
lm-eval's own version asks without a template, with few-shot examples and by subject: --lm_eval mmlu
"""

import re
import string
import unicodedata
from typing import Any

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation import numbers
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict
from sftmix_jax.machine.errors import UserError

_LETTERS = string.ascii_uppercase


def load(path: str) -> list[Question]:
    return [_question(f"mmlu/{i}", row.value, row.where) for i, row in enumerate(read_rows(Source(path)))]


def _question(id: str, row: dict[str, Any], where: str) -> Question:
    choices, answer = row["choices"], str(row["answer"]).strip()
    letters = _LETTERS[: len(choices)]
    if not 2 <= len(choices) <= len(_LETTERS):
        raise UserError(f"{where}: {len(choices)} choices; a question has 2 to {len(_LETTERS)}")
    known = {**{letter: letter for letter in letters}, **{str(i): letter for i, letter in enumerate(letters)}}
    if answer not in known:
        raise UserError(f"{where}: the answer {answer!r} is none of {len(choices)} choices; write their number from 0")
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True))
    asked = (
        f"A multiple-choice question about {row['subject'].replace('_', ' ')}. Answer with one letter.\n\n"
        f"{row['question'].strip()}\n{listed}"
    )
    return Question(id, (asked,), {"answer": known[answer]}, choices=tuple(letters))


def extract(question: Question, answers: Turns) -> str | None:
    """The letter that a reply gives: alone, in a box, stated as the answer, heading a line, or else the only one."""
    reply = unicodedata.normalize("NFKC", numbers.last_box(answers[0]) or answers[0])
    one = f"[A-{_LETTERS[len(question.choices) - 1]}]"
    if alone := re.fullmatch(rf"(?:\\text|\W)*({one})\W*", reply, re.IGNORECASE):
        return alone[1].upper()
    stated = re.findall(
        r"(?i:\banswer|\b(?:correct|right|best) (?:option|choice))"
        r"(?:[^\w.;?!]|(?i:\b(?:is|be|must|should|would|option|choice|letter|text)\b))*"
        rf"\b({one}\b|{one.lower()}(?=\)|\W*$))(?!['’]|\W+(?:and|or)\W+{one}\b)",
        reply,
    )
    if stated:
        return stated[-1].upper()
    for pattern in (  # the last: no word A as in `A bird`, no `not B`
        rf"(?mi)^[^\w\n]*\(({one})\)(?!\s*(?:or\b|and\b|,))",
        rf"(?m)^[^\w\n]*({one})(?:[^\w\s'’&/,+-]|\s*$)",
        rf"(?<![\w'’])(?<![Nn]ot )(?<!n't )({one})(?![\w'’])(?!(?<=[AI])\s+(?!(?:or|and|is|because)\b)[a-z])",
    ):
        found = set(re.findall(pattern, reply))
        if len(found) == 1:
            return found.pop().upper()
    return None


def score(question: Question, answers: Turns) -> Verdict:
    return {"accuracy": float(extract(question, answers) == question.reference["answer"])}


TASK = Task(
    name="mmlu", ability="knowledge",
    load=load, score=score, extract=extract, metrics=(Metric("accuracy"),),
    default_data="hf:cais/mmlu:all:test",
)  # fmt: skip
