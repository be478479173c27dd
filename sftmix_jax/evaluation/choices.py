"""Which letter a reply to a multiple-choice question gives.

The first of these rules that finds a letter decides, on the reply's first answer (replies.py):

  1. box         the last \\boxed{} holds a letter: \\boxed{B}, \\boxed{\\text{(B)}}, \\boxed{B. 4}
  2. heading     the first line is a letter and nothing else: `B`, `(b).`, `Option B`, `Answer: **B**`
  3. answer      the last statement of an answer: `the answer is (B)`, `correct option: B`, `答案是B`,
                 `B is the correct answer`
  4. verdict     the last letter that is called right: `B is correct, because A is wrong`
  5. conclusion  the last of `So B.`, `I choose B`, `Therefore, (b)`
  6. only one    the one letter at the head of a line, else in brackets, else anywhere, that is not called wrong
  7. text        the one choice whose text stands where an answer is stated, else anywhere

`A` before a small letter is an article (`the answer is A dog`), and `I` before one a person, unless a verb or the text
of choice A follows. Of `A or B` neither is given.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Sequence

from sftmix_jax.evaluation import numbers
from sftmix_jax.evaluation.replies import first_answer

LETTERS = string.ascii_uppercase
_CJK = "\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af"  # written without spaces between words
_BEGINS, _ENDS = rf"(?<![^\W{_CJK}])(?<!\w')", rf"(?![^\W{_CJK}])(?!'\w)"
_ANSWER = (
    r"(?i:\b(?:answer|antwort|réponse|respuesta|risposta|resposta|ответ)\b|答案|정답|答え|答えは"
    r"|\b(?:correct|right|best|final|richtige|correcta?) (?:option|choice|letter|statement|one)\b)"
)
_WORDS = (
    "is be are was would must should seems to as follows given by indeed therefore thus hence then clearly just simply "
    "most likely probably definitely option choice letter answer the correct text "
    "ist est es é è la lettre letra opción opção"
)
_VERBS = rf"(?i:\b(?:{_WORDS.replace(' ', '|')})\b|[是为為选選は은는])"
_BUT = r"(?:(?i:not|nicht|no) \W*[A-Za-z]\b[^\w.]*(?i:but|sondern|sino)\b)?"
_CONCLUDED = (
    r"(?i:\b(?:so|therefore|thus|hence|i(?:'d| would)? ?(?:will |'ll )?"
    r"(?:choose|pick|select|say|go with|answer|guess|think it is|think it's|believe it is))\b|选择?|選)"
)
_WRONG = (
    r"(?i:no\b|not\b(?!\W*[a-z]\b)|wrong|incorrect|false|isn't|wasn't|cannot|can't|doesn't|does not|fails"
    r"|(?:is|are|was|would be|seems|can be) (?:not\b|wrong|incorrect|false|excluded|eliminated|ruled out|out\b))"
)
_REJECTED = re.compile(
    r"(?i)(?:\bnot|n't(?: be)?|\bneither|\bnor|rules? out|eliminated?|excluded?|unlike|than)(?: option| choice)?\W*\Z"
)


def letter(reply: str, choices: Sequence[str], texts: Sequence[str] = ()) -> str | None:
    """The letter of `choices` that a reply gives, by the rules above; `texts` are those of the choices, or none."""
    parts = dict.fromkeys((first_answer(reply), reply))  # a reply may repeat the question before it answers
    return next((found for part in parts if (found := _letter(part, choices, texts))), None)


def _letter(reply: str, choices: Sequence[str], texts: Sequence[str]) -> str | None:
    box = numbers.last_box(reply)
    if box is not None and (found := _heading(_plain(box), choices, texts)):
        return found
    text = _plain(reply)
    if found := _heading(text.strip().partition("\n")[0], choices, ()):
        return found
    lettered = _without_texts(text, choices, texts)
    for pattern in _statements(choices):
        told = [each for each in pattern.finditer(lettered) if not _is_word(each, texts)]
        if told:
            return _named(told[-1])
    return _only_one(lettered, choices, texts) or _by_text(text, choices, texts)


def _plain(text: str) -> str:
    """Without Markdown's and LaTeX's marks."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'")
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|boxed|fbox)\s*\{([^{}]*)\}", r"\1", text)
    return re.sub(r"[*`$#]|\b_+|_+\b|\\[()\[\]]", "", text)


def _without_texts(text: str, choices: Sequence[str], texts: Sequence[str]) -> str:
    """`B) four is correct` → `B) is correct`: without the choices' texts behind their letters, where a verb follows."""
    for named, own in zip(choices, texts, strict=False):
        if own.strip():
            verb = r"(?=[\"']? (?:is|are|was|must|would|seems|cannot|can't|isn't|aren't)\b)"
            text = re.sub(rf"\b({named}[).:])[ \"']*(?i:{re.escape(_plain(own).strip())}){verb}", r"\1", text)
    return text


def _heading(line: str, choices: Sequence[str], texts: Sequence[str]) -> str | None:
    """The letter of a line that is one, or one and its choice's text."""
    one = _one(choices)
    headed = r"(?i)\W*(?:(?:final |correct )?(?:answer|option|choice)\W*)?"
    found = re.fullmatch(rf"{headed}({one})\b(?:\W*|[).:,]\s*(.+))", line)
    if not found:
        return None
    named = found[1].upper()
    return named if not found[2] or (texts and _fold(found[2]) == _fold(texts[choices.index(named)])) else None


def _one(choices: Sequence[str]) -> str:
    return f"[A-{choices[-1]}]"


def _statements(choices: Sequence[str]) -> Iterator[re.Pattern[str]]:
    one = _one(choices)
    small = rf"{one.lower()}"
    # not of a name (`Vitamin C's`)
    several = rf"(?:\W{{1,3}}(?:and|or)\W{{1,3}}{one}\b|\W?(?:[,/&]\W?{one})+\W*(?:\n|\Z))"
    alone = rf"{_BEGINS}(?:({one}){_ENDS}|\(?({small})(?=\)|[.,:;]?\s*(?:\n|\Z)))(?!{several})"
    words = rf"(?:[^\w.;?!]|{_VERBS}){{0,40}}+"
    gap = rf"{words}{_BUT}{words}"
    about = r"(?:,? (?i:to|of|for|here|in)\b[^.\n;?!]{0,120}?\b(?i:is|be)\b)?"
    subject = rf"{_BEGINS}(?<!\b[Oo]r )(?<!\b[Aa]nd )(?:({one})|\(({small})\))[^\w\n;?!]*"
    is_ = r"(?i:is|was|must be|would be|seems)\s(?i:(?:indeed|clearly|therefore|thus|probably|most likely) )?"
    yield re.compile(
        rf"{_ANSWER}{about}{gap}{alone}|{subject}{is_}(?i:(?:the|our|my) (?:\w+ ){{0,2}}(?:answer|option|choice|one)\b)"
    )
    yield re.compile(rf"{subject}(?:{is_}(?i:(?:the )?(?:correct|right|best)\b)|(?i:because|since)\b)")
    yield re.compile(rf"{_CONCLUDED}(?:[^\w.;?!\n]|{_VERBS}|(?i:it|that|this)\b){{0,40}}+{alone}")


def _named(found: re.Match[str]) -> str:
    return next(group for group in found.groups() if group).upper()


def _is_word(found: re.Match[str], texts: Sequence[str]) -> bool:
    """Whether the letter is an article or a person: `A dog`, `I think`."""
    name = next(i for i, group in enumerate(found.groups(), 1) if group)
    return found[name] in ("A", "I") and _continues(found.string[found.end(name) :], found[name], texts)


def _continues(rest: str, named: str, texts: Sequence[str]) -> bool:
    verb = r"(?:or|and|is|was|because|since|as|for|but|would|must|cannot|isn't|wasn't|if)\b"
    if not re.match(rf" (?!{verb})[a-z\d]", rest):
        return False
    own = texts[LETTERS.index(named)] if texts and LETTERS.index(named) < len(texts) else ""
    return not (own and _fold(rest).startswith(_fold(own)))


def _only_one(text: str, choices: Sequence[str], texts: Sequence[str]) -> str | None:
    """The one letter that stands at the head of a line, in brackets, or anywhere, and is not called wrong."""
    one = _one(choices)
    for pattern in (
        rf"(?m)^[^\w\n]*(?:\(({one}|{one.lower()})\)|({one})(?=[).:]|\s*$))(?!\W{{0,2}}\s*(?:or|and|,|/)\W)",
        rf"(?i:\b(?:option|choice|letter) |\()({one}|{one.lower()})(?:\)|\b)",
        rf"{_BEGINS}({one}){_ENDS}",
    ):
        found = set()
        for each in re.finditer(pattern, text):
            named = _named(each)
            before, rest = text[: each.start(each.lastindex or 1)][-40:], text[each.end(each.lastindex or 1) :]
            wrong = re.match(rf"[^\w\n.]*{_WRONG}", rest) or _REJECTED.search(before)
            if not wrong and not _is_word(each, texts):
                found.add(named)
        if len(found) == 1:
            return found.pop()
        if found:
            return None
    return None


def _by_text(text: str, choices: Sequence[str], texts: Sequence[str]) -> str | None:
    """The one choice whose text is stated as the answer, else stands anywhere; the one that holds all others."""
    folded = list(map(_fold, texts))
    stated = re.findall(rf"{_ANSWER}(?:[^\w.;?!]|{_VERBS}){{0,40}}([^\n]+)", text)
    for place in (*stated[-1:], text):
        words = f" {_fold(place)} "
        denied = r" (?:not|isn t|nor) (?:(?:a|an|the) )?{} "
        found = [
            i
            for i, each in enumerate(folded)
            if each and f" {each} " in words and not re.search(denied.format(re.escape(each)), words)
        ]
        widest = max(found, key=lambda i: len(folded[i]), default=None)
        if widest is None or folded.count(folded[widest]) > 1:
            continue
        if all(f" {folded[i]} " in f" {folded[widest]} " for i in found):
            return choices[widest]
    return None


def _fold(text: str) -> str:
    """Words and numbers alone, in small letters, without an article before them."""
    words = re.findall(r"-?\d+(?:\.\d+)?|\w+|[^\w\s.,;:!?'\"()]", _plain(text).casefold())
    return " ".join(words[1:] if words[:1] in (["a"], ["an"], ["the"]) and len(words) > 1 else words)
