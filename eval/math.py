"""MATH: competition problems, zero-shot, the boxed answer (Hendrycks et al. 2021).

A row: {"problem": "What is the smallest positive perfect cube that can be written as …", "level": "Level 2", "type":
"Number Theory", "solution": "… the answer is $\\\\boxed{27}$."}

  boxed      the last \\boxed{} of the response means the same as the solution's last
  flexible   the last expression of the response does, boxed or not
Equality is math-verify's (1/2, 0.5 and \\frac12 are one answer), not that of strings. Needs the extra 'eval'.
"""

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation.numbers import last_box
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict
from sftmix_jax.machine.errors import UserError

_INSTRUCTION = "Solve the problem and put the final answer in \\boxed{}.\n\n"


def load(path: str) -> list[Question]:
    rows = [row.value for row in read_rows(Source(path))]
    return [
        Question(f"math/{i}", (_INSTRUCTION + row["problem"],), {"solution": row["solution"]})
        for i, row in enumerate(rows)
    ]


def _boxed(text: str) -> str:
    """The last whole box alone, or nothing."""
    inside = last_box(text)
    return f"$\\boxed{{{inside}}}$" if inside else ""


def score(question: Question, answers: Turns) -> Verdict:
    try:
        from math_verify import LatexExtractionConfig, parse, verify
    except ImportError:
        raise UserError("MATH's answers are compared by math-verify: pip install 'sftmix-jax[eval]'") from None
    boxed_only = [LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)]
    solution, said = question.reference["solution"], answers[0]
    gold = parse(_boxed(solution) or solution)  # of several boxes math-verify would make one set
    boxed = verify(gold, parse(_boxed(said), boxed_only))
    return {"boxed": float(boxed), "flexible": float(boxed or verify(gold, parse(said)))}


TASK = Task(
    name="math",
    ability="math",
    load=load,
    score=score,
    metrics=(Metric("boxed"), Metric("flexible")),
    default_data="hf:EleutherAI/hendrycks_math",
    max_new_tokens=1024,
    packages=("math-verify", "latex2sympy2-extended", "sympy"),
)
