"""IFEval: instructions whose fulfilment a program can check, 25 kinds (Zhou et al. 2023).

A row: {"key": 1000, "prompt": "Write a 300+ word summary of …", "instruction_id_list":
["punctuation:no_comma", …], "kwargs": [{}, …]}

  prompt strict, prompt loose            share of prompts all of whose instructions are followed
  instruction strict, instruction loose  share of instructions that are followed
Loose forgives a first line, a last line and asterisks. The checks are those of lm-evaluation-harness (extra 'eval');
those that count sentences need NLTK's punkt_tab, and without it their prompts are left out: n tells.
"""

from typing import Any

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.errors import UserError
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict

_LEVELS = ("prompt strict", "prompt loose", "instruction strict", "instruction loose")


def load(path: str) -> list[Question]:
    keys = ("key", "prompt", "instruction_id_list", "kwargs")
    rows = [row.value for row in read_rows(Source(path))]
    return [Question(f"ifeval/{row['key']}", (row["prompt"],), {key: row[key] for key in keys}) for row in rows]


def _checks() -> Any:
    try:
        from lm_eval.tasks.ifeval import utils
    except ImportError:
        raise UserError("IFEval's checks are lm-evaluation-harness': pip install 'sftmix-jax[eval]'") from None
    return utils


def score(question: Question, answers: Turns) -> Verdict:
    row, checks = question.reference, _checks()
    try:
        found = checks.process_results(dict(row), [answers[0]])
    except LookupError:  # NLTK's data is missing
        return {level: None for level in (*_LEVELS, "instructions")}
    out: Verdict = {"instructions": float(len(row["instruction_id_list"]))}
    for manner in ("strict", "loose"):
        followed = found[f"inst_level_{manner}_acc"]
        out[f"prompt {manner}"] = float(all(followed))
        out[f"instruction {manner}"] = sum(followed) / len(followed)
    return out


TASK = Task(
    name="ifeval", load=load, score=score, default_data="hf:google/IFEval:train", max_new_tokens=1280,
    metrics=tuple(Metric(level, weight="instructions" if "instruction" in level else "") for level in _LEVELS),
)  # fmt: skip
