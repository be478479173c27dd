"""HumanEval: complete a Python function, pass its hidden tests; greedy pass@1 (Chen et al. 2021).

A row: {"task_id": "HumanEval/0", "prompt": "from typing import List\\n\\n\\ndef has_close_elements(numbers:
List[float], threshold: float) -> bool:\\n    \\"\\"\\" Check if …", "entry_point": "has_close_elements", "test":
"def check(candidate): …", "canonical_solution": "…"}

Chat models answer in prose and fences, base models go on writing: the last fenced block that defines
the entry point is the answer, else the raw text. Where that defines the entry point it is run after the
task's prompt (whose imports and helpers it may need); where it does not, it is taken as the body.
pass@k is the unbiased estimate from n samples (--samples n --temperature t).
"""

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation import code
from sftmix_jax.evaluation.task import Question, Task


def load(path: str) -> list[Question]:
    questions = []
    for row in (row.value for row in read_rows(Source(path))):
        reference = {
            "prompt": row["prompt"], "entry_point": row["entry_point"],
            "tests": f"{row['test']}\n\ncheck({row['entry_point']})\n",
        }  # fmt: skip
        questions.append(Question(row["task_id"], (code.instruction(row["prompt"]),), reference))
    return questions


TASK = Task(
    name="humaneval", load=load, score=code.score, pool=code.pool, extract=code.extract, metrics=code.METRICS,
    runs_code=True, default_data="hf:openai/openai_humaneval:test", max_new_tokens=512,
)  # fmt: skip
