"""Which question of a benchmark a stored row is about, by what the row says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sftmix_jax.evaluation.task import Question
from sftmix_jax.machine.errors import nearest


class Unusable(Exception):
    """Why a stored row cannot be used, in one line; whoever knows its place adds that."""

    def __init__(self, reason: str):
        super().__init__(reason.replace("\n", "\\n"))


class LeftOut(Exception):
    """A stored row is about a row of the benchmark's file that the benchmark leaves out."""

    def __init__(self, row: int):
        super().__init__(row)
        self.row = row


class Lookup:
    """The questions of a benchmark."""

    def __init__(self, questions: Sequence[Question]):
        self.turns = {question.id: len(question.turns) for question in questions}
        self._rows = {i if q.row is None else q.row: q.id for i, q in enumerate(questions)}
        self._leaves_out = any(question.row is not None for question in questions)
        self._tails: dict[str, list[str]] = {}
        self._texts: dict[str, list[str]] = {}
        for question in questions:
            self._tails.setdefault(question.id.rpartition("/")[2], []).append(question.id)
            self._texts.setdefault(_plain("".join(question.turns[:1])), []).append(question.id)
        self._asked: Counter[str] = Counter()  # how often `by_text` was asked for a text

    def by_id(self, given: Any) -> str:
        """A question's id from the whole of it or what stands behind its last `/`. Raises Unusable.

        Numbers are ids, 0 too; the parts of a list are those between the slashes: 7, "gsm8k/7" and ["gsm8k", 7].
        """
        name = _as_text(given)
        if name in self.turns:
            return name
        found = self._tails.get(name, [])
        if not found:
            raise Unusable(
                f"no question '{name[:80]}' in this benchmark; {nearest(name, {id: id for id in self.turns})}"
            )
        if len(found) > 1:
            raise Unusable(f"'{name}' names {len(found)} questions, as '{found[0]}' and '{found[1]}'; give whole ids")
        return found[0]

    def by_row(self, given: Any) -> str:
        """The question in a row of the benchmark's file, from 0. Raises Unusable, and LeftOut.

        A benchmark that leaves rows out does not know how many its file has.
        """
        name = _as_text(given)
        row = int(name) if name.isdecimal() else -1
        if row in self._rows:
            return self._rows[row]
        if row >= 0 and self._leaves_out:
            raise LeftOut(row)
        raise Unusable(f"no question 'doc_id {name[:80]}' in this benchmark; its rows are 0 to {max(self._rows)}")

    def has_fewer_rows(self, count: int) -> bool:
        """Whether the benchmark's file has fewer rows than so many; not known where the benchmark leaves rows out."""
        return not self._leaves_out and len(self.turns) < count

    def by_text(self, given: Any, whole: bool = False, once: bool = False) -> str:
        """The question that reads as given, that the given text holds (in a prompt), or that holds it. Raises Unusable.

        White space aside; of these only the first if `whole`. A question that stands in the benchmark twice is each of
        the two in turn, unless it must stand there `once`.
        """
        text = self._text(given, whole)
        ids = self._texts[text]
        if once and len(ids) > 1:
            raise Unusable(f"its question stands in the benchmark under several ids ({', '.join(ids[:3])}); keep one")
        self._asked[text] += 1
        return ids[min(self._asked[text], len(ids)) - 1]

    def agrees(self, id: str, given: Any) -> bool:
        """Whether a text is that of the question with this id. Raises Unusable where it is that of none."""
        return id in self._texts[self._text(given)]

    def _text(self, given: Any, whole: bool = False) -> str:
        """The question's text, as `_texts` has it."""
        if not isinstance(given, str) or not given.strip():
            raise Unusable(f"a question must be text, not {str(given)[:60]!r}")
        text = _plain(given)
        if text in self._texts:
            return text
        within = [each for each in self._texts if each in text and not whole]
        around = [each for each in self._texts if text in each and not whole]
        found = [each for each in within if not any(each in other for other in within if other != each)] or around
        if not found:
            known = {each: ids[0] for each, ids in self._texts.items()}
            raise Unusable(f"no question in this benchmark reads '{text[:60]}'; {nearest(text, known)}")
        if len(found) > 1:
            ids = [self._texts[each][0] for each in found]
            raise Unusable(f"'{text[:60]}' is of {len(ids)} questions, as '{ids[0]}' and '{ids[1]}'; give ids")
        return found[0]


def _plain(text: str) -> str:
    return " ".join(text.split())


def _as_text(given: Any) -> str:
    if isinstance(given, float) and given.is_integer():  # a column of numbers with gaps becomes floats in tables
        given = int(given)
    if isinstance(given, str) or (isinstance(given, int) and not isinstance(given, bool)):
        return str(given)
    if isinstance(given, list) and given and not any(isinstance(part, list) for part in given):
        return "/".join(map(_as_text, given))
    raise Unusable(f"an id must be text, a number or a list of these, not {str(given)[:60]}")
