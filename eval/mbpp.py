"""MBPP: short Python functions from a sentence and three tests; pass@1 on the tests (Austin et al. 2021).

A row: {"task_id": 11, "text": "Write a python function to remove first and last occurrence of a given character from
the string.", "code": "def remove_Occ(s,ch): …",
"test_list": ["assert remove_Occ(\\"hello\\",\\"l\\") == \\"heo\\"", …]}

The tests stand in the prompt, as they tell the function's name. With MBPP+'s file (`prompt`, `test_imports` and
`test` in place of `text`) its many more tests are run: --data mbpp=FILE.
"""

import re

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.errors import UserError
from sftmix_jax.evaluation import code
from sftmix_jax.evaluation.task import Question, Task


def load(path: str) -> list[Question]:
    questions = []
    for row, where in ((row.value, row.where) for row in read_rows(Source(path))):
        shown = row["test_list"]
        called = re.search(
            r"(\w+)\s*\(", shown[0].removeprefix("assert").replace("math.isclose(", "").replace("set(", "")
        )
        if called is None:
            raise UserError(f"{where}: no function is called in {shown[0]!r}")
        imports = "\n".join(row.get("test_imports") or row.get("test_setup_code", "").splitlines())
        asked = (
            f"{row.get('prompt') or row['text']}\nAnswer with the whole function in one code block. "
            "It must pass these tests:\n\n```python\n" + "\n".join(shown) + "\n```"
        )
        tests = imports + "\n" + (row.get("test") or "\n".join(shown)) + "\n"
        reference = {"prompt": "", "entry_point": called.group(1), "tests": tests}
        questions.append(Question(f"Mbpp/{row['task_id']}", (asked,), reference))
    return questions


TASK = Task(
    name="mbpp", load=load, score=code.score, pool=code.pool, extract=code.extract, metrics=code.METRICS,
    runs_code=True, default_data="hf:google-research-datasets/mbpp:full:test", max_new_tokens=512,
)  # fmt: skip
