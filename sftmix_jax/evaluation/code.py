"""Functions in answers: how answers to programming problems are read and run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sftmix_jax.evaluation import sandbox
from sftmix_jax.evaluation.statistics import pass_at_k
from sftmix_jax.evaluation.task import Metric, Question, Turns, Verdict

KS = (1, 5, 10, 25, 50, 100)
METRICS = tuple(Metric(f"pass@{k}", samples=k) for k in KS)
_FENCE = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)


def instruction(prompt: str) -> str:
    """What is asked about a function's head and docstring."""
    asked = "Complete the following Python function. Answer with the whole function in one code block."
    return f"{asked}\n\n```python\n{prompt.rstrip()}\n```"


def defines(code: str, name: str) -> bool:
    """Whether a top-level function of this name is in the code."""
    return re.search(rf"^(?:async )?def {re.escape(name)}\s*\(", code, re.MULTILINE) is not None


def program(prompt: str, entry_point: str, response: str) -> str:
    """What is run before the tests: the last fenced block that defines the entry point, else the raw text.

    Where that defines the entry point it follows the prompt, whose imports and helpers it may need; where it does not,
    it is taken as the body that the prompt begins.
    """
    blocks = [block for block in _FENCE.findall(response) if defines(block, entry_point)]
    code = blocks[-1] if blocks else response
    return f"{prompt}\n{code}" if defines(code, entry_point) else prompt + code


def score(question: Question, answers: Turns) -> Verdict:
    """One sample against hidden tests; the reference holds `prompt`, `entry_point` and `tests`, a program."""
    r = question.reference
    solution = program(r["prompt"], r["entry_point"], answers[0])
    return {"pass@1": float(sandbox.run(solution, r["entry_point"], r["tests"], prelude=r["prompt"]).passed)}


def extract(question: Question, answers: Turns) -> str:
    """The program that is run before the tests."""
    return program(question.reference["prompt"], question.reference["entry_point"], answers[0])


def pool(question: Question, samples: Sequence[Turns], verdicts: Sequence[Verdict]) -> Verdict:
    """Unbiased pass@k for every k that the samples allow."""
    passed = sum(verdict["pass@1"] == 1 for verdict in verdicts)
    return {f"pass@{k}": pass_at_k(len(verdicts), passed, k) for k in KS if k <= len(verdicts)}
