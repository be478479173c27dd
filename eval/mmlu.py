"""MMLU: multiple choice over 57 subjects, the likeliest letter, zero-shot (Hendrycks et al. 2021).

A row: {"question": "Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.",
"subject": "abstract_algebra", "choices": ["0", "4", "2", "6"], "answer": 1}

  accuracy  the letter with the highest log-likelihood as the answer in the chat template
A row has 2 to 26 choices; its answer is the number of one, from 0, or its letter. Stored responses are read by the
rules of evaluation/choices.py. One that names several letters and settles on none is wrong.
lm-eval's own version asks without a template, with few-shot examples and by subject: --lm_eval mmlu
"""

from typing import Any

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation import choices
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict
from sftmix_jax.machine.errors import UserError


def load(path: str) -> list[Question]:
    return [_question(f"mmlu/{i}", row.value, row.where) for i, row in enumerate(read_rows(Source(path)))]


def _question(id: str, row: dict[str, Any], where: str) -> Question:
    texts, answer = row["choices"], str(row["answer"]).strip()
    letters = choices.LETTERS[: len(texts)]
    if not 2 <= len(texts) <= len(choices.LETTERS):
        raise UserError(f"{where}: {len(texts)} choices; a question has 2 to {len(choices.LETTERS)}")
    known = {**{letter: letter for letter in letters}, **{str(i): letter for i, letter in enumerate(letters)}}
    if answer not in known:
        raise UserError(f"{where}: the answer {answer!r} is none of {len(texts)} choices; write their number from 0")
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, texts, strict=True))
    asked = (
        f"A multiple-choice question about {row['subject'].replace('_', ' ')}. Answer with one letter.\n\n"
        f"{row['question'].strip()}\n{listed}"
    )
    reference = {"answer": known[answer], "choices": list(map(str, texts))}
    return Question(id, (asked,), reference, choices=tuple(letters))


def extract(question: Question, answers: Turns) -> str | None:
    """The letter that a reply gives."""
    return choices.letter(answers[0], question.choices, question.reference.get("choices", ()))


def score(question: Question, answers: Turns) -> Verdict:
    return {"accuracy": float(extract(question, answers) == question.reference["answer"])}


TASK = Task(
    name="mmlu",
    ability="knowledge",
    load=load,
    score=score,
    extract=extract,
    metrics=(Metric("accuracy"),),
    default_data="hf:cais/mmlu:all:test",
)
