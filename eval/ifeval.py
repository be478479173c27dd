"""IFEval: instructions whose fulfilment a program can check, 25 kinds (Zhou et al. 2023).

A row: {"key": 1000, "prompt": "Write a 300+ word summary of …", "instruction_id_list":
["punctuation:no_comma", …], "kwargs": [{}, …]}

  prompt strict, prompt loose            share of prompts all of whose instructions are followed
  instruction strict, instruction loose  share of instructions that are followed
Loose forgives a first line, a last line and asterisks. The checks are those of lm-evaluation-harness (extra 'eval').
Two kinds count with NLTK's punkt_tab; where that is missing their prompts are left out, and it is said.
"""

import contextlib
import functools
import hashlib
import random
import sys
from pathlib import Path
from typing import Any

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict
from sftmix_jax.machine import terminal
from sftmix_jax.machine.errors import UserError, did_you_mean

_LEVELS = ("prompt strict", "prompt loose", "instruction strict", "instruction loose")
_WITH_PUNKT = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}


def load(path: str) -> list[Question]:
    kinds = _checks().instructions_registry.INSTRUCTION_DICT
    questions = []
    for row in read_rows(Source(path)):
        asked = dict(row.value)
        # One of the published files names the kinds with their language in front: en:punctuation:no_comma.
        asked["instruction_id_list"] = [kind.removeprefix("en:") for kind in asked["instruction_id_list"]]
        for kind in asked["instruction_id_list"]:
            if kind not in kinds:
                raise UserError(f"{row.where}: no kind of instruction '{kind}'; {did_you_mean(kind, kinds)}")
        reference = {key: asked[key] for key in ("key", "prompt", "instruction_id_list", "kwargs")}
        if not _WITH_PUNKT.isdisjoint(asked["instruction_id_list"]):
            reference["punkt_tab"] = _punkt()  # what it counts sentences by is part of the question
        questions.append(Question(f"ifeval/{asked['key']}", (asked["prompt"],), reference))
    if left_out := [question for question in questions if question.reference.get("punkt_tab") == ""]:
        terminal.err(
            f"{path}: {len(left_out)} of {len(questions)} prompts are left out, as NLTK's punkt_tab is not here: "
            "python -m nltk.downloader punkt_tab"
        )
    return questions


def _checks() -> Any:
    try:
        import langdetect

        with contextlib.redirect_stdout(sys.stderr):  # it looks for NLTK's data, and says so
            from lm_eval.tasks.ifeval import utils
    except ImportError:
        raise UserError("IFEval's checks are lm-evaluation-harness': pip install 'sftmix-jax[eval]'") from None
    langdetect.DetectorFactory.seed = 0  # it guesses by drawing: without a seed a score could not be had again
    return utils


@functools.cache
def _punkt() -> str:
    """A hash of NLTK's punkt_tab for English; empty where it is not here."""
    import nltk

    try:
        folder = Path(str(nltk.data.find("tokenizers/punkt_tab/english")))
    except LookupError:
        return ""
    content = hashlib.sha256()
    packed = [parent for parent in folder.parents if parent.suffix == ".zip"]  # as it was downloaded
    for file in packed or sorted(folder.iterdir()):
        content.update(file.read_bytes())
    return content.hexdigest()[:12]


def score(question: Question, answers: Turns) -> Verdict:
    row, checks = question.reference, _checks()
    if row.get("punkt_tab") == "":
        return {level: None for level in (*_LEVELS, "instructions")}
    state = random.getstate()
    random.seed(f"ifeval {row['key']}")  # a prompt that names no letter is given one by drawing
    found = checks.process_results(dict(row), [answers[0]])
    random.setstate(state)
    out: Verdict = {"instructions": float(len(row["instruction_id_list"]))}
    for manner in ("strict", "loose"):
        followed = found[f"inst_level_{manner}_acc"]
        out[f"prompt {manner}"] = float(all(followed))
        out[f"instruction {manner}"] = sum(followed) / len(followed)
    return out


TASK = Task(
    name="ifeval",
    ability="general",
    load=load,
    score=score,
    default_data="hf:google/IFEval:train",
    max_new_tokens=1280,
    packages=("lm_eval", "langdetect", "nltk"),
    metrics=tuple(Metric(level, weight="instructions" if "instruction" in level else "") for level in _LEVELS),
)
