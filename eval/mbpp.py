"""MBPP: short Python functions from a sentence and three tests; pass@1 on the tests (Austin et al. 2021).

A row: {"task_id": 11, "text": "Write a python function to remove first and last occurrence of a given character from
the string.", "code": "def remove_Occ(s,ch): …", "test_setup_code": "",
"test_list": ["assert remove_Occ(\\"hello\\",\\"l\\") == \\"heo\\"", …]}

The tests stand in the prompt, as they tell the function's name. The entry point is the function of the reference
solution (`code`) that the first test calls. Of that solution the tests also have the imports that they use; its
other functions and classes that they use are the answer's own. The sanitized set (`prompt` and `test_imports`) is
read too, and the published MBPP+ (mbpp_plus.py).
"""

import ast
import builtins
from typing import Any

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation import code
from sftmix_jax.evaluation.task import Question, Task
from sftmix_jax.machine.errors import UserError


def load(path: str) -> list[Question]:
    return code.checked([_question(row.value, row.where) for row in read_rows(Source(path))])


def _question(row: dict[str, Any], where: str) -> Question:
    shown = row["test_list"]
    setup = "\n".join([*row.get("test_imports", []), row.get("test_setup_code", "")])
    tests = f"{setup}\n{row.get('test') or chr(10).join(shown)}\n"
    used = _names(tests, where)
    defined, imports = _solution(row.get("code", ""))
    called = _called(shown[0], where)
    entry = (
        next((name for name in called if name in defined), None)
        or min(defined & _names(shown[0], where), default=None)  # handed to another function: reduce(f, …)
        or next((name for name in called if not hasattr(builtins, name)), None)
    )
    if entry is None:
        raise UserError(f"{where}: no function is called in {shown[0]!r}")
    asked = (
        f"{row.get('prompt') or row['text']}\nAnswer with the whole function in one code block. "
        "It must pass these tests:\n\n```python\n" + "\n".join(shown) + "\n```"
    )
    reference = {
        "prompt": "",
        "entry_point": entry,
        "tests": tests,
        "prelude": "\n".join(text for text, names in imports if names & used),
        "names": sorted((defined & used) - {entry}),
        "seconds": 20,  # reference solutions take up to 5
        "canonical": row.get("code", ""),
    }
    number = str(row["task_id"])
    return Question(number if number.startswith("Mbpp/") else f"Mbpp/{number}", (asked,), reference)


def _parse(text: str, where: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise UserError(f"{where}: the tests are no Python: {error}") from None


def _names(text: str, where: str) -> set[str]:
    """Names that a program looks up."""
    return {node.id for node in ast.walk(_parse(text, where)) if isinstance(node, ast.Name)}


def _called(text: str, where: str) -> list[str]:
    """Names that a test calls, as they stand in it."""
    calls = [n for n in ast.walk(_parse(text, where)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    return [call.func.id for call in sorted(calls, key=lambda n: n.col_offset) if isinstance(call.func, ast.Name)]


def _solution(text: str) -> tuple[set[str], list[tuple[str, set[str]]]]:
    """The functions and classes of the reference solution, and its imports with the names that they give."""
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return set(), []
    defined = {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    return defined, [
        (ast.unparse(node), {alias.asname or alias.name.partition(".")[0] for alias in node.names})
        for node in body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]


TASK = Task(
    name="mbpp",
    ability="code",
    load=load,
    score=code.score,
    pool=code.pool,
    extract=code.extract,
    metrics=code.METRICS,
    of_samples=code.of_samples,
    runs_code=True,
    default_data="hf:google-research-datasets/mbpp:full:test",
    max_new_tokens=512,
)
