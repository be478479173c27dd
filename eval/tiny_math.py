"""The toy's worded arithmetic, test split.

A row: {"question": "Finn starts with 5 bricks. Then there are five times as many. Count the bricks.", "answer":
"5 * 5 = 25\\n#### 25", "result": 25, "difficulty": 1}

  strict   the number behind `####`
  working  the result of the last line of working, so that a lost marker is told from a lost skill
  hard     strict, on problems of four and five steps
"""

import re
from collections.abc import Sequence

from sftmix_jax.evaluation.task import Metric, Question, Task
from sftmix_jax.tiny import domains


def load(path: str) -> list[Question]:
    rows = domains.read_test("math", path)
    return [
        Question(f"tiny_math/{i}", (row["question"],), {"result": row["result"], "difficulty": row["difficulty"]})
        for i, row in enumerate(rows)
    ]


def score(question: Question, answers: Sequence[str]) -> dict[str, float | None]:
    gold, difficulty = question.reference["result"], question.reference["difficulty"]
    marked = re.search(r"#### (-?\d+)", answers[0])
    worked = re.findall(r"= (-?\d+)", answers[0])
    strict = float(marked is not None and int(marked.group(1)) == gold)
    return {
        "strict": strict,
        "working": float(bool(worked) and int(worked[-1]) == gold),
        "hard": strict if difficulty >= domains.HARD["math"] else None,
    }


TASK = Task(
    name="tiny_math",
    ability="math",
    load=load,
    score=score,
    default_data="tiny:200",
    max_new_tokens=96,
    metrics=(Metric("strict"), Metric("working"), Metric("hard")),
)
