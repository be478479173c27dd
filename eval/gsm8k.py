"""GSM8K: grade-school word problems, zero-shot in the chat template, greedy (Cobbe et al. 2021).

A row: {"question": "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in
total does it take?", "answer": "It takes 2/2=<<2/2=1>>1 bolt of white fiber\\n… 2+1=<<2+1=3>>3 bolts\\n#### 3"}

The score moves with the extraction rule, so both are reported:
  strict    the first `#### number` of the response, and nothing else
  flexible  that if it is there, else the last number of the response
Numbers are equal within 1e-4, thousands separators and currency signs aside.
"""

import re
from collections.abc import Sequence

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation.task import Metric, Question, Task

_NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+"
_MARKED = re.compile(rf"####\s*({_NUMBER})")
_ANY = re.compile(_NUMBER)


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


def load(path: str) -> list[Question]:
    rows = [row.value for row in read_rows(Source(path))]
    return [Question(f"gsm8k/{i}", (row["question"],), {"answer": strict(row["answer"])}) for i, row in enumerate(rows)]


def score(question: Question, answers: Sequence[str]) -> dict[str, float | None]:
    gold = question.reference["answer"]

    def right(found: float | None) -> float:
        return float(found is not None and abs(found - gold) < 1e-4)

    return {"strict": right(strict(answers[0])), "flexible": right(flexible(answers[0]))}


TASK = Task(
    name="gsm8k", load=load, score=score, default_data="hf:openai/gsm8k:main:test", max_new_tokens=512,
    metrics=(Metric("strict", about="first `#### number`"), Metric("flexible", about="strict, else the last number")),
)  # fmt: skip
