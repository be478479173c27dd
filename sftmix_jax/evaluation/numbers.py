"""Numbers in texts: how answers to word problems are read."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from sftmix_jax.data.sources import Source, read_rows
from sftmix_jax.evaluation.replies import first_answer
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict, mean_over_samples
from sftmix_jax.machine.errors import UserError

# One grammar of numbers, for texts as `_plain` leaves them. Digits are grouped by commas (1,234; 10,00,000), or in
# threes by spaces or apostrophes. A minus right after a word, a number or a bracket is a hyphen or a difference.
_DIGITS = r"(?:\d{1,3}(?:[ '’]\d{3}){1,99}(?!\d)|\d+(?:,\d{2,3}){0,99},\d{3}(?!\d)|\d+)"
_UNSIGNED = rf"(?:{_DIGITS}(?:\.\d+)?|(?<![.\w])\.\d+)(?:[eE][-+]?\d+)?"
_CURRENCY = "[$¢-¥₠-⃏]"
_NUMBER = (
    rf"(?P<sign>(?:(?<![\w)\]%])[-+]\(?)?(?:{_CURRENCY} ?[-+]?)?)"  # -, $, -$, $-, -(
    rf"(?P<whole>{_UNSIGNED})"
    rf"(?: (?P<part>\d+)/(?P<parts>\d+)| ?/ ?{_CURRENCY}?(?P<divisor>{_UNSIGNED}))?"  # 2 1/2; 1/2
    rf"(?:(?P<more>(?:(?: : |:)\d+(?:\.\d+)?)+)(?: ?(?P<half>[AaPp])\.?[Mm]\b)?)?"  # 3:2; 7:30 p.m.
)
_ANY = re.compile(_NUMBER)
_MARKED = re.compile(rf"####\s*{_NUMBER}")
_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s*\{|\s+(?P<bare>[^\s{}$]+))")  # \boxed{18}, \boxed 18
_OPERATOR = re.compile(r"\d[ )$%]*[-+*/÷]")
_SPELLINGS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"[−–‒‐]", "-"),
        (r"[⁄∕]", "/"),  # NFKC makes 1⁄2 of ½
        (r"∶", ":"),
        (r"\\times|\\cdot|[×·⋅]", "*"),
        (r"\\!", ""),
        (r"(?:\\text|\\mathrm)?\{,\}", ","),
        (r"\\[,:; ]|~", " "),
        (r"\\([$%.)])", r"\1"),  # \$5; `1\.`, as Markdown escapes it
        # at the head of a line it may be a list's mark, and behind a number a difference
        (r"(?i)([={]|####|\$|\b(?:is|are|was|were|be|equals|answer:|result:|total:))(\** ?\**)- (?=[\d$.])", r"\1\2-"),
        (r"(?<=\d)(?=\\[cdt]?frac)", " "),
        (r"\\[cdt]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))", r"\1\2/\3\4"),
        (r"(?<=\d) ?[*x] ?10(?:\^|\*\*)[{(]?([-+]?\d+)[)}]?", r"e\1"),
        (r"(?<![\d.,])10(?:\^|\*\*)[{(]?([-+]?\d+)[)}]?", r"1e\1"),
        (r"\^\{?[-+]?\d+\}?", ""),  # cm^2 is no number
        (r"(?<![\w.])\d{1,3}(?:_\d{3})+(?!\w)", lambda found: found[0].replace("_", "")),
        # 1.234.567,89; one point alone, as in 1.234, is a decimal one
        (
            r"(?<![\w.,])\d{1,3}(?:\.\d{3}){2,}(?:,\d{1,2})?(?!\w|[.,]\d)",
            lambda found: found[0].replace(".", "").replace(",", "."),
        ),
        (
            r"(?<![\w.,])\d{1,3}\.\d{3},\d\d(?!\w|[.,]\d)",  # 1.000,00
            lambda found: found[0].replace(".", "").replace(",", "."),
        ),
        (r"(?i)(?<![\w-])negative \*{0,2}(?=[$.\d])", "-"),
        # `10 minus 3` is a difference, and so may be a minus at the head of a line
        (
            r"(?i)(\A|[=:#{]|\b(?:is|are|was|were|be|get|gets|equals|of|to|at|from)\b)([ *$]*)minus \*{0,2}(?=[$.\d])",
            r"\1\2-",
        ),
    )
)
_POWERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "quadrillion": 15}
_SCALED = re.compile(  # 1.5 million; $1.5$ million; 1.5\text{ million}
    rf"(?i)(?<![\w.,/])(?P<number>{_DIGITS}(?:\.\d+| \d+/\d+|/\d+)?)(?:\$|\*\*)?(?:[ -]| ?\\(?:text|mathrm)\{{ ?)"
    rf"(?P<words>(?:{'|'.join(_POWERS)})s?(?:[ -](?:{'|'.join(_POWERS)})s?)*)\b"
)
_ABBREVIATED = re.compile(  # 70k, $70k, $1.5M
    rf"(?<![\w.,/])(?P<currency>{_CURRENCY} ?)?(?P<number>{_DIGITS}(?:\.\d+)?)"
    r"(?P<power>[kK]|(?(currency)[mMbB]|(?!)))\b"
)
_ITEM = re.compile(r"(?m)^[ \t>*]*(\d{1,2})[.)](?=[ \t]+\S)")  # of a numbered list
_FINAL = re.compile(rf"(?i)\bfinal answer(?: is)?[\s*:=$`]*(?={_CURRENCY}?[-.]?\d)(.+)")  # and what stands on its line
_COLUMNS = (  # the question's and the answer's, by collection
    (("input",), "target"),  # GSM-Hard
    (("Body", "Question"), "Answer"),  # SVAMP
    (("body", "question"), "answer"),  # ASDiv
    (("sQuestion",), "lSolutions"),  # MAWPS
    (("question",), "answer"),
)
METRICS = (
    Metric("strict", about="first `#### number`"),
    Metric(
        "flexible",
        about="first `#### number` but for headings 1., 2., …; else the last in a box, of a final answer, or of all",
    ),
    Metric("majority", about="the flexible answer that most samples give", samples=2),
)


class Quantity(NamedTuple):
    """`18` → (18,), the ratio `3:2` → (3, 2), the time `7:30 p.m.` → (7, 30) and p.

    An answer of `2 hours and 30 minutes` is taken as one quantity, (2, 30).
    """

    numbers: tuple[float, ...]
    half: str = ""  # of the day, where it is written: a or p


Gold = Sequence[Quantity]  # most hold one number; `2 (hours); 30 (minutes)` holds two quantities


def strict(response: str, gold: Gold) -> Quantity | None:
    """The first number behind `####`; where the gold holds more numbers, as many of that line."""
    found = _MARKED.search(_plain(response, gold))
    return _joined(_first(_read(_line(found)), gold)) if found else None


def flexible(response: str, gold: Gold) -> Quantity | None:
    """The first number behind `####` that numbers no heading, else the last in the last box, else of the last line that
    begins with `final answer`, else the last anywhere.

    Of `#### 9 * 2 = 18` the result is taken. Where the gold holds more numbers, as many are taken. What the response
    goes on to ask and answer by itself, and the numbers of a list, count where there is no other number.
    """
    parts = (_plain(first_answer(response), gold), _plain(response, gold))
    return next((found for part in parts if (found := _flexible(part, gold))), None)


def _flexible(text: str, gold: Gold) -> Quantity | None:
    for count, found in enumerate(_MARKED.finditer(text), 1):
        if not re.compile(rf"\s*{count}[.):][ \t]+\S").match(text, found.start() + len("####")):
            line = _line(found)
            working, _, result = line.rpartition("=")
            worked = _OPERATOR.search(working) and not re.search("[A-Za-z]", working)
            return _joined(_first(_read(result if worked else line), gold))
    final = _FINAL.findall(text)
    for part in (last_box(text) or "", *final[-1:], _without_list_numbers(text), text):
        if quantities := _read(part):
            if (said := _before_brackets(part)) and _right(said, gold):
                return said
            return _joined(_first(quantities[::-1], gold)[::-1])
    return None


def _without_list_numbers(text: str) -> str:
    """Without the numbers before the items of lists, counted from 1."""
    due = 1

    def without(item: re.Match[str]) -> str:
        nonlocal due
        if int(item[1]) not in (1, due):
            return item[0]
        due = int(item[1]) + 1
        return ""

    return _ITEM.sub(without, text)


def _before_brackets(text: str) -> Quantity | None:
    """Where the last number stands in brackets behind another one, that: 120 of `120 minutes (2 hours)`."""
    found = list(_ANY.finditer(text))
    begin = text.rfind("(", 0, found[-1].start())
    before = [each for each in found if each.end() <= begin]
    if not before or ")" in text[begin : found[-1].start()]:
        return None
    unit = re.sub(r"\\(?:text|mathrm)\b|[{}]", " ", text[before[-1].end() : begin])
    return _quantity(before[-1]) if re.fullmatch(r"[%\s]*(?:[^\W\d]+\s+){0,3}", unit) else None


def _line(marked: re.Match[str]) -> str:
    """The line of a marked number, from that number on."""
    return marked.string[marked.start() :].removeprefix("####").lstrip().partition("\n")[0]


def _first(quantities: Sequence[Quantity], gold: Gold) -> list[Quantity]:
    """The first quantities that hold as many numbers as the gold, or more."""
    taken: list[Quantity] = []
    for quantity in quantities:
        if len(_numbers(taken)) < len(_numbers(gold)):
            taken.append(quantity)
    return taken


def _numbers(quantities: Iterable[Quantity]) -> tuple[float, ...]:
    return tuple(number for quantity in quantities for number in quantity.numbers)


def _joined(quantities: Sequence[Quantity]) -> Quantity | None:
    return Quantity(_numbers(quantities), "".join(quantity.half for quantity in quantities)) if quantities else None


def last_box(text: str) -> str | None:
    """What the last whole \\boxed{} of a text holds."""
    limit = len(text)
    for found in reversed(list(_BOX.finditer(text))):
        if found["bare"]:
            return found["bare"]
        begin, depth = found.end(), 1
        for end in range(begin, limit):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                return text[begin:end]
        limit = begin  # a box around one that is cut off is cut off, too
    return None


def _plain(text: str, gold: Gold = ()) -> str:
    """One spelling for what is spelled in many ways: digits, signs, spaces, fractions, powers of ten.

    Where the gold is a ratio, 3/2 is one. Where it is 4, as of a question about millions, 4 million are 4.
    """

    def scaled(found: re.Match[str]) -> str:
        (number,) = _numbers(_read(found["number"]))
        if any(_equal(number, abs(wanted)) for wanted in _numbers(gold)):
            return found[0]
        power = _power(found)
        scaled = f"{number * 10**power!r}" if "/" in found["number"] else f"{found['number']}e{power}"
        return (found.groupdict().get("currency") or "") + scaled

    text = re.sub(r"[²³¹⁰⁴-⁻]+", r"^\g<0>", text)  # NFKC makes plain digits of raised ones
    text = re.sub(r"(?<=\d)[¼-¾⅐-⅞]", r" \g<0>", text)
    text = unicodedata.normalize("NFKC", text)
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    for pattern in (_SCALED, _ABBREVIATED):
        text = pattern.sub(scaled, text)
    return text.replace("/", ":") if any(len(quantity.numbers) > 1 for quantity in gold) else text


def _power(scaled: re.Match[str]) -> int:
    """Of ten, by which the words or the letter behind a number scale it."""
    if short := scaled.groupdict().get("power"):
        return {"k": 3, "m": 6, "b": 9}[short.lower()]
    return sum(_POWERS[word.lower().removesuffix("s")] for word in re.split("[ -]", scaled["words"]))


def _read(text: str) -> list[Quantity]:
    """Every quantity of a plain text, in its order."""
    return [_quantity(found) for found in _ANY.finditer(text)]


def _quantity(found: re.Match[str]) -> Quantity:
    """`-$1,234.50` → (-1234.5,), `2 1/2` → (2.5,), `3:2` → (3, 2); infinite where too large, or divided by 0."""
    whole, part, parts, divisor = (
        float(re.sub(r"[ '’,]", "", digits or default))
        for digits, default in zip(found.group("whole", "part", "parts", "divisor"), ("", "0", "1", "1"), strict=True)
    )
    size = whole / divisor + part / parts if divisor and parts else math.inf
    more = map(float, (found["more"] or "").split(":")[1:])
    return Quantity((-size if "-" in found["sign"] else size, *more), (found["half"] or "").lower())


def gold(text: str) -> float | str | None:
    """A file's answer: a number; the text itself where it holds several (ratios, times, pairs); None where none."""
    numbers = _numbers(_read(_plain(text)))
    return numbers[0] if len(numbers) == 1 else text if numbers else None


def load(task: str, path: str) -> list[Question]:
    """Word problems with a number for an answer, in the columns of any of the collections below. Raises UserError."""
    questions = []
    for i, row in enumerate(read_rows(Source(path))):
        said, answer = _problem(row.value, row.where)
        if (found := gold(answer)) is not None:
            questions.append(Question(f"{task}/{i}", (said,), {"answer": found}, row=i))
        elif task != "asdiv":  # ASDiv has a few answers in words, which no number can be compared with
            raise UserError(f"{row.where}: the answer '{answer}' is no number")
    return questions


def task(name: str, default_data: str) -> Task:
    """Word problems asked zero-shot, greedy, read by both rules."""
    return Task(
        name=name,
        ability="math",
        load=partial(load, name),
        score=score,
        pool=pool,
        extract=extract,
        metrics=METRICS,
        default_data=default_data,
        max_new_tokens=512,
    )


def _problem(row: dict[str, Any], where: str) -> tuple[str, str]:
    """Question and answer."""
    for asked, answer in _COLUMNS:
        if answer in row and all(column in row for column in asked):
            given = row[answer]
            return " ".join(str(row[column]) for column in asked), str(given[0] if isinstance(given, list) else given)
    known = "; ".join(f"{' and '.join(asked)} with {answer}" for asked, answer in _COLUMNS)
    raise UserError(f"{where}: no columns of a word problem (known: {known})")


def score(question: Question, answers: Turns) -> Verdict:
    """One sample by both rules; the reference holds `answer`, as `gold` gives it."""
    wanted = _gold(question)
    return {
        "strict": _right(strict(answers[0], wanted), wanted),
        "flexible": _right(flexible(answers[0], wanted), wanted),
    }


def extract(question: Question, answers: Turns) -> float | tuple[float, ...] | None:
    """What the flexible rule compares: a number, or several."""
    found = flexible(answers[0], _gold(question))
    return found and (found.numbers if len(found.numbers) > 1 else found.numbers[0])


def pool(question: Question, samples: Sequence[Turns], verdicts: Sequence[Verdict]) -> Verdict:
    """Means over the samples, and the majority's answer; the earliest of those that are given equally often."""
    wanted = _gold(question)
    votes = Counter(found for turns in samples if (found := flexible(turns[0], wanted)))
    return {
        **mean_over_samples(question, samples, verdicts),
        "majority": _right(votes.most_common(1)[0][0] if votes else None, wanted),
    }


def _gold(question: Question) -> Gold:
    answer = question.reference["answer"]
    return _read(_plain(answer)) if isinstance(answer, str) else [Quantity((answer,))]


def _right(found: Quantity | None, gold: Gold) -> float:
    """Whether all numbers are equal, and none is of the morning where the other is of the afternoon.

    19:30 is 7:30 p.m.
    """
    halves = {quantity.half for quantity in gold}
    if found is None or {found.half, *halves} >= {"a", "p"}:
        return 0.0
    wanted = _numbers(gold)
    if halves == {"p"} and not found.half and found.numbers[0] > 12 > wanted[0]:
        wanted = (wanted[0] + 12, *wanted[1:])
    return float(len(found.numbers) == len(wanted) and all(map(_equal, found.numbers, wanted)))


def _equal(found: float, gold: float) -> bool:
    """Within 1e-4, and within 1e-3 of the gold: 0 is not 5e-5."""
    return abs(found - gold) <= min(1e-4, 1e-3 * abs(gold))
