"""Any questions, with a model's answers compared to another's by stored verdicts: AlpacaEval's, QLoRA's, FastChat's.

A row: {"question_id": 1, "text": "How can I improve my time management skills?"}, or AlpacaEval's {"instruction": "What
are the names of some famous actors that started their careers on Broadway?"}, or QLoRA's {"message_id": "0016…"}

  wins          1 for a win, 1/2 for a tie, 0 for a loss
  disagreement  how often the verdict turns with the order of the two answers; such a question is a tie

Verdicts: --judgments FILE … (evaluation/pairs.py). For both orders name the files of both.
Data: --data FILE, the questions, or the file of verdicts itself. For a live judge there is mt_bench_pairs.py.
"""

from collections.abc import Sequence

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation import pairs
from sftmix_jax.evaluation.judging import Prompt, Rubric
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict
from sftmix_jax.machine.errors import UserError

_IDS, _TEXTS = ("question_id", "message_id", "id"), ("instruction", "text", "question", "prompt")


def load(path: str) -> list[Question]:
    """The questions; rows about the same one (in a file of verdicts) are one question."""
    found: dict[str, Question] = {}
    known: dict[str, str] = {}
    for row in read_rows(Source(path)):
        verdict = "answer1_id" in row.value  # its text is the judge's
        id = next((str(row.value[key]) for key in _IDS if key in row.value), "")
        text = "" if verdict else next((row.value[key] for key in _TEXTS if isinstance(row.value.get(key), str)), "")
        if not id and not text:
            raise UserError(f"{row.where}: has none of the fields {', '.join(_IDS + _TEXTS)}")
        id = id or known.setdefault(text, str(len(known)))
        question = Question(f"pairs/{id}", (text or id,), {})
        if found.setdefault(id, question).turns != question.turns:
            raise UserError(f"{row.where}: another question has the id '{id}'")
    return list(found.values())


def prompts(question: Question, answers: Turns) -> list[Prompt]:
    raise UserError("pairs: its answers are compared by stored verdicts: --judgments FILE; a judge asks mt_bench_pairs")


def rate(question: Question, ratings: Sequence[float | None]) -> Verdict:
    return pairs.rate(ratings)


TASK = Task(
    name="pairs",
    ability="general",
    load=load,
    rubric=Rubric(prompts, pairs.read, rate, pairwise=True),
    default_data="",
    metrics=(Metric("wins", is_rate=False), Metric("disagreement", is_rate=False)),
)
