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
    "{p} has {n} {t}.", "{p} starts with {n} {t}.", "At first {p} owns {n} {t}.",
    "There are {n} {t} in the bag of {p}.",
    "{p} counts {n} {t}.", "In the morning {p} has {n} {t}.",
)  # fmt: skip
_GAINS = (
    "{p} buys {n} more.", "Then {q} gives {p} {n} {t}.", "{p} finds {n} {t}.", "Later {p} gets another {n}.",
    "{n} more {t} come in the mail.", "A friend adds {n} {t}.",
)  # fmt: skip
_LOSSES = (
    "{p} loses {n} of them.", "Then {p} gives {n} to {q}.", "{p} sells {n} {t}.", "{n} {t} break.",
    "{q} takes {n} {t} away.", "{p} uses {n} of the {t}.",
)  # fmt: skip
_TIMES = {
    2: ("Then the number doubles.", "{p} gets as many again."),
    3: ("Then the number triples.", "In the end there are three times as many."),
    4: ("Then there are four times as many.",),
    5: ("Then there are five times as many.",),
}
_QUESTIONS = (
    "How many {t} does {p} have now?", "How many {t} are there in the end?", "How many {t} are left?",
    "What is the number of {t} now?", "Count the {t}.", "How many {t} has {p} at the end?",
)  # fmt: skip


def problem(rng: Random) -> Problem:
    """One problem with its worked answer."""
    steps = rng.choice((1, 1, 2, 2, 3, 3, 4, 5))
    largest = 900 if steps >= HARD else 99
    value = rng.randint(2, largest // 2)
    p, q = rng.sample(PEOPLE, 2)
    t = rng.choice(THINGS)
    key: list[object] = [value]
    story = [rng.choice(_OPENINGS).format(p=p, n=value, t=t)]
    work = []
    for _ in range(steps):
        kind = rng.choice("+-+-*")
        if kind == "*" and value * 2 <= largest and value > 1:
            factor = rng.choice([f for f in _TIMES if value * f <= largest])
            story.append(rng.choice(_TIMES[factor]).format(p=p))
            result, work_line = value * factor, f"{value} * {factor} = {value * factor}"
            key += ["*", factor]
        elif kind == "-" and value > 2:
            n = rng.randint(1, value - 1)
            story.append(rng.choice(_LOSSES).format(p=p, q=q, n=n, t=t))
            result, work_line = value - n, f"{value} - {n} = {value - n}"
            key += ["-", n]
        else:
            n = rng.randint(1, max(largest - value, 1))
            story.append(rng.choice(_GAINS).format(p=p, q=q, n=n, t=t))
            result, work_line = value + n, f"{value} + {n} = {value + n}"
            key += ["+", n]
        work.append(work_line)
        value = result
    story.append(rng.choice(_QUESTIONS).format(p=p, t=t))
    answer = "\n".join([*work, f"#### {value}"])
    return Problem(tuple(key), " ".join(story), answer, value, steps)
