"""MBPP+: MBPP's functions against some 35 times more tests (Liu et al. 2023).

A row as published: {"task_id": 2, "prompt": "Write a function to find the shared elements …", "code": "…",
"test_imports": [], "test_list": ["assert set(similar_elements(…)) == …"], "test": "import numpy as np …"}; or as in
EvalPlus' own files (evaluation/evalplus.py): {"task_id": "Mbpp/2", "prompt": "…", "entry_point": "…", "base_input": …}

The ids are EvalPlus': "Mbpp/2".
"""

import dataclasses
from typing import Any

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation import code, evalplus
from sftmix_jax.evaluation.task import Question, Task, find_task


def load(path: str) -> list[Question]:
    if "base_input" in next((row.value for row in read_rows(Source(path))), {}):
        return code.checked([_question(row.value) for row in read_rows(Source(path))])
    questions = find_task("mbpp")[0].load(path)
    return [dataclasses.replace(q, reference={**q.reference, **evalplus.LIMITS}) for q in questions]


def _question(row: dict[str, Any]) -> Question:
    shown = row["prompt"].strip()
    if row["entry_point"] not in shown:
        shown += "\n" + next((line for line in row.get("assertion", "").split("\n") if line.strip()), "")
    asked = (
        "Write the Python function that this describes. Answer with the whole function in one code block.\n\n"
        f"```python\n{shown}\n```"
    )
    return Question(row["task_id"], (asked,), {"prompt": "", **evalplus.reference(row)})


TASK = Task(
    name="mbpp_plus",
    ability="code",
    load=load,
    score=code.score,
    pool=code.pool,
    extract=code.extract,
    metrics=code.METRICS,
    of_samples=code.of_samples,
    runs_code=True,
    default_data="hf:evalplus/mbppplus:test",
    max_new_tokens=512,
)
