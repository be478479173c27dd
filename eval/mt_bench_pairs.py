"""MT-Bench in pairs: a judge says which of two answers is better, the model's or a stored baseline's.

A row: as in mt_bench.py; the baseline's answers are a file in FastChat's layout, {"question_id": 81, "choices":
[{"index": 0, "turns": ["…", "…"]}], …}

  wins          1 for a win, 1/2 for a tie, 0 for a loss; mean of the two turns
  disagreement  how often the verdict turns with the order of the two answers; such a turn is a tie

Both orders are always judged: judges favour the answer that stands first.
Data: --data mt_bench_pairs=DIR@BASELINE.jsonl, DIR as in mt_bench.py; DIR alone for verdicts that are stored already:
--judgments FILE, as AlpacaEval, QLoRA and FastChat write them (evaluation/pairs.py). pairs.py takes any questions.
"""

from collections.abc import Sequence

from etils import epath

from sftmix_jax.evaluation import fastchat, pairs
from sftmix_jax.evaluation.judging import Prompt, Rubric
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict, find_task
from sftmix_jax.machine.errors import UserError


def load(path: str) -> list[Question]:
    folder, _, baseline = path.partition("@")
    entries, prompts = fastchat.read_benchmark(epath.Path(folder))
    other = fastchat.read_answers(epath.Path(baseline)) if baseline else {}
    temperatures = {q.id.rpartition("/")[2]: q.temperature for q in find_task("mt_bench")[0].load(folder)}
    questions = []
    for entry in entries:
        if baseline and entry.number not in other:
            raise UserError(f"{baseline}: has no answer to question {entry.number}")
        name = "pair-math-v1" if entry.references else "pair-v2"
        reference = {
            "baseline": other.get(entry.number, ()),
            "references": entry.references,
            "prompts": (prompts[name], prompts[f"{name}-multi-turn"]),
        }
        id = f"mt_bench_pairs/{entry.number}"
        questions.append(Question(id, entry.turns, reference, temperatures[str(entry.number)]))
    return questions


def prompts(question: Question, answers: Turns) -> list[Prompt]:
    """Turn 1 with ours first, with the baseline first; turn 2 likewise."""
    baseline = question.reference["baseline"]
    if not baseline:
        raise UserError("mt_bench_pairs: name the stored baseline too: --data mt_bench_pairs=DIR@BASELINE.jsonl")
    orders = ((answers, baseline), (baseline, answers))
    return [_one(question, a, b) for a, b in orders] + [_both(question, a, b) for a, b in orders]


def _one(question: Question, a: Turns, b: Turns) -> Prompt:
    template, given = fastchat.JudgePrompt(*question.reference["prompts"][0]), question.reference["references"]
    fields = {"question": question.turns[0], "answer_a": a[0], "answer_b": b[0]}
    return template.fill([a[0], b[0]], **fields, **({"ref_answer_1": given[0]} if given else {}))


def _both(question: Question, a: Turns, b: Turns) -> Prompt:
    template, given = fastchat.JudgePrompt(*question.reference["prompts"][1]), question.reference["references"]
    fields = {
        "question_1": question.turns[0],
        "question_2": question.turns[1],
        "answer_a_1": a[0],
        "answer_a_2": a[1],
        "answer_b_1": b[0],
        "answer_b_2": b[1],
    }
    if given:
        fields |= {"ref_answer_1": given[0], "ref_answer_2": given[1]}
    return template.fill([*a, *b], **fields)


def rate(question: Question, ratings: Sequence[float | None]) -> Verdict:
    return pairs.rate(ratings)


TASK = Task(
    name="mt_bench_pairs",
    ability="general",
    load=load,
    rubric=Rubric(prompts, pairs.read, rate, pairwise=True),
    default_data="",
    max_new_tokens=1024,
    metrics=(Metric("wins", is_rate=False), Metric("disagreement", is_rate=False)),
)
