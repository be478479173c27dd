"""The layouts of stored responses: what a row of our own or of another system's file says.

ours      {"id": …, "response": …}: a text, or a list with one a turn; or {"id": …, "samples": [response, …]}
FastChat  {"question_id": …, "choices": [{"turns": [text, …]}, …]}: a choice is a sample
EvalPlus  {"task_id": …, "solution": …} or {"task_id": …, "completion": …}: several rows are several samples, and of
          both the solution counts; or its *_eval_results.json, {"eval": {task_id: [{"solution": …}, …]}}
lm-eval   {"doc_id": …, "resps": [[text, …]]}: its samples_*.jsonl; doc_id counts the rows of the benchmark's file
bigcode   [[text, …], …]: a list of samples for each row of the benchmark's file, in its order

An id is whole or what stands behind its last `/`: "gsm8k/7", "7", 7 or ["gsm8k", 7]. Of answers that are programs,
EvalPlus' solutions, bigcode's generations and lm-eval's `filtered_resps` are whole ones, which run as they stand.

Rows of any other layout are read by `Columns`, the names of their fields.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath

from sftmix_jax.data import readers
from sftmix_jax.evaluation.lookup import Lookup, Unusable
from sftmix_jax.evaluation.task import Program
from sftmix_jax.machine.errors import UserError, did_you_mean

Columns = Mapping[str, str]  # what a field holds, of `_HOLDS` → the field's name in the file
_HOLDS = ("id", "question", "response", "samples")


class Given(NamedTuple):
    """What one row says: a question's samples, each with an answer a turn."""

    id: str
    samples: list[Any]  # texts and lists of texts, as far as the file is right; not yet checked
    more: bool = False  # further rows about this question are further samples
    again: bool = False  # the same row may stand there again (lm-eval: once a filter)


class _Generations(NamedTuple):
    """An item of bigcode's list: the samples of one row of the benchmark's file."""

    row: int
    samples: list[Any]
    rows: int  # that the list has


def rows(file: epath.Path, remedy: str, named: Columns | None = None) -> Iterator[tuple[str, Any]]:
    """What `read` reads, each with its place: a row a line, or the items of a list. Raises UserError."""
    if file.is_file() and (other := _other_kind(file)):
        raise UserError(f"{file}: {other}; {_KNOWN}")
    values = list(readers.json_values(file, remedy))
    for where, value in values:
        if isinstance(value, list) and len(values) == 1:
            for index, item in enumerate(value):
                if named and isinstance(item, list) and all(isinstance(row, dict) for row in item) and item:
                    for number, row in enumerate(item):
                        yield f"{file}[{index}][{number}]", row
                else:
                    generated = isinstance(item, list)
                    yield f"{file}[{index}]", _Generations(index, item, len(value)) if generated else item
        elif _holds_results(value, named or {}):
            for id, results in value["eval"].items():
                if results == []:
                    raise UserError(f"{where}: {id}: holds no results; leave {id} out, it then counts as missing")
                for index, result in enumerate(results if isinstance(results, list) else [results]):
                    yield f"{where}: {id}[{index}]", {"task_id": id, **result} if isinstance(result, dict) else result
        else:
            yield where, value


def _holds_results(value: Any, named: Columns) -> bool:
    """Whether this is the object of EvalPlus' *_eval_results.json, and no row with a field of that name."""
    keys = {key for key, _, _ in _LAYOUTS.values()} | set(named.values())
    return isinstance(value, dict) and isinstance(value.get("eval"), dict) and value.keys().isdisjoint(keys)


def columns(spec: str) -> Columns:
    """`question=FIELD,response=FIELD` → columns; `answer` is another word for `response`. Raises UserError."""
    found: dict[str, str] = {}
    for part in spec.split(",") if spec else ():
        ours, _, field = part.partition("=")
        ours = {"answer": "response"}.get(ours, ours)
        if ours not in _HOLDS:
            raise UserError(f"--columns {part}: no column '{ours}'; {did_you_mean(ours, _HOLDS)}")
        if not field or ours in found:
            raise UserError(f"--columns {part}: write {ours}=FIELD, once")
        found[ours] = field
    if found and (found.keys().isdisjoint(_HOLDS[:2]) or len(found.keys() & set(_HOLDS[2:])) != 1):
        raise UserError(f"--columns {spec}: name the fields of id or question (or both), and of response or samples")
    return found


def _by_columns(row: dict[str, Any], asked: Lookup, named: Columns) -> Given:
    if missing := [field for field in named.values() if field not in row]:
        raise Unusable(f"has no field '{missing[0]}', which --columns names; its fields are {', '.join(row)[:200]}")
    given = {ours: row[field] for ours, field in named.items()}
    id = asked.by_id(given["id"]) if "id" in given else asked.by_text(given["question"], once="samples" in given)
    if "question" in given and "id" in given and not asked.agrees(id, given["question"]):
        raise Unusable(f"its id is that of '{id}', and its question is that of another")
    samples = given.get("samples", [given.get("response")])
    return Given(id, _texts(samples if isinstance(samples, list) else [samples]), more="samples" in given)


def _texts(samples: list[Any]) -> list[Any]:
    """Numbers as texts: a column of results holds 18 for "18"."""
    if not all(isinstance(sample, (str, int, float, list)) and not isinstance(sample, bool) for sample in samples):
        return samples
    return [_texts(sample) if isinstance(sample, list) else str(sample) for sample in samples]


def read(row: Any, asked: Lookup, runs_code: bool, named: Columns | None = None) -> Given:
    """What a row says, by the fields that are named, or else in a known layout. Raises Unusable and LeftOut."""
    if named:
        if not isinstance(row, dict):
            raise Unusable("must be an object with the fields that --columns names")
        return _by_columns(row, asked, named)
    if isinstance(row, _Generations):
        if any(isinstance(sample, dict) for sample in row.samples):
            raise Unusable("its generations must be texts; --columns names the fields of objects")
        if asked.has_fewer_rows(row.rows):
            raise Unusable(
                f"the file holds generations for {row.rows} questions, and this benchmark has {len(asked.turns)}; "
                "score them on the data that they answer (--data)"
            )
        return Given(asked.by_row(row.row), list(map(_program, row.samples)) if runs_code else row.samples)
    if not isinstance(row, dict):
        raise _unknown("this is no object")
    found = [name for name, (key, given, _) in _LAYOUTS.items() if key in row and not row.keys().isdisjoint(given)]
    if not found:
        raise _unknown(f"its fields are {', '.join(row)[:200] or 'none'}")
    if len(found) > 1:
        raise Unusable(f"is a row of several layouts ({', '.join(found)}); keep the fields of one")
    return _LAYOUTS[found[0]][2](row, asked, runs_code)


def _unknown(reason: str) -> Unusable:
    return Unusable(f"must be a row in a known layout, but {reason}; {_KNOWN}")


def _other_kind(file: epath.Path) -> str:
    """What a file is that cannot be rows of JSON by its first bytes, and what to do; "" of any other."""
    with file.open("rb") as raw:
        head = raw.read(64)
    for mark, kind, suffix in ((b"\x1f\x8b", "gzip", ".gz"), (b"\x28\xb5\x2f\xfd", "Zstandard", ".zst")):
        if head.startswith(mark) and file.suffix.lower() != suffix:
            return f"is packed by {kind}: rename it to {file.name}{suffix}"
    if file.suffix.lower() in (".gz", ".zst"):
        return ""
    for mark, kind in ((b"PK\x03\x04", "a zip archive"), (b"PAR1", "a Parquet file")):
        if head.startswith(mark):
            return f"is {kind}: responses are read from rows of JSON"
    if b"\0" in head[:4] and not head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        kind = ("UTF-32" if b"\0\0" in head[:4] else "UTF-16") + ("BE" if head[:1] == b"\0" else "LE")
        return f"looks like {kind} without a byte order mark: iconv -f {kind} -t UTF-8"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text and not text.startswith((b"{", b"[", b"\xff\xfe", b"\xfe\xff", b"\0")):
        line = text.partition(b"\n")[0].decode(errors="replace")[:40]
        with contextlib.suppress(ValueError):
            json.loads(line)
            return ""  # a value that is no row
        return f"is no JSON, such as CSV or plain text (it begins with {line!r}): responses are read from rows of JSON"
    return ""


def _items(row: dict[str, Any], name: str) -> list[Any]:
    if not isinstance(row[name], list):
        raise Unusable(f"its '{name}' must be a list")
    return row[name]


def _ours(row: dict[str, Any], asked: Lookup, runs_code: bool) -> Given:
    if "samples" in row and "response" in row:
        raise Unusable("has a 'response' and 'samples'; keep one of them")
    return Given(asked.by_id(row["id"]), _items(row, "samples") if "samples" in row else [row["response"]])


def _fastchat(row: dict[str, Any], asked: Lookup, runs_code: bool) -> Given:
    choices = _items(row, "choices")
    if not all(isinstance(choice, dict) and isinstance(choice.get("turns"), list) for choice in choices):
        raise Unusable("each of its 'choices' must be {turns: [text, …]}")
    return Given(asked.by_id(row["question_id"]), [choice["turns"] for choice in choices])


def _evalplus(row: dict[str, Any], asked: Lookup, runs_code: bool) -> Given:
    text = _program(row["solution"]) if "solution" in row else row["completion"]
    return Given(asked.by_id(row["task_id"]), [text], more=True)


def _lm_eval(row: dict[str, Any], asked: Lookup, runs_code: bool) -> Given:
    if runs_code and "filtered_resps" in row:  # after a filter a sample is a text, or all of them are one list
        filtered = _items(row, "filtered_resps")
        samples = [_program(text) for each in filtered for text in (each if isinstance(each, list) else [each])]
        return Given(asked.by_row(row["doc_id"]), samples, again=True)
    requests = _items(row, "resps")
    if requests and all(isinstance(text, str) for text in requests):
        raise Unusable("its 'resps' must be a list of lists, [[text]]")
    if len(requests) != 1 or not isinstance(requests[0], list):
        raise Unusable(
            f"its 'resps' hold {len(requests)} requests, as of likelihoods; generated texts are one: [[text]]"
        )
    return Given(asked.by_row(row["doc_id"]), requests[0], again=True)


def _program(text: Any) -> Any:
    return Program(text) if isinstance(text, str) else text


# name → the field that says which question, those that hold the answers, and what reads a row
_LAYOUTS: dict[str, tuple[str, tuple[str, ...], Callable[[dict[str, Any], Lookup, bool], Given]]] = {
    "ours": ("id", ("response", "samples"), _ours),
    "FastChat": ("question_id", ("choices",), _fastchat),
    "EvalPlus": ("task_id", ("solution", "completion"), _evalplus),
    "lm-eval": ("doc_id", ("resps",), _lm_eval),
}
_KNOWN = (
    "known: "
    + ", ".join(
        [
            *(f"{name} {{{key}, {' or '.join(given)}}}" for name, (key, given, _) in _LAYOUTS.items()),
            "EvalPlus' results {eval: {task_id: [{solution}]}}",
            "bigcode's generations [[text, …], …]",
        ]
    )
    + "; --columns names other fields (docs/stored_outputs.md)"
)
