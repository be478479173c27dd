"""Numbers in texts: how answers to word problems are read."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.errors import UserError
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict, mean_over_samples

# One grammar of numbers, for texts as `_plain` leaves them. Digits are grouped by commas (1,234; 10,00,000), or in
# threes by spaces or apostrophes. A minus right after a word, a number or a bracket is a hyphen or a difference.
_DIGITS = r"(?:\d{1,3}(?:[ '’]\d{3}){1,99}(?!\d)|\d+(?:,\d{2,3}){0,99},\d{3}(?!\d)|\d+)"
_UNSIGNED = rf"(?:{_DIGITS}(?:\.\d+)?|(?<![.\w])\.\d+)(?:[eE][-+]?\d+)?"
_CURRENCY = "[$¢-¥₠-⃏]"
_NUMBER = (
    rf"(?P<sign>(?:(?<![\w)\]%])[-+]\(?)?(?:{_CURRENCY} ?[-+]?)?)"  # -, $, -$, $-, -(
    rf"(?P<whole>{_UNSIGNED})"
    rf"(?: (?P<part>\d+)/(?P<parts>\d+)| ?/ ?{_CURRENCY}?(?P<divisor>{_UNSIGNED}))?"  # 2 1/2; 1/2
)
_ANY = re.compile(_NUMBER)
_MARKED = re.compile(rf"####\s*{_NUMBER}")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_SPELLINGS = tuple(
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"[−–‒‐]", "-"),
        (r"⁄", "/"),  # what NFKC makes of ½
        (r"\\!", ""),
        (r"\{,\}", ","),
        (r"\\[,:; ]|~", " "),
        (r"\\([$%])", r"\1"),
        (r"(?<=\d)(?=\\[dt]?frac)", " "),
        (r"\\[dt]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))", r"\1\2/\3\4"),
        (r"(?<=\d) ?(?:[*×·⋅x]|\\times|\\cdot) ?10\^\{?([-+]?\d+)\}?", r"e\1"),
        (r"(?<![\d.,])10\^\{?([-+]?\d+)\}?", r"1e\1"),
        (r"\^\{?[-+]?\d+\}?", ""),  # cm^2 is no number
    )
)
_COLUMNS = (  # the question's and the answer's, by collection
    (("input",), "target"),  # GSM-Hard
    (("Body", "Question"), "Answer"),  # SVAMP
    (("body", "question"), "answer"),  # ASDiv
    (("sQuestion",), "lSolutions"),  # MAWPS
    (("question",), "answer"),
)
METRICS = (
    Metric("strict", about="first `#### number`"),
    Metric("flexible", about="first `#### number` but for headings 1., 2., …; else the last in a box, else the last"),
    Metric("majority", about="the flexible answer that most samples give", samples=2),
)


def strict(response: str) -> float | None:
    """The first number behind `####`."""
    found = _MARKED.search(_plain(response))
    return _value(found) if found else None


def flexible(response: str) -> float | None:
    """The first number behind `####` that numbers no heading, else the last in the last box, else the last anywhere."""
    text = _plain(response)
    for count, found in enumerate(_MARKED.finditer(text), 1):
        if not re.compile(rf"\s*{count}[.):][ \t]+\S").match(text, found.start() + len("####")):
            return _value(found)
    numbers = _read(last_box(text) or "") or _read(text)
    return numbers[-1] if numbers else None


def last_box(text: str) -> str | None:
    """What the last whole \\boxed{} of a text holds."""
    limit = len(text)
    for begin in reversed([found.end() for found in _BOX.finditer(text)]):
        depth = 1
        for end in range(begin, limit):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                return text[begin:end]
        limit = begin  # a box around one that is cut off is cut off, too
    return None


def _plain(text: str) -> str:
    """One spelling for what Unicode and LaTeX spell in many ways: digits, signs, spaces, fractions, powers of ten."""
    text = re.sub(r"[²³¹⁰⁴-⁻]+", r"^\g<0>", text)  # NFKC makes plain digits of raised ones
    text = re.sub(r"(?<=\d)[¼-¾⅐-⅞]", r" \g<0>", text)
    text = unicodedata.normalize("NFKC", text)
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    return text


def _read(text: str) -> list[float]:
    """Every number of a text, in its order."""
    return [_value(found) for found in _ANY.finditer(_plain(text))]


def _value(found: re.Match[str]) -> float:
    """`-$1,234.50` → -1234.5, `2 1/2` → 2.5; infinite where it is too large, or divided by 0."""
    whole, part, parts, divisor = (
        float(re.sub(r"[ '’,]", "", digits or default))
        for digits, default in zip(found.group("whole", "part", "parts", "divisor"), ("", "0", "1", "1"), strict=True)
    )
    size = whole / divisor + part / parts if divisor and parts else math.inf
    return -size if "-" in found["sign"] else size


def load(task: str, path: str) -> list[Question]:
    """Word problems with a number for an answer, in the columns of any of the collections below. Raises UserError."""
    questions = []
    for i, row in enumerate(read_rows(Source(path))):
        said, gold = _problem(row.value, row.where)
        if numbers := _read(gold):
            questions.append(Question(f"{task}/{i}", (said,), {"answer": numbers[0]}))
        elif task != "asdiv":  # ASDiv has a few answers in words, which no number can be compared with
            raise UserError(f"{row.where}: the answer '{gold}' is no number")
    return questions


def task(name: str, default_data: str) -> Task:
    """Word problems asked zero-shot, greedy, read by both rules."""
    return Task(
        name=name, load=partial(load, name), score=score, pool=pool, extract=extract, metrics=METRICS,
        default_data=default_data, max_new_tokens=512,
    )  # fmt: skip


def _problem(row: dict[str, Any], where: str) -> tuple[str, str]:
    """Question and answer."""
    for asked, answer in _COLUMNS:
        if answer in row and all(column in row for column in asked):
            gold = row[answer]
            return " ".join(str(row[column]) for column in asked), str(gold[0] if isinstance(gold, list) else gold)
    known = "; ".join(f"{' and '.join(asked)} with {answer}" for asked, answer in _COLUMNS)
    raise UserError(f"{where}: no columns of a word problem (known: {known})")


def score(question: Question, answers: Turns) -> Verdict:
    """One sample by both rules; the reference holds `answer`, a number."""
    return {"strict": _right(question, strict(answers[0])), "flexible": _right(question, flexible(answers[0]))}


def extract(question: Question, answers: Turns) -> float | None:
    """What the flexible rule compares."""
    return flexible(answers[0])


def pool(question: Question, samples: Sequence[Turns], verdicts: Sequence[Verdict]) -> Verdict:
    """Means over the samples, and the majority's answer; the earliest of those that are given equally often."""
    votes = Counter(found for turns in samples if (found := flexible(turns[0])) is not None)
    return {
        **mean_over_samples(question, samples, verdicts),
        "majority": _right(question, votes.most_common(1)[0][0] if votes else None),
    }


def _right(question: Question, found: float | None) -> float:
    return float(found is not None and _equal(found, question.reference["answer"]))


def _equal(found: float, gold: float) -> bool:
    """Within 1e-4, and within 1e-3 of the gold: 0 is not 5e-5."""
    return abs(found - gold) <= min(1e-4, 1e-3 * abs(gold))
