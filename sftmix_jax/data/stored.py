"""The fields of stored rows and turns, each of which is taken, left out and reported, or refuses the row."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sftmix_jax.data.meanings import (
    NESTING,
    STRUCTURES,
    USES,
    WEIGHTS,
    is_grade,
    is_opinion,
    is_preference,
    is_verdict,
    meaning,
)
from sftmix_jax.data.messages import BadRow
from sftmix_jax.machine.errors import did_you_mean

LARGEST_WEIGHT = 1e6  # sums of weighted losses stay finite in float32
# What a verdict calls a bad answer, besides false and numbers up to 0, and a good one
_BAD = frozenset(
    {
        "false",
        "f",
        "no",
        "n",
        "bad",
        "rejected",
        "reject",
        "undesirable",
        "undesired",
        "incorrect",
        "wrong",
        "fail",
        "failed",
        "incomplete",
        "invalid",
        "unsafe",
        "unacceptable",
        "unusable",
        "discard",
        "discarded",
    }
)
# What a grade calls one besides: `no` is often an answer there
_POOR = _BAD - {"f", "no", "n"} | {
    "poor",
    "very poor",
    "very bad",
    "low",
    "very low",
    "low quality",
    "error",
    "failure",
    "spam",
    "toxic",
    "harmful",
    "flagged",
    "deleted",
    "removed",
    "excluded",
    "unhelpful",
    "inaccurate",
    "not ok",
    "denied",
    "declined",
}
_OFF = frozenset({"false", "0", "no", "0.0"})
_NOTHING = frozenset({"", "null", "None", "[]", "{}"})  # a structure that is stored as text
_GOOD = frozenset({"true", "t", "yes", "y", "good", "chosen", "desirable", "desired", "correct", "right", "pass"})


def shown(value: Any) -> str:
    """A value from the data for messages: short, on one line, and printable."""
    text = str(value)
    text = text if len(text) <= 40 else f"{text[:40]}…"
    return text if text.isprintable() else ascii(text)[1:-1]


class Fields:
    """The fields of a row or turn, and which of them were taken. None, "", [] and {} are absent fields.

    So are texts of these where a list or an object is stored as JSON text (meanings.STRUCTURES).
    `columns`: our name → the file's. `strict`: a field that nothing knows refuses the row. `nested`: in an object.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        columns: Mapping[str, str] | None = None,
        strict: bool = False,
        nested: bool = False,
    ):
        self._values = {name: None if _is_nothing(name, value) else value for name, value in values.items()}
        self._columns = columns or {}
        self._of_row = columns is not None and not strict and not nested
        self._left = {name for name, value in self._values.items() if not _absent(value)}
        self._of_turns: set[str] = set()
        self._without_meaning: set[str] = set()
        self.strict = strict

    def __contains__(self, name: str) -> bool:
        return name in self._values and not _absent(self._values[name])

    def names(self) -> list[str]:
        """The names of all fields that are there, taken or not."""
        return [name for name in self._values if isinstance(name, str) and name in self]

    def their(self, name: str) -> str:
        """The file's own name of a field, for messages."""
        return shown(self._columns.get(name, name))

    def take(self, name: str) -> Any:
        """The field's value, None where it is absent."""
        self._left.discard(name)
        return self._values[name] if name in self else None

    def peek(self, name: str) -> Any:
        """The field's value, None where it is absent; it is not taken."""
        return self._values[name] if name in self else None

    def nested_remedy(self, name: str) -> str:
        """What the user can do about what stands in a row's object."""
        return (
            f"; if it says something else, leave it out: columns={{'{self.their(name)}': ''}}" if self._of_row else ""
        )

    def leave(self, name: str) -> None:
        """Mark a taken field as one without a meaning here: it is left out, reported, and refuses nothing."""
        if name in self:
            self._left.add(name)
            self._without_meaning.add(name)

    def leave_opinions(self, row: Fields | None = None) -> None:
        """Leave all fields that may say that the answer is bad; with a `row`, those that its user has left out."""
        for name in filter(is_opinion, self.names()):
            if row is None or row._columns.get(name) == "":
                self.leave(name)

    def undecided(self) -> list[str]:
        """The names of the fields that are there and were not left."""
        return [name for name in self.names() if name not in self._without_meaning]

    def remedy(self, name: str) -> str:
        """What the user can do about a row's field in `columns`, which do not change turns and a `convert`."""
        if not self._of_row:
            return ""
        if is_preference(name):
            return "; map the wanted one by `columns`"
        if is_opinion(name):
            return f"; if it says something else, leave it out: columns={{'{self.their(name)}': ''}}"
        return ""

    def required(self, name: str) -> Any:
        """The field's value as stored. Raises BadRow where the row lacks it."""
        self._left.discard(name)
        if self._values.get(name) is None:
            own = self.their(name)
            raise BadRow(f"the column '{own}' is null" if name in self._values else f"no column '{own}'")
        return self._values[name]

    def one(self, names: Iterable[str]) -> tuple[str, Any]:
        """The name and value of the first of these that is there. Raises BadRow where a second one says otherwise."""
        present = [name for name in names if name in self]
        values = [self.take(name) for name in present]
        for name, value in zip(present[1:], values[1:], strict=True):
            if value != values[0]:
                raise BadRow(f"'{self.their(present[0])}' and '{self.their(name)}' differ")
        return (present[0], values[0]) if present else ("", None)

    def finish(self, known: Iterable[str] = ()) -> None:
        """Raise BadRow for a field that is left over and has a meaning; in a strict row for any.

        `known`: the names to suggest.
        """
        for name, value in self._values.items():
            if name not in self._left or name in self._without_meaning:
                continue
            found = meaning(str(name))  # what `convert` returns may have other keys
            is_off = isinstance(value, bool | int | float) and value == 0
            if found and found.is_flag and isinstance(value, str):
                is_off = value.strip().lower() in _OFF
            if found and not (found.off and is_off):
                said = f"the field '{self.their(name)}' would be lost: {found.reason}"
                raise BadRow(said + self.remedy(str(name)))
            if self.strict and not found:
                raise BadRow(f"unknown field '{shown(name)}'; {did_you_mean(str(name), known)}")

    @property
    def unused(self) -> frozenset[str]:
        """The names of what is left over, here and in the row's turns."""
        return frozenset(map(shown, self._left)) | self._of_turns

    def note_turn(self, turn: Fields) -> None:
        """Keep the names of what a turn of this row has left over."""
        self._of_turns |= {f"{name} of turns" for name in turn.unused}


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | dict) and len(value) == 0)


def _is_nothing(name: Any, value: Any) -> bool:
    return isinstance(value, str) and name in STRUCTURES and value.strip() in _NOTHING


def result(value: Any, what: str) -> str:
    """A tool's result: text or content parts as they are, any other value of JSON as JSON text.

    Templates disagree about objects and lists: some write JSON, some Python's notation, and some fail. Raises BadRow.
    """
    if isinstance(value, str) or _is_part(value) or (isinstance(value, list) and value and all(map(_is_part, value))):
        return text(value, what)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise BadRow(f"{what} holds a value that JSON does not have") from None


def _is_part(value: Any) -> bool:
    """Whether an object is one of OpenAI's content parts; a tool's own objects may have a `type` too."""
    return isinstance(value, Mapping) and bool(_PART.fullmatch(str(value.get("type"))))


def text(value: Any, what: str) -> str:
    """A string, or OpenAI's content parts of type text joined. Raises BadRow for all else, and for several strings."""
    if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str):
        return value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and value.get("type") == "text":
        return _part(value, what)
    if isinstance(value, list | tuple):
        if all(isinstance(part, str) for part in value):
            raise BadRow(f"{what} is a list of {len(value)} texts, of which none is marked as the one to train on")
        return "".join(_part(part, what) for part in value)
    raise BadRow(f"{what} is not text")


_PART = re.compile(r"(input_|output_)?(text|image|image_url|audio|video|video_url|file)")  # its type
# All but the text are notes
_OF_PARTS = ("type", "text", "annotations", "citations", "cache_control", "id", "index", "logprobs", "metadata")


def _part(part: Any, what: str) -> str:
    if not isinstance(part, Mapping):
        raise BadRow(f"{what} is not text")
    kind = part.get("type", "text")
    words = part.get("text")
    if kind not in ("text", "input_text", "output_text"):
        raise BadRow(f"{what} has a part of type '{shown(kind)}', which is not text")
    if not isinstance(words, str):
        raise BadRow(f"{what} has a part without text")
    others = Fields({name: value for name, value in part.items() if name not in _OF_PARTS}, strict=True)
    if "content" in others or "value" in others:
        raise BadRow(f"{what} has a part with more than one text")
    try:
        others.finish(_OF_PARTS)
    except BadRow as reason:
        raise BadRow(f"{what}, in a part: {reason}") from None
    return words


def items(value: Any, what: str) -> list[Any]:
    """A list, also one that is stored as JSON text, or as an object of lists. Raises BadRow for all else."""
    if isinstance(value, str):
        value = parse(value, what)
    if is_object_of_lists(value):
        columns = {name: column for name, column in value.items() if column is not None}
        if len(set(map(len, columns.values()))) > 1:
            raise BadRow(f"{what} is an object of lists that are not equally long")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, list):
        raise BadRow(f"{what} is no list")
    return value


def is_object_of_lists(value: Any) -> bool:
    """Whether a value is datasets' `Sequence` of a dict: {"role": [...], "content": [...]}."""
    if not isinstance(value, Mapping):
        return False
    columns = [column for column in value.values() if column is not None]
    return bool(columns) and all(isinstance(column, list | tuple) for column in columns)


def parse(value: str, what: str) -> Any:
    """JSON that is stored as text. Raises BadRow, also for repeated keys and for numbers that JSON does not have."""
    try:
        return json.loads(value, object_pairs_hook=_object, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise BadRow(f"{what} is not JSON") from None
    except _Ambiguous as reason:
        raise BadRow(f"{what} {reason}") from None


class _Ambiguous(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Ambiguous("is JSON with a key that stands twice")
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Ambiguous(f"is JSON with the number {shown(digits)}")
    return number


def weight(fields: Fields) -> float | None:
    """The product of the fields that weigh a turn's or a row's loss; None where it has none of them.

    `weight` is a number from 0 to LARGEST_WEIGHT; the others are true or false (or 1 or 0).
    Raises BadRow by the field's name.
    """
    factors = []
    for name in WEIGHTS:
        value = fields.take(name)
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name == "weight":
            if not number or not 0 <= value <= LARGEST_WEIGHT:
                raise BadRow(f"the field '{fields.their(name)}' must be a number from 0 to {LARGEST_WEIGHT:g}")
        elif not isinstance(value, bool) and not (number and value in (0, 1)):
            raise BadRow(f"the field '{fields.their(name)}' must be true or false")
        factors.append(float(value))
    return math.prod(factors) if factors else None


def refuse_bad_answer(fields: Fields) -> None:
    """Raise BadRow where a verdict, as KTO's label, or a grade says that the answer is a bad one.

    So does a verdict that is a part, 0.5. Other words, integers and lists are classes of something else, and say
    nothing of the answer; nor do a grade's numbers.
    """
    for name in filter(is_grade, fields.undecided()):
        said = fields.take(name)
        words = said.strip().lower().split("\n")[0] if isinstance(said, str) else ""
        if said is False or words in _POOR:
            called = f"the field '{fields.their(name)}' is {shown(words or 'false')}"
            raise BadRow(f"{called}: the answer is marked as a bad one{fields.remedy(name)}")
        fields.leave(name)
    for name in filter(is_verdict, fields.undecided()):
        own, remedy = fields.their(name), fields.remedy(name)
        said = fields.take(name)
        if isinstance(said, list | tuple) and any(isinstance(each, bool) for each in said):
            said = said[0] if len(said) == 1 else math.nan
        if isinstance(said, str):
            said = said.strip().lower()
            said = False if said in _BAD | _POOR else True if said in _GOOD else _number(said)
        if not isinstance(said, bool | int | float) or (1 < said < math.inf and said == int(said)):
            fields.leave(name)
        elif said <= 0:
            marked = "the row is marked as one not to use" if name in USES else "the answer is marked as a bad one"
            raise BadRow(f"the field '{own}' is false: {marked}{remedy}")
        elif isinstance(said, float) and not (math.isfinite(said) and said.is_integer()):
            raise BadRow(f"the field '{own}' must be true or false{remedy}")


def refuse_nested(fields: Fields, opinions: bool = True) -> None:
    """Raise BadRow, with its path, for a nested field that has a meaning: in `metadata`, `meta`, or a verdict's object.

    Nested fields are never used. A value that changes nothing, such as {"train": true}, does not refuse the row.
    `opinions`: also refuse for verdicts on an answer; they do not apply to documents and questions.
    """
    for name in fields.undecided() if not fields.strict else ():
        if not (name in NESTING or is_verdict(name) or is_grade(name)) or not (values := _object_in(fields, name)):
            continue
        inner = Fields(values, {key: f"{fields.their(name)}.{key}" for key in values}, nested=True)
        if not opinions:
            inner.leave_opinions()
        try:
            refuse_bad_answer(inner)
            if weight(inner) not in (None, 1.0):
                given = next(key for key in WEIGHTS if key in inner and inner.take(key) != 1)
                raise BadRow(f"the field '{inner.their(given)}' would be lost: {_TOO_DEEP}")
            inner.finish()
        except BadRow as reason:
            raise BadRow(f"{reason}{fields.nested_remedy(name)}") from None


_TOO_DEEP = "it weighs the loss, and is read beside the turns alone"


def _object_in(fields: Fields, name: str) -> dict[str, Any]:
    """A field's object, also one that is stored as JSON text; empty where it is none. The field is not taken."""
    value = fields.peek(name)
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = parse(value, name)
        except BadRow:
            return {}
    return {key: item for key, item in value.items() if isinstance(key, str)} if isinstance(value, Mapping) else {}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
