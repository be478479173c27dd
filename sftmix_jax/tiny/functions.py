"""Short Python functions on a list of numbers, described in words: one to four operations in a row.

Difficulty is the number of operations.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from sftmix_jax.tiny.words import NAMES

HARD = 3


class Operation(NamedTuple):
    line: str  # of code, in place; {k} is its number
    wordings: tuple[str, ...]
    takes_number: bool = False


CHANGES = (
    Operation("xs = [x + {k} for x in xs]", ("add {k} to each number", "increase every number by {k}"), True),
    Operation("xs = [x - {k} for x in xs]", ("subtract {k} from each number", "decrease every number by {k}"), True),
    Operation(
        "xs = [x * {k} for x in xs]", ("multiply each number by {k}", "make every number {k} times as big"), True
    ),
    Operation("xs = [x * x for x in xs]", ("square each number", "multiply every number by itself")),
    Operation("xs = [-x for x in xs]", ("negate each number", "flip the sign of every number")),
    Operation("xs = [abs(x) for x in xs]", ("take the absolute value of each number", "drop every sign")),
    Operation("xs = [x for x in xs if x % 2 == 0]", ("keep the even numbers", "remove the odd numbers")),
    Operation("xs = [x for x in xs if x % 2 == 1]", ("keep the odd numbers", "remove the even numbers")),
    Operation("xs = [x for x in xs if x > {k}]", ("keep the numbers above {k}", "keep what is greater than {k}"), True),
    Operation("xs = [x for x in xs if x < {k}]", ("keep the numbers below {k}", "keep what is less than {k}"), True),
    Operation("xs = [x for x in xs if x != {k}]", ("remove every {k}", "drop the numbers equal to {k}"), True),
    Operation("xs = sorted(xs)", ("sort the numbers", "put the numbers in order")),
    Operation("xs = sorted(xs)[::-1]", ("sort the numbers from high to low", "put the largest numbers first")),
    Operation("xs = xs[::-1]", ("reverse the list", "turn the list around")),
    Operation("xs = xs[:{k}]", ("take the first {k} numbers", "keep only the first {k}"), True),
    Operation("xs = xs[{k}:]", ("skip the first {k} numbers", "leave out the first {k}"), True),
)
RETURNS = (
    Operation("return xs", ("return the list", "give back the list")),
    Operation("return sum(xs)", ("return the sum", "give back the total")),
    Operation("return len(xs)", ("return how many there are", "give back the length")),
    Operation("return max(xs, default=0)", ("return the largest, or 0", "give back the maximum or 0")),
    Operation("return min(xs, default=0)", ("return the smallest, or 0", "give back the minimum or 0")),
    Operation("return sum(xs) * {k}", ("return {k} times the sum", "give back the total times {k}"), True),
    Operation("return len(xs) + {k}", ("return the length plus {k}", "give back how many there are plus {k}"), True),
)

_FRAMES = (
    "Write a Python function {f}(xs): {d}.",
    "Define {f}(xs). It should {d}.",
    "I need a function named {f} with a list xs. It must {d}.",
    "Please code {f}(xs), which takes a list of numbers: {d}.",
    "Complete this.\ndef {f}(xs):\n    # {d}",
)
_JOINS = (", then ", ", and then ", "; next, ", ". After that, ")


class Exercise(NamedTuple):
    key: tuple[object, ...]
    description: str
    prompt: str
    solution: str
    name: str
    difficulty: int


def exercise(rng: Random, most: int = 4) -> Exercise:
    """One exercise of at most so many operations, with its solution."""
    count = min(rng.choice((0, 1, 1, 2, 2, 3)), most - 1)
    operations = [*rng.sample(CHANGES, count), rng.choice(RETURNS)]
    name = rng.choice(NAMES)
    key: list[object] = []
    words, lines = [], [f"def {name}(xs):"]
    for operation in operations:
        k = rng.randint(1, 9) if operation.takes_number else 0
        if operation.line.startswith("xs = xs[") and operation.takes_number:
            k = rng.randint(1, 3)
        key += [operation.line, k]
        words.append(rng.choice(operation.wordings).format(k=k))
        lines.append("    " + operation.line.format(k=k))
    description = words[0]
    for word in words[1:]:
        description += rng.choice(_JOINS) + word
    prompt = rng.choice(_FRAMES).format(f=name, d=description)
    return Exercise(tuple(key), description, prompt, "\n".join(lines), name, len(operations))


def hidden_inputs(key: tuple[object, ...]) -> list[list[int]]:
    """The lists that a solution is tried on; the same for the same exercise."""
    rng = Random(repr(key))
    lists = [[rng.randint(-9, 12) for _ in range(rng.randint(3, 8))] for _ in range(5)]
    return [[], [5], *lists]
