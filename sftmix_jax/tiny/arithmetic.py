"""Worded arithmetic: a short story of one to five changes to a number, worked step by step.

Difficulty is the number of steps; from four on, numbers reach into the hundreds.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from sftmix_jax.tiny.words import PEOPLE, THINGS

HARD = 4


class Problem(NamedTuple):
    key: tuple[object, ...]  # what must not be in train and test both: the numbers and operations
    question: str
    answer: str
    result: int
    difficulty: int


_OPENINGS = (
    "{p} has {n} {t}.",
    "{p} starts with {n} {t}.",
    "At first {p} owns {n} {t}.",
    "There are {n} {t} in the bag of {p}.",
    "{p} counts {n} {t}.",
    "In the morning {p} has {n} {t}.",
)
_GAINS = (
    "{p} buys {n} more.",
    "Then {q} gives {p} {n} {t}.",
    "{p} finds {n} {t}.",
    "Later {p} gets another {n}.",
    "{n} more {t} come in the mail.",
    "A friend adds {n} {t}.",
)
_LOSSES = (
    "{p} loses {n} of them.",
    "Then {p} gives {n} to {q}.",
    "{p} sells {n} {t}.",
    "{n} {t} break.",
    "{q} takes {n} {t} away.",
    "{p} uses {n} of the {t}.",
)
_TIMES = {
    2: ("Then the number doubles.", "{p} gets as many again."),
    3: ("Then the number triples.", "In the end there are three times as many."),
    4: ("Then there are four times as many.",),
    5: ("Then there are five times as many.",),
}
_QUESTIONS = (
    "How many {t} does {p} have now?",
    "How many {t} are there in the end?",
    "How many {t} are left?",
    "What is the number of {t} now?",
    "Count the {t}.",
    "How many {t} has {p} at the end?",
)


class Change(NamedTuple):
    """One sentence of a story and what it does to the number."""

    sentence: str
    sign: str
    operand: int

    def apply(self, value: int) -> int:
        match self.sign:
            case "+":
                return value + self.operand
            case "-":
                return value - self.operand
            case _:
                return value * self.operand


class Story(NamedTuple):
    opening: str
    start: int
    changes: tuple[Change, ...]
    who: str
    what: str

    @property
    def text(self) -> str:
        return " ".join([self.opening, *(change.sentence for change in self.changes)])


def story(rng: Random, steps: int, largest: int) -> Story:
    """Somebody's number of things and its changes; it stays between 1 and `largest`."""
    p, q = rng.sample(PEOPLE, 2)
    t = rng.choice(THINGS)
    start = value = rng.randint(2, largest // 2)
    opening = rng.choice(_OPENINGS).format(p=p, n=start, t=t)
    changes = []
    for _ in range(steps):
        sign = rng.choice("+-+-*")
        if sign == "*" and value * 2 <= largest and value > 1:
            n = rng.choice([f for f in _TIMES if value * f <= largest])
            wordings = _TIMES[n]
        elif sign == "-" and value > 2:
            n, wordings = rng.randint(1, value - 1), _LOSSES
        else:
            sign, n, wordings = "+", rng.randint(1, max(largest - value, 1)), _GAINS
        changes.append(Change(rng.choice(wordings).format(p=p, q=q, n=n, t=t), sign, n))
        value = changes[-1].apply(value)
    return Story(opening, start, tuple(changes), p, t)


def key(told: Story) -> tuple[object, ...]:
    """What must not be in train and test both: the numbers and operations."""
    return (told.start, *(part for change in told.changes for part in (change.sign, change.operand)))


def work(told: Story) -> tuple[list[str], int]:
    """The sums of a story, one a change, and what they come to."""
    sums, value = [], told.start
    for change in told.changes:
        result = change.apply(value)
        sums.append(f"{value} {change.sign} {change.operand} = {result}")
        value = result
    return sums, value


def problem(rng: Random) -> Problem:
    """One problem with its worked answer."""
    steps = rng.choice((1, 1, 2, 2, 3, 3, 4, 5))
    told = story(rng, steps, 900 if steps >= HARD else 99)
    sums, value = work(told)
    question = f"{told.text} {rng.choice(_QUESTIONS).format(p=told.who, t=told.what)}"
    return Problem(key(told), question, "\n".join([*sums, f"#### {value}"]), value, steps)
