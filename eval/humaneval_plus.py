"""HumanEval+: HumanEval's functions against some 80 times more tests (Liu et al. 2023).

A row: HumanEval's (humaneval.py) with a larger `test`, or EvalPlus' own (evaluation/evalplus.py): {"task_id":
"HumanEval/0", "prompt": "…", "entry_point": "has_close_elements", "canonical_solution": "…",
"base_input": [[[1.0, 2.0], 0.3], …], "plus_input": […], "atol": 0}
"""

import dataclasses
from typing import Any

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation import code, evalplus
from sftmix_jax.evaluation.task import Question, Task, find_task


def load(path: str) -> list[Question]:
    if "base_input" in next((row.value for row in read_rows(Source(path))), {}):
        return code.checked([_question(row.value) for row in read_rows(Source(path))])
    questions = find_task("humaneval")[0].load(path)
    return [dataclasses.replace(q, reference={**q.reference, **evalplus.LIMITS}) for q in questions]


def _question(row: dict[str, Any]) -> Question:
    reference = {"prompt": row["prompt"], **evalplus.reference(row)}
    return Question(row["task_id"], (code.instruction(row["prompt"]),), reference)


TASK = Task(
    name="humaneval_plus",
    ability="code",
    load=load,
    score=code.score,
    pool=code.pool,
    extract=code.extract,
    metrics=code.METRICS,
    of_samples=code.of_samples,
    runs_code=True,
    default_data="hf:evalplus/humanevalplus:test",
    max_new_tokens=512,
)
