"""Raw text that the tiny base is pretrained on: the material of the domains, without their instructions.

Sums, Python lines and what they do, word lists in prose; easy stories and functions worked out. No chat template,
no questions, no `solve this`.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from sftmix_jax.tiny import arithmetic, functions
from sftmix_jax.tiny.words import COLOURS, NAMES, PEOPLE, THINGS, WORDS


def document(rng: Random) -> str:
    """One document of a few lines on one subject; most say something of it again, which teaches to look back."""
    subjects = (_sums, _code, _runs, _lists, _positions, _prose, _stories, _changes)
    subject = rng.choices(subjects, (28, 12, 7, 20, 12, 6, 9, 6))[0]
    lines = [subject(rng) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.6:
        lines.append("Again: " + rng.choice(lines))
    return "\n".join(lines)


def lines(rng: Random) -> str:
    """Lists that start a line, where a word has no space before it and so is another token than in prose."""
    document = []
    for _ in range(rng.randint(1, 3)):
        words = rng.sample(WORDS, rng.randint(2, 5))
        name, apply = rng.choice(_LINES)
        document.append(f"The list is {', '.join(words)}. {name}:\n{', '.join(apply(words))}")
    return "\n".join(document)


_LINES: tuple[tuple[str, Callable[[list[str]], list[str]]], ...] = (
    ("Once more", lambda ws: ws),
    ("The list again", lambda ws: ws),
    ("In capitals", lambda ws: [w.upper() for w in ws]),
    ("Backwards", lambda ws: ws[::-1]),
    ("From a to z", sorted),
    ("The first", lambda ws: ws[:1]),
    ("The last", lambda ws: ws[-1:]),
    ("After the first stand", lambda ws: ws[1:]),
    ("Twice each", lambda ws: [w for w in ws for _ in range(2)]),
    ("The letters of the first", lambda ws: list(ws[0])),
    ("The first letters", lambda ws: [w[0] for w in ws]),
)


def worked(rng: Random) -> tuple[tuple[object, ...], str]:
    """A short story worked out in prose, or a function and what it has to do; and what it is about, as a task's key.

    Easy ones alone, and not in the tasks' form: what fine-tuning brings out first when it has few rows.
    """
    if rng.random() < 0.5:
        told = arithmetic.story(rng, rng.choice((1, 1, 2, 2, 3)), 99)
        sums, _ = arithmetic.work(told)
        return arithmetic.key(told), f"{told.text} Worked out: {'; '.join(sums)}."
    exercise = functions.exercise(rng, most=2)
    said = rng.choice(_SAID).format(name=exercise.name, does=exercise.description)
    return exercise.key, f"{said}\n{exercise.solution}"


_SAID = (
    "To {does} you write {name}:",
    "The work of {name}(xs) is to {does}.",
    "{name}(xs) is there to {does}.",
    "A list xs goes into {name} to {does}.",
)


def _sums(rng: Random) -> str:
    """A chain of sums; some end with the number alone after a mark, as written results do."""
    largest = rng.choice((20, 99, 99, 900, 900))
    value = rng.randint(1, largest)
    lines = []
    for _ in range(rng.randint(1, 4)):
        kind = rng.choice("+-+-*")
        if kind == "*" and value > 0:
            n = rng.randint(2, 5)
            result = value * n
        elif kind == "-" and value > 1:
            n = rng.randint(1, value)
            result = value - n
        else:
            kind, n = "+", rng.randint(1, largest)
            result = value + n
        lines.append(f"{value} {kind} {n} = {result}")
        value = result if 0 < result <= 1000 else rng.randint(1, largest)
    if rng.random() < 0.2:
        lines.append(f"#### {lines[-1].split(' = ')[1]}")
    return "\n".join(lines)


def _code(rng: Random) -> str:
    """A function, without a word about what it is for."""
    lines = [f"def {rng.choice(NAMES)}(xs):"]
    for operation in rng.sample(functions.CHANGES, rng.randint(0, 2)):
        lines.append("    " + operation.line.format(k=rng.randint(1, 9)))
    lines.append("    " + rng.choice(functions.RETURNS).line.format(k=rng.randint(1, 9)))
    return "\n".join(lines)


def _runs(rng: Random) -> str:
    """A line of code described in words."""
    operation = rng.choice((*functions.CHANGES, *functions.RETURNS))
    k = rng.randint(1, 9)
    return f"To {rng.choice(operation.wordings).format(k=k)} you write {operation.line.format(k=k)}."


def _lists(rng: Random) -> str:
    words = rng.sample(WORDS, rng.randint(2, 6))
    kind = rng.choice((0, 0, 0, 1, 2, 3, 4, 5))
    listed = ", ".join(words)
    match kind:
        case 0:
            return f"The list is {listed}. The list again: {listed}. Once more: {listed}."
        case 1:
            return f"The list is {listed}. In capitals it is {listed.upper()}."
        case 2:
            return f"The list is {listed}. From a to z it is {', '.join(sorted(words))}."
        case 3:
            return f"The list is {listed}. Backwards it is {', '.join(words[::-1])}."
        case 4:
            return f"The list is {listed}. Twice each it is {', '.join(w for w in words for _ in range(2))}."
        case _:
            return f"The list is {listed}. The first letters are {', '.join(w[0] for w in words)}."


def _positions(rng: Random) -> str:
    words = rng.sample(WORDS, rng.randint(2, 5))
    listed = ", ".join(words)
    word = rng.choice(WORDS)
    match rng.randrange(4):
        case 0:
            return f"In {listed} the first is {words[0]} and the last is {words[-1]}."
        case 1:
            return f"After {words[0]} in {listed} stand {', '.join(words[1:])}."
        case 2:
            return f"The letters of {word} are {', '.join(word)}."
        case _:
            return f"The word {word} in upper case is {word.upper()}."


def _prose(rng: Random) -> str:
    p, q = rng.sample(PEOPLE, 2)
    t, c, w = rng.choice(THINGS), rng.choice(COLOURS), rng.choice(WORDS)
    n, a, b = rng.randint(2, 49), rng.randint(1, 40), rng.randint(1, 40)
    match rng.randrange(6):
        case 0:
            return f"{p} has {n} {t} and {q} has {a} {t}. So {q} has {a} and {p} has {n}."
        case 1:
            return f"{p} gives the {c} {w} to {q}. Now {q} has the {c} {w} of {p}."
        case 2:
            return f"{p} and {q} look at the {w}. It is {c}. The {w} is {c}."
        case 3:
            return f"When the number of {t} doubles, {n} become {2 * n}."
        case 4:
            return f"If {p} loses {a} of {a + b} {t}, {b} {t} are left to {p}."
        case _:
            return f"{p} buys {n} {t}, and {q} buys {a} {t}. {p} counts {n} {t}."


def _stories(rng: Random) -> str:
    """A story of numbers told, and its numbers said again; not what becomes of them."""
    told = arithmetic.story(rng, rng.randint(1, 4), rng.choice((99, 99, 900)))
    numbers = ", ".join(str(n) for n in (told.start, *(change.operand for change in told.changes)))
    return f"{told.text} The numbers are {numbers}."


def _changes(rng: Random) -> str:
    """What single sentences of stories mean."""
    told = arithmetic.story(rng, rng.randint(1, 3), rng.choice((99, 99, 900)))
    change = rng.choice(told.changes)
    return f"{change.sentence} That is {change.sign} {change.operand}."
