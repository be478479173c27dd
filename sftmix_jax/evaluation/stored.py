"""Responses as files hold them: our own, FastChat's answers, EvalPlus' and lm-eval's samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from sftmix_jax import terminal
from sftmix_jax.data import readers
from sftmix_jax.errors import UserError
from sftmix_jax.evaluation.answers import Answers
from sftmix_jax.evaluation.lookup import LeftOut, Lookup, Unusable
from sftmix_jax.evaluation.task import Program, Question


class _Given(NamedTuple):
    """What one row says: a question's samples, each with an answer a turn."""

    id: str
    samples: list[list[str]]
    more: bool  # further rows about this question are further samples
    again: bool = False  # the same row may stand there again (lm-eval: once a filter)


def read_responses(file: epath.Path, questions: Sequence[Question], runs_code: bool = False) -> Answers:
    """Stored responses by question id, whoever wrote them.

    Ours         {"id", "response"}: a text, or a list with one a turn; or {"id", "samples": [response, …]}
    FastChat     {"question_id", "choices": [{"turns": […]}]}
    EvalPlus     {"task_id", "solution"} or {"task_id", "completion"}; several lines are several samples
    lm-eval      {"doc_id", "resps": [[…]]}; doc_id counts the rows of the benchmark's file, with those left out

    An id is whole or what stands behind its last `/`: "gsm8k/7", "7", 7 or ["gsm8k", 7].

    Where answers are run (`runs_code`), EvalPlus' solutions and lm-eval's `filtered_resps` are programs that are run as
    they stand.

    Raises UserError with file and line for anything else, an unknown question or a second response.
    """
    asked = Lookup(questions)
    left_out = set()
    answers: Answers = {}
    for where, row in _rows(file):
        try:
            given = _read(row, asked, runs_code)
            _add(answers, given, asked.turns[given.id])
        except LeftOut as left:
            left_out.add(left.row)
        except Unusable as reason:
            raise UserError(f"{where}: {reason}") from None
    if left_out:
        rows = ", ".join(map(str, sorted(left_out)))
        terminal.err(f"{file}: {len(left_out)} answers are to rows that the benchmark leaves out: {rows}")
    return answers


def _add(answers: Answers, given: _Given, turns: int) -> None:
    """Raises Unusable for what is no answer to a question of so many turns, and for a second one."""
    id = given.id
    for sample in given.samples:
        if not all(isinstance(turn, str) for turn in sample) or not 1 <= len(sample) <= turns:
            raise Unusable(f"response must be text, or a list of {turns} texts")
    if not given.samples:
        raise Unusable(f"holds no response to '{id}'")
    if id in answers and not given.more and not (given.again and answers[id] == given.samples):
        raise Unusable(f"a second response to '{id}'; keep one of them")
    answers[id] = [*answers.get(id, []), *given.samples] if given.more else given.samples


_HALF_WRITTEN = "a half-written last line can be deleted, its question then counts as missing"


def _rows(file: epath.Path) -> Iterator[tuple[str, Any]]:
    """The rows of a file with their places: one a line, or the items of one list."""
    values = list(readers.json_values(file, _HALF_WRITTEN))
    if len(values) == 1 and isinstance(values[0][1], list):
        values = [(f"{file}[{index}]", row) for index, row in enumerate(values[0][1])]
    yield from values


def _read(row: Any, asked: Lookup, runs_code: bool) -> _Given:
    try:
        if runs_code and "doc_id" in row and "filtered_resps" in row:
            row = {"doc_id": row["doc_id"], "resps": [_programs(row["filtered_resps"])]}
        for column, read in _LAYOUTS.items():
            if column in row:
                return read(row, asked)
        raise KeyError("id")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Unusable(f'must be {{"id": …, "response": …}} ({type(error).__name__}: {error})') from None


def _turns(response: Any) -> list[str]:
    return response if isinstance(response, list) else [response]


def _ours(row: dict[str, Any], asked: Lookup) -> _Given:
    samples = row["samples"] if "samples" in row else [row["response"]]
    return _Given(asked.by_id(row["id"]), [_turns(sample) for sample in samples], more=False)


def _fastchat(row: dict[str, Any], asked: Lookup) -> _Given:
    return _Given(asked.by_id(row["question_id"]), [choice["turns"] for choice in row["choices"]], more=False)


def _evalplus(row: dict[str, Any], asked: Lookup) -> _Given:
    text = Program(row["solution"]) if "solution" in row else row["completion"]
    return _Given(asked.by_id(row["task_id"]), [[text]], more=True)


def _programs(filtered: list[Any]) -> list[Program]:
    """lm-eval's samples after a filter: a text, or a list of them, a request."""
    return [Program(text) for each in filtered for text in (each if isinstance(each, list) else [each])]


def _lm_eval(row: dict[str, Any], asked: Lookup) -> _Given:
    return _Given(asked.by_row(row["doc_id"]), [[text] for text in row["resps"][0]], more=False, again=True)


# The column that tells a layout.
_LAYOUTS: dict[str, Callable[[dict[str, Any], Lookup], _Given]] = {
    "id": _ours, "question_id": _fastchat, "task_id": _evalplus, "doc_id": _lm_eval,
}  # fmt: skip
