"""MMLU: multiple choice over 57 subjects, the likeliest letter, zero-shot (Hendrycks et al. 2021).

A row: {"question": "Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.",
"subject": "abstract_algebra", "choices": ["0", "4", "2", "6"], "answer": 1}

  accuracy  the letter with the highest log-likelihood as the answer in the chat template
lm-eval's own version asks without a template, with few-shot examples and by subject: --lm_eval mmlu
"""

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict

_LETTERS = "ABCD"


def load(path: str) -> list[Question]:
    questions = []
    for i, row in enumerate(row.value for row in read_rows(Source(path))):
        listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(_LETTERS, row["choices"], strict=True))
        asked = (
            f"A multiple-choice question about {row['subject'].replace('_', ' ')}. Answer with one letter.\n\n"
            f"{row['question'].strip()}\n{listed}"
        )
        questions.append(
            Question(f"mmlu/{i}", (asked,), {"answer": _LETTERS[int(row["answer"])]}, choices=tuple(_LETTERS))
        )
    return questions


def score(question: Question, answers: Turns) -> Verdict:
    return {"accuracy": float(answers[0].strip() == question.reference["answer"])}


TASK = Task(
    name="mmlu", load=load, score=score, metrics=(Metric("accuracy"),), default_data="hf:cais/mmlu:all:test",
)  # fmt: skip
