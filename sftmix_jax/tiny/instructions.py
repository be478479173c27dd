"""Instructions about words whose fulfilment a rule can check, scored from 1 to 10; a third have two turns.

Difficulty is the number of transformations (over both turns) plus one for a list of four words or more.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import SequenceMatcher
from random import Random
from typing import NamedTuple

from sftmix_jax.tiny.words import WORDS

HARD = 3


class Transformation(NamedTuple):
    name: str
    wordings: tuple[str, ...]  # of the first turn; {w} are the words
    follow_ups: tuple[str, ...]  # asked of the answer before
    apply: Callable[[list[str]], list[str]]


TRANSFORMATIONS = (
    Transformation(
        "repeat",
        ("Repeat these words: {w}.", "Say {w}.", "Please write down {w}."),
        ("Say that again.",),
        lambda ws: ws,
    ),
    Transformation(
        "capitals",
        ("Write in capitals: {w}.", "Put {w} in upper case.", "Shout {w}."),
        ("Now in capitals.", "Again, in upper case."),
        lambda ws: [w.upper() for w in ws],
    ),
    Transformation(
        "reverse",
        ("Say these words backwards, last first: {w}.", "Reverse the order of {w}.", "Turn around the list {w}."),
        ("Now in reverse order.", "Again, last word first."),
        lambda ws: ws[::-1],
    ),
    Transformation(
        "sort",
        ("Sort these words by the alphabet: {w}.", "Put {w} in alphabetical order.", "Order {w} from a to z."),
        ("Now sorted by the alphabet.", "Again, in alphabetical order."),
        lambda ws: sorted(ws, key=str.lower),
    ),
    Transformation(
        "first",
        ("What is the first word of {w}?", "Say only the first of {w}.", "Of {w}, name the first."),
        ("Only the first word, please.", "Now just the first one."),
        lambda ws: ws[:1],
    ),
    Transformation(
        "last",
        ("What is the last word of {w}?", "Say only the last of {w}.", "Of {w}, name the last."),
        ("Only the last word, please.", "Now just the last one."),
        lambda ws: ws[-1:],
    ),
    Transformation(
        "without_first",
        ("Say all but the first word of {w}.", "Leave out the first of {w}.", "Drop the first from {w}."),
        ("Now without the first.", "Again, but leave out the first."),
        lambda ws: ws[1:],
    ),
    Transformation(
        "twice",
        ("Say each of these words twice: {w}.", "Double every word of {w}.", "Write {w}, each one two times."),
        ("Now each word twice.", "Again, every word doubled."),
        lambda ws: [w for w in ws for _ in range(2)],
    ),
    Transformation(
        "spell",
        ("Spell the first word of {w}.", "Give the letters of the first of {w}.", "Take {w}. Spell the first."),
        ("Spell the first word.", "Now spell the first one."),
        lambda ws: list(ws[0]),
    ),
    Transformation(
        "initials",
        ("What are the first letters of {w}?", "Give the initials of {w}.", "Take {w}. Say their first letters."),
        ("Now only the first letters.", "Give the initials of these."),
        lambda ws: [w[0] for w in ws],
    ),
)
_SECOND = ("capitals", "reverse", "sort", "first", "last", "without_first", "twice", "spell", "initials")
_PAIRS = tuple(
    (a, b)
    for a in TRANSFORMATIONS
    for b in TRANSFORMATIONS
    if a.name not in ("first", "last", "spell") and b.name in _SECOND and a.name != b.name
)


class Dialogue(NamedTuple):
    key: tuple[object, ...]
    turns: tuple[tuple[str, str], ...]  # instruction, reference answer
    difficulty: int


def dialogue(rng: Random) -> Dialogue:
    """One conversation with the reference answers."""
    words = rng.sample(WORDS, rng.randint(2, 5))
    first, second = rng.choice(_PAIRS)
    two_turns = rng.random() < 1 / 3
    if not two_turns:
        first = rng.choice(TRANSFORMATIONS)
    answer = first.apply(words)
    listed = ", ".join(words)
    turns = [(rng.choice(first.wordings).format(w=listed), ", ".join(answer))]
    difficulty = 1 + (len(words) >= 4)
    if two_turns:
        turns.append((rng.choice(second.follow_ups), ", ".join(second.apply(answer))))
        difficulty += 1
    return Dialogue((first.name, second.name if two_turns else "", *words), tuple(turns), difficulty)


def rate(reference: str, response: str) -> float:
    """From 1 (nothing right) to 10 (as asked): how much of the reference's words stand in place."""
    wanted, given = reference.split(", "), response.strip().rstrip(".").split(", ")
    if wanted == given:
        return 10.0
    return round(1 + 8 * SequenceMatcher(None, wanted, given, autojunk=False).ratio(), 2)
