"""Functions in answers: they are run against hidden tests in the sandbox."""

from __future__ import annotations

import ast
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sftmix_jax.evaluation import programs, sandbox
from sftmix_jax.evaluation.statistics import pass_at_k
from sftmix_jax.evaluation.task import Explained, Metric, Question, Turns, Verdict
from sftmix_jax.machine.errors import UserError

METRICS = (Metric("pass@1"),)
_IMPORT = re.compile(r"^\s*(?:import\s+(\w+)|from\s+(\w+)[\w.]*\s+import\b)", re.MULTILINE)


def instruction(prompt: str) -> str:
    """What is asked about a function's head and docstring."""
    asked = "Complete the following Python function. Answer with the whole function in one code block."
    return f"{asked}\n\n```python\n{prompt.rstrip()}\n```"


def checked(questions: list[Question]) -> list[Question]:
    """The questions, if their tests can run here. Raises UserError for an import that they need and cannot have."""
    for question in questions:
        r = question.reference
        for text in (r["tests"], programs.context(r["prompt"], r["entry_point"]), r.get("prelude", "")):
            try:
                compile(text, "tests", "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                said = f"its tests are not Python ({error}); no answer could pass them"
                raise UserError(f"{question.id}: {said}") from None
            for module in _missing(text):
                raise UserError(
                    f"{question.id}: its tests need {module}, which cannot be imported where they run; there are the "
                    f"standard library and {', '.join(sandbox.PACKAGES)}"
                )
    return questions


def _missing(text: str) -> Iterator[str]:
    """Modules that a program imports (`try` blocks aside) and the sandbox does not have."""
    known = {*sys.stdlib_module_names, *sandbox.PACKAGES}
    if all((match[1] or match[2]) in known for match in _IMPORT.finditer(text)):
        return
    waiting: list[ast.AST] = [ast.parse(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (name for name in names if name.partition(".")[0] not in known)
        if not isinstance(node, ast.Try):
            waiting += ast.iter_child_nodes(node)


def score(question: Question, answers: Turns) -> Verdict:
    """One sample against hidden tests.

    The reference holds `prompt`, `entry_point` and `tests`, a program; and where they are needed `prelude` (trusted
    code that the tests use), `names` (of the answer, beside the entry point), `canonical` (the benchmark's own
    solution, a whole program), `seconds`, `each` and `memory` (sandbox.run).

    Raises UserError for tests that cannot run: those in which the canonical solution fails as this answer does.
    """
    if not answers[0].strip():
        return Explained({"pass@1": 0.0}, "no answer")
    r = question.reference
    try:
        verdict = _run(extract(question, answers), r)
    except sandbox.TestsCannotRun as error:
        if not r.get("canonical") or _is_of_the_tests(r):
            raise UserError(f"{question.id}: {error}") from None
        verdict = sandbox.Verdict(False, error.reason)
    return Explained({"pass@1": float(verdict.passed)}, "" if verdict.passed else verdict.reason)


def _run(program: str, r: Mapping[str, Any]) -> sandbox.Verdict:
    return sandbox.run(
        program,
        r["entry_point"],
        r["tests"],
        names=tuple(r.get("names", ())),
        seconds=r.get("seconds", 5),
        each=r.get("each", 0),
        memory=r.get("memory", 1 << 30),
        prelude=programs.context(r["prompt"], r["entry_point"]) + "\n" + r.get("prelude", ""),
    )


_ONE_AT_A_TIME = threading.Lock()  # answers to one question are scored in several threads
_found_of_the_tests: dict[str, bool] = {}


def _is_of_the_tests(r: Mapping[str, Any]) -> bool:
    """Whether the tests cannot run on the canonical solution either, which is run once per question."""
    key = repr(sorted(r.items()))
    with _ONE_AT_A_TIME:
        if key not in _found_of_the_tests:
            try:
                _run(r["canonical"], r)
                _found_of_the_tests[key] = False
            except sandbox.TestsCannotRun:
                _found_of_the_tests[key] = True
        return _found_of_the_tests[key]


def extract(question: Question, answers: Turns) -> str:
    """The program that is run before the tests."""
    r = question.reference
    return programs.program(r["prompt"], r["entry_point"], answers[0], r.get("names", ()))


def of_samples(count: int) -> list[Metric]:
    """pass@k for every further k that so many samples allow."""
    return [Metric(f"pass@{k}", samples=k) for k in range(2, count + 1)]


def pool(question: Question, samples: Sequence[Turns], verdicts: Sequence[Verdict]) -> Verdict:
    """Unbiased pass@k for every k up to the number of samples."""
    passed = sum(verdict["pass@1"] == 1 for verdict in verdicts)
    return {f"pass@{k}": pass_at_k(len(verdicts), passed, k) for k in range(1, len(verdicts) + 1)}
