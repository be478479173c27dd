"""MT-Bench's files, and answers and judgments in FastChat's layout: its tools read ours and ours read theirs.

Layout: `data/mt_bench/model_answer/<model>.jsonl` and `data/mt_bench/model_judgment/<judge>_single.jsonl` of FastChat
0.2.36 (`fastchat/llm_judge`, common.py and gen_model_answer.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from sftmix_jax.data.readers import json_rows, json_values
from sftmix_jax.evaluation.judging import Judgment, Prompt, delimited
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import matching, read_lines

_WITH_REFERENCE = ("math", "reasoning", "coding")  # categories that are judged with a reference answer


class JudgePrompt(NamedTuple):
    """A row of judge_prompts.jsonl."""

    name: str
    system: str
    template: str

    def fill(self, answers: Sequence[str], **fields: str) -> Prompt:
        """The prompt with its fields; `answers` are the judged ones, which its delimiters must hold in."""
        return Prompt(self.name, self.system, delimited(self.template, answers).format(**fields))


class Entry(NamedTuple):
    """A question of MT-Bench with what it is judged by."""

    number: int
    category: str
    turns: tuple[str, str]
    references: tuple[str, ...]  # a reference answer a turn, where the category is judged with one


def read_benchmark(folder: epath.Path) -> tuple[list[Entry], dict[str, JudgePrompt]]:
    """FastChat's data/mt_bench with judge_prompts.jsonl in it or beside it → questions, prompts by name.

    Raises UserError for a missing file, or a category that needs a reference answer and has none.
    """
    prompts_file = next(
        (f for f in (folder / "judge_prompts.jsonl", folder.parent / "judge_prompts.jsonl") if f.exists()), None
    )
    questions_file = folder / "question.jsonl"
    if prompts_file is None or not questions_file.exists():
        missing = questions_file if prompts_file else folder / "judge_prompts.jsonl"
        raise UserError(
            f"no file {missing}; give the folder fastchat/llm_judge/data/mt_bench of FastChat's repository, with its "
            "judge_prompts.jsonl: --data mt_bench=DIR"
        )
    references: dict[Any, list[str]] = {}
    for file in matching(folder / "reference_answer", "*.jsonl"):
        references |= {row["question_id"]: _reference(row, file) for row in _read(file, question_id=int, choices=list)}
    entries = []
    for row in _read(questions_file, question_id=int, category=str, turns=list):
        number, needed = row["question_id"], row["category"] in _WITH_REFERENCE
        if needed and number not in references:
            raise UserError(f"{folder}/reference_answer: no reference answer to question {number} ({row['category']})")
        given = tuple(references[number]) if needed else ()
        entries.append(Entry(number, row["category"], tuple(row["turns"]), given))
    prompts = {
        row["name"]: JudgePrompt(row["name"], row["system_prompt"], row["prompt_template"])
        for row in _read(prompts_file, name=str, system_prompt=str, prompt_template=str)
    }
    return entries, prompts


def _read(file: epath.Path, **fields: type) -> list[dict[str, Any]]:
    """The rows of one of FastChat's files, each with `fields` of these types. Raises UserError with file and line."""
    remedy = "take the file of FastChat's repository as it stands there"
    rows = read_lines(file, remedy)
    for number, row in enumerate(rows, 1):
        for name, kind in fields.items():
            if not isinstance(row.get(name), kind):
                raise UserError(f"{file}:{number}: has no field '{name}' ({kind.__name__}); {remedy}")
    return rows


def _reference(row: dict[str, Any], file: epath.Path) -> list[str]:
    try:
        return row["choices"][0]["turns"]
    except (LookupError, TypeError):
        raise UserError(f"{file}: question {row['question_id']} has no choices[0].turns") from None


def write_answers(folder: epath.Path, model: str, answers: Mapping[str, Sequence[Sequence[str]]], when: float) -> None:
    """model_answer/<model>.jsonl: a line a question, a choice a sample."""
    rows = [
        {
            "question_id": _number(id),
            "answer_id": hashlib.sha256(repr((id, samples)).encode()).hexdigest()[:22],
            "model_id": model,
            "tstamp": when,
            "choices": [{"index": i, "turns": list(turns)} for i, turns in enumerate(samples)],
        }
        for id, samples in answers.items()
    ]
    _write(folder / "model_answer" / f"{model}.jsonl", rows)


def write_judgments(folder: epath.Path, model: str, judge: str, judgments: Sequence[Judgment], when: float) -> None:
    """model_judgment/<judge>_single.jsonl: a line a turn and judging; a reply without a rating scores -1 there."""
    rows = [
        {
            "question_id": _number(j.question),
            "model": model,
            "judge": [judge, j.prompt.name],
            "user_prompt": j.prompt.user,
            "judgment": j.reply,
            "score": -1 if j.rating is None else j.rating,
            "turn": j.turn,
            "tstamp": when,
        }
        for j in judgments
    ]
    _write(folder / "model_judgment" / f"{judge.replace('/', '_').replace(':', '_')}_single.jsonl", rows)


_HALF_WRITTEN = "a half-written last line can be deleted, what it held then counts as missing"


def read_answers(file: epath.Path) -> dict[int, tuple[str, ...]]:
    """model_answer/<model>.jsonl → the turns of each question's first choice. Raises UserError with file and line."""
    found = {}
    for where, row in json_values(file, _HALF_WRITTEN):
        try:
            number, turns = int(row["question_id"]), tuple(row["choices"][0]["turns"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(
                f"{where}: not a line of FastChat's model_answer/*.jsonl ({type(error).__name__}: {error})"
            ) from None
        if not all(isinstance(turn, str) for turn in turns):
            raise UserError(f"{where}: the turns of a choice must be texts")
        found[number] = turns
    return found


class StoredJudgment(NamedTuple):
    """A line of model_judgment/<judge>_single.jsonl."""

    where: str
    number: Any  # of the question
    turn: int
    judge: str
    reply: str
    score: float | None  # as it is stored; None where FastChat found none


_NO_JUDGMENT = "not a line of FastChat's model_judgment/*_single.jsonl"


def read_judgments(files: Sequence[epath.Path]) -> dict[str, list[StoredJudgment]]:
    """Model → its judgments, whoever had them made. Raises UserError with file and line."""
    found: dict[str, list[StoredJudgment]] = {}
    for where, row in (each for file in files for each in json_rows(file, _HALF_WRITTEN)):
        try:
            judge, turn, model, reply = row["judge"], row["turn"], row["model"], row["judgment"]
            score = None if row["score"] == -1 else float(row["score"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(f"{where}: {_NO_JUDGMENT} ({type(error).__name__}: {error})") from None
        for name, value, kind, sound in (
            ("judge", judge, "list", isinstance(judge, list) and bool(judge) and isinstance(judge[0], str)),
            ("turn", turn, "whole number", isinstance(turn, int) and not isinstance(turn, bool)),
            ("model", model, "text", isinstance(model, str)),
            ("judgment", reply, "text", isinstance(reply, str)),
        ):
            if not sound:
                raise UserError(f"{where}: {_NO_JUDGMENT} (its {name} is no {kind}: {str(value)[:60]})")
        found.setdefault(model, []).append(StoredJudgment(where, row["question_id"], turn, judge[0], reply, score))
    return found


def _number(id: str) -> int | str:
    tail = id.rpartition("/")[2]
    return int(tail) if tail.isdigit() else tail


def _write(file: epath.Path, rows: Sequence[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
