"""GSM8K: grade-school word problems, zero-shot in the chat template, greedy (Cobbe et al. 2021).

A row: {"question": "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in
total does it take?", "answer": "It takes 2/2=<<2/2=1>>1 bolt of white fiber\\n… 2+1=<<2+1=3>>3 bolts\\n#### 3"}

The score moves with the extraction rule, so both are reported:
  strict    the first `#### number` of the response, and nothing else
  flexible  that if it is there, headings (`#### 1. Count …`, `#### 2. …`) aside, else the last number of the last
            \\boxed{}, else of the last `final answer: …`, else of the response up to where it asks a next question, but
            for numbers of lists (`1. …`); of `120 minutes (2 hours)` either
  majority  the flexible answer that most of n samples give (--samples n --temperature t)
Numbers are equal within 1e-4 (of golds below 0.1: within a thousandth), however they are written.
"""

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation import numbers
from sftmix_jax.evaluation.task import Question, Task
from sftmix_jax.machine.errors import UserError


def load(path: str) -> list[Question]:
    questions = []
    for i, row in enumerate(read_rows(Source(path))):
        said, answer = row.value["question"], row.value["answer"].rpartition("####")[2].strip()
        gold = numbers.gold(answer)
        if not isinstance(gold, float):
            raise UserError(f"{row.where}: the answer ends in no `#### number`")
        questions.append(Question(f"gsm8k/{i}", (said,), {"answer": gold}))
    return questions


TASK = Task(
    name="gsm8k",
    ability="math",
    load=load,
    score=numbers.score,
    pool=numbers.pool,
    extract=numbers.extract,
    metrics=numbers.METRICS,
    default_data="hf:openai/gsm8k:main:test",
    max_new_tokens=512,
)
