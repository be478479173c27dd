"""Responses as files hold them: our own and those of other systems (layouts.py)."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from sftmix_jax.evaluation import layouts
from sftmix_jax.evaluation.answers import Answers
from sftmix_jax.evaluation.layouts import Columns, Given
from sftmix_jax.evaluation.lookup import LeftOut, Lookup, Unusable
from sftmix_jax.evaluation.task import Question
from sftmix_jax.machine import terminal
from sftmix_jax.machine.errors import UserError

_HALF_WRITTEN = "a half-written last line can be deleted, its question then counts as missing"


def read_responses(
    file: epath.Path, questions: Sequence[Question], runs_code: bool = False, columns: Columns | None = None
) -> Answers:
    """Stored responses by question id, in any layout of `layouts.py`, plain or packed, in UTF-8 or marked as UTF-16.

    `runs_code` says that answers are programs, of which some layouts hold whole ones. `columns` names the fields of
    rows in another layout.

    Raises UserError with file and line for a row in no layout, an unknown question, a second response to one, or none.
    """
    asked = Lookup(questions)
    left_out = set()
    answers: Answers = {}
    for where, row in layouts.rows(file, _HALF_WRITTEN, columns):
        try:
            given = layouts.read(row, asked, runs_code, columns)
            _add(answers, given, asked.turns[given.id])
        except LeftOut as left:
            left_out.add(left.row)
        except Unusable as reason:
            raise UserError(f"{where}: {reason}") from None
    if not answers and not left_out:
        raise UserError(f"{file}: holds no response")
    if left_out:
        rows = ", ".join(map(str, sorted(left_out)))
        terminal.err(f"{file}: {len(left_out)} answers are to rows that the benchmark leaves out: {rows}")
    return answers


def _add(answers: Answers, given: Given, turns: int) -> None:
    """Raises Unusable for what is no answer to a question of so many turns, and for a second one."""
    id, samples = given.id, [sample if isinstance(sample, list) else [sample] for sample in given.samples]
    for sample in samples:
        if not all(isinstance(turn, str) for turn in sample) or not 1 <= len(sample) <= turns:
            raise Unusable(f"response must be text, or a list of {turns} texts")
    if not samples:
        raise Unusable(f"holds no response to '{id}'")
    if id in answers and not given.more and not (given.again and answers[id] == samples):
        raise Unusable(f"a second response to '{id}'; keep one of them")
    answers[id] = [*answers.get(id, []), *samples] if given.more else samples
