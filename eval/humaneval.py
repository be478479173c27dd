"""HumanEval: complete a Python function, pass its hidden tests; greedy pass@1 (Chen et al. 2021).

A row: {"task_id": "HumanEval/0", "prompt": "from typing import List\\n\\n\\ndef has_close_elements(numbers:
List[float], threshold: float) -> bool:\\n    \\"\\"\\" Check if …", "entry_point": "has_close_elements", "test":
"def check(candidate): …", "canonical_solution": "…"}

Chat models answer in prose and fences, base models go on writing: the last fenced block that defines
the entry point is the answer, else the raw text. Where that defines the entry point it is run after the
task's prompt (whose imports and helpers it may need); where it does not, it is taken as the body.
"""

import re
from collections.abc import Sequence

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation import sandbox
from sftmix_jax.evaluation.task import Metric, Question, Task

_FENCE = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_INSTRUCTION = "Complete the following Python function. Answer with the whole function in one code block.\n\n"


def load(path: str) -> list[Question]:
    rows = [row.value for row in read_rows(Source(path))]
    return [
        Question(
            row["task_id"], (f"{_INSTRUCTION}```python\n{row['prompt'].rstrip()}\n```",),
            {key: row[key] for key in ("prompt", "entry_point", "test")},
        ) for row in rows
    ]  # fmt: skip


def defines(code: str, name: str) -> bool:
    """Whether a top-level function of this name is in the code."""
    return re.search(rf"^(?:async )?def {re.escape(name)}\s*\(", code, re.MULTILINE) is not None


def program(prompt: str, entry_point: str, response: str) -> str:
    """What is run before the tests."""
    blocks = [block for block in _FENCE.findall(response) if defines(block, entry_point)]
    code = blocks[-1] if blocks else response
    return f"{prompt}\n{code}" if defines(code, entry_point) else prompt + code


def score(question: Question, answers: Sequence[str]) -> dict[str, float | None]:
    r = question.reference
    solution = program(r["prompt"], r["entry_point"], answers[0])
    tests = f"{r['test']}\n\ncheck({r['entry_point']})\n"
    verdict = sandbox.run(solution, r["entry_point"], tests, prelude=r["prompt"])
    return {"pass@1": float(verdict.passed)}


TASK = Task(
    name="humaneval", load=load, score=score, default_data="hf:openai/openai_humaneval:test", max_new_tokens=512,
    metrics=(Metric("pass@1"),), runs_code=True,
)  # fmt: skip
