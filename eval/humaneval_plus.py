"""HumanEval+: HumanEval's functions against some 80 times more tests (Liu et al. 2023).

A row: HumanEval's (humaneval.py) with a larger `test`, or EvalPlus' own: {"task_id": "HumanEval/0", "prompt": "…",
"entry_point": "has_close_elements", "canonical_solution": "…", "base_input": [[[1.0, 2.0], 0.3], …],
"plus_input": […], "atol": 0}

Of EvalPlus' own rows the expected results are those of the canonical solution, run on every input; numbers are equal
within atol, as EvalPlus says.
"""

from typing import Any

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation import code
from sftmix_jax.evaluation.task import Question, Task, find_task

_TESTS = """
{canonical}

_reference = {entry_point}

def _same(a, b, atol):
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y, atol) for x, y in zip(a, b))
    if atol and isinstance(a, float):
        return isinstance(b, (int, float)) and abs(a - b) <= atol
    return a == b

def check(candidate):
    import copy
    for inputs in {inputs!r}:
        assert _same(_reference(*copy.deepcopy(inputs)), candidate(*inputs), {atol!r})
"""


def load(path: str) -> list[Question]:
    ask = find_task("humaneval")[0].load
    if "test" in next(read_rows(Source(path))).value:
        return ask(path)
    return [_question(row.value) for row in read_rows(Source(path))]


def _question(row: dict[str, Any]) -> Question:
    tests = _TESTS.format(
        canonical=row["prompt"] + row["canonical_solution"], entry_point=row["entry_point"],
        inputs=row["base_input"] + row["plus_input"], atol=row["atol"],
    )  # fmt: skip
    candidate = f"\n_candidate = {row['entry_point']}\n{tests}\ncheck(_candidate)\n"
    reference = {"prompt": row["prompt"], "entry_point": row["entry_point"], "tests": candidate}
    return Question(row["task_id"], (code.instruction(row["prompt"]),), reference)


TASK = Task(
    name="humaneval_plus", load=load, score=code.score, pool=code.pool, extract=code.extract, metrics=code.METRICS,
    runs_code=True, default_data="hf:evalplus/humanevalplus:test", max_new_tokens=512,
)  # fmt: skip
