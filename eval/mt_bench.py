"""MT-Bench: 80 questions of two turns, each answer rated from 1 to 10 by a judge (Zheng et al. 2023).

A row: {"question_id": 81, "category": "writing", "turns": ["Compose an engaging travel blog post about …",
"Rewrite your previous response. Start every sentence with the letter A."]}

  rating            mean of all turns' ratings, as FastChat averages them
  turn 1, turn 2    alone
  rating, writing   each of them by category

The answers are drawn at FastChat's temperatures by category, up to 1,024 tokens a turn. Mathematics, reasoning
and coding are judged with a reference answer; the second turn with the whole conversation before it. `[[rating]]` is
read from the reply, else `[rating]`; a reply without one, or with one outside of 1 to 10, is listed as unparsed and
counts as nothing. The delimiters around an answer carry a nonce that FastChat's do not.

FastChat's own judgments are read again by --judgments model_judgment/gpt-4_single.jsonl.

Data: --data mt_bench=DIR, FastChat's fastchat/llm_judge/data/mt_bench with judge_prompts.jsonl.
"""

import re
from collections.abc import Sequence

from etils import epath

from sftmix_jax.evaluation import fastchat
from sftmix_jax.evaluation.judging import Prompt, Rubric
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict

TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}


def load(path: str) -> list[Question]:
    entries, prompts = fastchat.read_benchmark(epath.Path(path))
    questions = []
    for entry in entries:
        name = "single-math-v1" if entry.references else "single-v1"
        reference = {
            "references": entry.references,
            "prompts": (prompts[name], prompts[f"{name}-multi-turn"]),
        }
        temperature = TEMPERATURES.get(entry.category, 0.7)
        questions.append(
            Question(f"mt_bench/{entry.number}", entry.turns, reference, temperature, group=entry.category)
        )
    return questions


def prompts(question: Question, answers: Turns) -> list[Prompt]:
    """One for each turn; the second holds both."""
    asked, given = question.turns, question.reference["references"]
    first, both = (fastchat.JudgePrompt(*prompt) for prompt in question.reference["prompts"])
    one = {"question": asked[0], "answer": answers[0]}
    two = {"question_1": asked[0], "answer_1": answers[0], "question_2": asked[1], "answer_2": answers[1]}
    if given:
        one |= {"ref_answer_1": given[0]}
        two |= {"ref_answer_1": given[0], "ref_answer_2": given[1]}
    return [first.fill(answers[:1], **one), both.fill(answers, **two)]


def read(reply: str) -> float | None:
    """`Rating: [[7]]` → 7."""
    found = re.search(r"\[\[(\d+\.?\d*)\]\]", reply) or re.search(r"\[(\d+\.?\d*)\]", reply)
    rating = float(found.group(1)) if found else None
    return rating if rating is not None and 1 <= rating <= 10 else None


def rate(question: Question, ratings: Sequence[float | None]) -> Verdict:
    """A question's rating is the mean of the turns that have one, and weighs as many."""
    given = [rating for rating in ratings if rating is not None]
    mean = sum(given) / len(given) if given else None
    return {"rating": mean, "turn 1": ratings[0], "turn 2": ratings[1], "rated turns": float(len(given))}


TASK = Task(
    name="mt_bench",
    ability="general",
    load=load,
    rubric=Rubric(prompts, read, rate),
    default_data="",
    max_new_tokens=1024,
    metrics=(
        Metric("rating", is_rate=False, best=10.0, weight="rated turns"),
        *(Metric(name, is_rate=False, best=10.0) for name in ("turn 1", "turn 2")),
    ),
)
