"""The toy domains as rows: training and test splits that cannot overlap.

What is split is what a row is about (numbers and operations, code, words), whatever its wording: a hash
of it decides. So no test row stands in the training data in other words.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from sftmix_jax.machine import specs
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import Flag, Integer
from sftmix_jax.tiny import arithmetic, corpus, functions, instructions

VERSION = 2  # of the generators; raise it when their rows change
_TEST_PART = 8  # one in so many


def _math(rng: Random) -> tuple[tuple[object, ...], dict[str, Any]]:
    p = arithmetic.problem(rng)
    return p.key, {"question": p.question, "answer": p.answer, "result": p.result, "difficulty": p.difficulty}


def _code(rng: Random) -> tuple[tuple[object, ...], dict[str, Any]]:
    e = functions.exercise(rng)
    return e.key, {
        "prompt": e.prompt,
        "completion": e.solution,
        "name": e.name,
        "difficulty": e.difficulty,
        "inputs": functions.hidden_inputs(e.key),
    }


def _general(rng: Random) -> tuple[tuple[object, ...], dict[str, Any]]:
    d = instructions.dialogue(rng)
    messages = []
    for instruction, answer in d.turns:
        messages += [{"role": "user", "content": instruction}, {"role": "assistant", "content": answer}]
    return d.key, {"messages": messages, "difficulty": d.difficulty}


def _corpus(rng: Random) -> tuple[tuple[object, ...], dict[str, Any]]:
    text = corpus.document(rng)
    return (text,), {"text": text}


def _lines(rng: Random) -> tuple[tuple[object, ...], dict[str, Any]]:
    text = corpus.lines(rng)
    return (text,), {"text": text}


def _worked(rng: Random) -> tuple[tuple[object, ...], dict[str, Any]]:
    key, text = corpus.worked(rng)
    return key, {"text": text}


# name → (one row with what it is about, rows of its training split)
DOMAINS: dict[str, tuple[Callable[[Random], tuple[tuple[object, ...], dict[str, Any]]], int]] = {
    "math": (_math, 16_384),
    "code": (_code, 16_384),
    "general": (_general, 16_384),
    "corpus": (_corpus, 220_000),
    "lines": (_lines, 60_000),
    "worked": (_worked, 40_000),
}
# The least difficulty of a domain's hard part.
HARD = {"math": arithmetic.HARD, "code": functions.HARD, "general": instructions.HARD}


def _is_test(key: tuple[object, ...]) -> bool:
    return zlib.crc32(repr(key).encode()) % _TEST_PART == 0


def _rows(domain: str, test: bool, count: int, hard: bool) -> Iterator[dict[str, Any]]:
    if hard and domain not in HARD:
        raise UserError(f"tiny:{domain}: has no hard part; those with one: {', '.join(HARD)}")
    generate, least = DOMAINS[domain][0], HARD[domain] if hard else 0
    rng = Random(f"{domain} {'test' if test else 'train'} {VERSION}")
    seen = set()
    made = 0
    while made < count:
        key, row = generate(rng)
        if _is_test(key) == test and key not in seen and row.get("difficulty", 0) >= least:
            seen.add(key)
            made += 1
            yield row


def train_rows(domain: str, rows: int | None = None, hard: bool = False) -> Iterator[dict[str, Any]]:
    """The first `rows` of a domain's training split, or of its hard part; all of them by default."""
    return _rows(domain, False, rows or DOMAINS[domain][1], hard)


def test_rows(domain: str, rows: int | None = None, hard: bool = False) -> list[dict[str, Any]]:
    """The test split, or its hard part; every row names its difficulty."""
    return list(_rows(domain, True, rows or 512, hard))


_PART: dict[str, specs.Reader] = {"rows": Integer(at_least=1).parse, "hard": Flag().parse}


def read_train(spec: str) -> Iterator[dict[str, Any]]:
    """The training rows of `DOMAIN[,rows=COUNT][,hard=true]`, as behind `tiny:`. Raises UserError."""
    given = specs.read("tiny", spec, {"domain": str, **_PART})
    name = given.get("domain", "")
    if name not in DOMAINS:
        raise UserError(f"no toy domain 'tiny:{name}'; {did_you_mean(name, DOMAINS)}")
    return train_rows(**given)


def read_test(domain: str, path: str) -> list[dict[str, Any]]:
    """The test rows of `tiny:[rows=COUNT][,hard=true]`, such as tiny:200. Raises UserError."""
    return test_rows(domain, **specs.read("tiny", path.removeprefix("tiny:"), _PART))
