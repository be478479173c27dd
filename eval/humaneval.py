"""HumanEval: complete a Python function, pass its hidden tests; greedy pass@1 (Chen et al. 2021).

A row: {"task_id": "HumanEval/0", "prompt": "from typing import List\\n\\n\\ndef has_close_elements(numbers:
List[float], threshold: float) -> bool:\\n    \\"\\"\\" Check if …", "entry_point": "has_close_elements", "test":
"def check(candidate): …", "canonical_solution": "…"}

Chat models answer in prose and fences, base models go on writing: evaluation/programs.py reads both. A whole
function is run after the prompt's imports and helpers, a body after the prompt.
Where the tests themselves fail, for want of a name or a file, the row's canonical solution tells whether the answer did
it; else the run ends. pass@k is the unbiased estimate from n samples (--samples n --temperature t).
"""

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation import code
from sftmix_jax.evaluation.task import Question, Task


def load(path: str) -> list[Question]:
    questions = []
    for row in (row.value for row in read_rows(Source(path))):
        reference = {
            "prompt": row["prompt"],
            "entry_point": row["entry_point"],
            "tests": f"{row['test']}\n\ncheck({row['entry_point']})\n",
        }
        if "canonical_solution" in row:
            reference["canonical"] = row["prompt"] + row["canonical_solution"]
        questions.append(Question(row["task_id"], (code.instruction(row["prompt"]),), reference))
    return code.checked(questions)


TASK = Task(
    name="humaneval",
    ability="code",
    load=load,
    score=code.score,
    pool=code.pool,
    extract=code.extract,
    metrics=code.METRICS,
    of_samples=code.of_samples,
    runs_code=True,
    default_data="hf:openai/openai_humaneval:test",
    max_new_tokens=512,
)
