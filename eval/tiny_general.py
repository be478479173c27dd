"""The toy's instructions about words, test split: a rule rates each answer from 1 to 10; a third have two turns.

A row: {"messages": [{"role": "user", "content": "Put hammer, sand, shoe in alphabetical order."}, {"role":
"assistant", "content": "hammer, sand, shoe"}, {"role": "user", "content": "Now in capitals."}, …]}

The second turn asks for a change of the first answer; the reference is that of a right first answer.

  rating  mean over the turns, 1 to 10
  exact   every turn is just as asked
  hard    rating, on two turns over long lists
"""

from collections.abc import Sequence

from sftmix_jax.evaluation.task import Metric, Question, Task
from sftmix_jax.tiny import domains
from sftmix_jax.tiny.instructions import rate


def load(path: str) -> list[Question]:
    questions = []
    for i, row in enumerate(domains.read_test("general", path)):
        said = tuple(m["content"] for m in row["messages"] if m["role"] == "user")
        wanted = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        questions.append(Question(f"tiny_general/{i}", said, {"answers": wanted, "difficulty": row["difficulty"]}))
    return questions


def score(question: Question, answers: Sequence[str]) -> dict[str, float | None]:
    ratings = [rate(wanted, given) for wanted, given in zip(question.reference["answers"], answers, strict=True)]
    mean = sum(ratings) / len(ratings)
    hard = question.reference["difficulty"] >= domains.HARD["general"]
    return {"rating": mean, "exact": float(min(ratings) == 10), "hard": mean if hard else None}


TASK = Task(
    name="tiny_general",
    ability="general",
    load=load,
    score=score,
    default_data="tiny:200",
    max_new_tokens=64,
    metrics=(
        Metric("rating", is_rate=False, best=10.0),
        Metric("exact"),
        Metric("hard", is_rate=False, best=10.0),
    ),
)
