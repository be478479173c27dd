"""Responses as files hold them: our own, FastChat's answers, EvalPlus' and lm-eval's samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from sftmix_jax import terminal
from sftmix_jax.data import readers
from sftmix_jax.errors import UserError, did_you_mean
from sftmix_jax.evaluation.answers import Answers
from sftmix_jax.evaluation.task import Program, Question


class _Given(NamedTuple):
    """What one line says: a question's samples, each with an answer a turn."""

    id: str
    samples: list[list[str]]
    more: bool  # further lines about this question are further samples
    again: bool = False  # the same line may stand there again (lm-eval: once a filter)


Ids = Mapping[int, str]  # the questions' ids, by their rows in the benchmark's file


def read_responses(file: epath.Path, questions: Sequence[Question], runs_code: bool = False) -> Answers:
    """Stored responses by question id, whoever wrote them.

    Ours         {"id", "response"}: a text, or a list with one a turn; or {"id", "samples": [response, …]}
    FastChat     {"question_id", "choices": [{"turns": […]}]}
    EvalPlus     {"task_id", "solution"} or {"task_id", "completion"}; several lines are several samples
    lm-eval      {"doc_id", "resps": [[…]]}; doc_id counts the rows of the benchmark's file, with those left out

    Where answers are run (`runs_code`), EvalPlus' solutions and lm-eval's `filtered_resps` are programs that are run as
    they stand.

    Raises UserError with file and line for anything else, an unknown question or a second response.
    """
    known = {q.id: len(q.turns) for q in questions}
    ids = {i if q.row is None else q.row: q.id for i, q in enumerate(questions)}
    leaves_out = any(q.row is not None for q in questions)
    left_out = set()
    answers: Answers = {}
    for where, row in _rows(file):
        given = _read_row(row, where, ids, runs_code)
        if given.id not in known and given.again and leaves_out:
            left_out.add(given.id)
            continue
        if given.id not in known:
            raise UserError(f"{where}: no question '{given.id}' in this benchmark; {did_you_mean(given.id, known)}")
        for turns in given.samples:
            if not all(isinstance(turn, str) for turn in turns) or len(turns) > known[given.id]:
                raise UserError(f"{where}: response must be text, or a list of {known[given.id]} texts")
        if given.id in answers and not given.more and not (given.again and answers[given.id] == given.samples):
            raise UserError(f"{where}: a second response to '{given.id}'; keep one of them")
        if given.more:
            answers.setdefault(given.id, []).extend(given.samples)
        else:
            answers[given.id] = given.samples
    if left_out:
        terminal.err(f"{file}: {len(left_out)} answers are to rows that the benchmark leaves out")
    return answers


_HALF_WRITTEN = "a half-written last line can be deleted, its question then counts as missing"


def _rows(file: epath.Path) -> Iterator[tuple[str, Any]]:
    """The rows of a file with their places: one a line, or the items of one list."""
    values = list(readers.json_values(file, _HALF_WRITTEN))
    if len(values) == 1 and isinstance(values[0][1], list):
        values = [(f"{file}[{index}]", row) for index, row in enumerate(values[0][1])]
    yield from values


def _read_row(row: Any, where: str, ids: Ids, runs_code: bool) -> _Given:
    try:
        if runs_code and "doc_id" in row and "filtered_resps" in row:
            row = {"doc_id": row["doc_id"], "resps": [_programs(row["filtered_resps"])]}
        for column, read in _LAYOUTS.items():
            if column in row:
                return read(row, ids)
        raise KeyError("id")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f'{where}: must be {{"id": …, "response": …}} ({type(error).__name__}: {error})') from None


def _turns(response: Any) -> list[str]:
    return response if isinstance(response, list) else [response]


def _ours(row: dict[str, Any], ids: Ids) -> _Given:
    samples = row["samples"] if "samples" in row else [row["response"]]
    return _Given(str(row["id"]), [_turns(sample) for sample in samples], more=False)


def _fastchat(row: dict[str, Any], ids: Ids) -> _Given:
    number = str(row["question_id"])
    named = next((id for id in ids.values() if id.rpartition("/")[2] == number), number)
    return _Given(named, [choice["turns"] for choice in row["choices"]], more=False)


def _evalplus(row: dict[str, Any], ids: Ids) -> _Given:
    return _Given(row["task_id"], [[Program(row["solution"]) if "solution" in row else row["completion"]]], more=True)


def _programs(filtered: list[Any]) -> list[Program]:
    """lm-eval's samples after a filter: a text, or a list of them, a request."""
    return [Program(text) for each in filtered for text in (each if isinstance(each, list) else [each])]


def _lm_eval(row: dict[str, Any], ids: Ids) -> _Given:
    position = int(row["doc_id"])
    return _Given(ids.get(position, f"doc_id {position}"), [[text] for text in row["resps"][0]], more=False, again=True)


# The column that tells a layout.
_LAYOUTS: dict[str, Callable[[dict[str, Any], Ids], _Given]] = {
    "id": _ours, "question_id": _fastchat, "task_id": _evalplus, "doc_id": _lm_eval,
}  # fmt: skip
