"""The toy's Python functions, test split: hidden tests are run on what the model wrote.

A row: {"prompt": "Define calc(xs). It should decrease every number by 4, then return the largest, or 0.",
"completion": "def calc(xs):\\n    xs = [x - 4 for x in xs]\\n    return max(xs, default=0)", "name": "calc", …}

  pass@1  the function gives what the reference gives, on seven lists
  hard    the same, on functions of three and four operations
"""

from collections.abc import Sequence

from sftmix_jax.evaluation import sandbox
from sftmix_jax.evaluation.task import Explained, Metric, Question, Task
from sftmix_jax.tiny import domains


def load(path: str) -> list[Question]:
    rows = domains.read_test("code", path)
    keys = ("completion", "name", "inputs", "difficulty")
    return [Question(f"tiny_code/{i}", (row["prompt"],), {key: row[key] for key in keys}) for i, row in enumerate(rows)]


def score(question: Question, answers: Sequence[str]) -> dict[str, float | None]:
    r = question.reference
    namespace: dict[str, object] = {}
    exec(r["completion"], namespace)  # the reference is ours; the answer runs in the sandbox alone
    reference = namespace[r["name"]]
    assert callable(reference)
    tests = [f"assert {r['name']}({xs}) == {reference(list(xs))!r}" for xs in r["inputs"]]
    verdict = sandbox.run(answers[0], r["name"], "\n".join(tests), seconds=2)
    passed = float(verdict.passed)
    scores = {"pass@1": passed, "hard": passed if r["difficulty"] >= domains.HARD["code"] else None}
    return Explained(scores, "" if verdict.passed else verdict.reason)


TASK = Task(
    name="tiny_code",
    ability="code",
    load=load,
    score=score,
    default_data="tiny:150",
    max_new_tokens=96,
    metrics=(Metric("pass@1"), Metric("hard")),
    runs_code=True,
)
