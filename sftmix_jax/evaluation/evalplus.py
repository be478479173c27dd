"""HumanEval+ and MBPP+ in EvalPlus' own files: inputs to run, and what counts as the same result (Liu et al. 2023).

A row: {"task_id": "Mbpp/2", "prompt": "…", "entry_point": "similar_elements", "canonical_solution": "…",
"base_input": [[[3, 4], [5, 4]], …], "plus_input": […], "atol": 0}

The results that are wanted are those of the canonical solution, and a call may take four times its time. Floats are
equal within atol, or 1e-6 where a row has none; some problems have a rule of their own (`_RULES`). JSON has no tuples,
sets or complex numbers: `_KINDS` says which problems' inputs have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

LIMITS = {"seconds": 120, "each": 10, "memory": 4 << 30}  # seconds of all inputs and of one call, bytes

_TESTS = """
import copy
import math
import numpy
import time

inf, nan = float("inf"), float("nan")
_answer = candidate

{canonical}

_wanted = {entry_point}

def _are_floats(x):
    if isinstance(x, (list, tuple)) and x:
        return all(isinstance(item, float) for item in x)
    return isinstance(x, float) or isinstance(x, numpy.ndarray) and x.dtype in (numpy.float64, numpy.float32)

def _check(inputs, atol):
    for given in inputs:
        begin = time.perf_counter()
        exp = _wanted(*copy.deepcopy(given))
        limit_call(max(10, 4 * (time.perf_counter() - begin)))
        out = _answer(*given)
{rule}
        if atol == 0 and _are_floats(exp):
            atol = 1e-6
        if exact or atol == 0:
            assert exact, (out, exp)
        else:
            assert type(out) == type(exp), (out, exp)
            assert not isinstance(exp, (list, tuple)) or len(out) == len(exp), (out, exp)
            assert numpy.allclose(out, exp, rtol=1e-07, atol=atol), (out, exp)

_check({inputs!r}, {atol!r})
"""

_AS_SETS = (
    "similar_elements",
    "find_char_long",
    "common_in_nested_lists",
    "extract_singly",
    "larg_nnum",
    "intersection_array",
    "find_dissimilar",
    "Diff",
)
_AS_FOUND = ("check_str", "text_match_three", "text_starta_endb")
# What else than the canonical solution's result is right, as statements on `given`, `out` and `exp` that set `exact`.
_RULES = {
    **dict.fromkeys(_AS_SETS, "exact = set(out) == set(exp)"),
    # a match of a regular expression or None: only whether there is one counts
    **dict.fromkeys(_AS_FOUND, "exact = (out if isinstance(out, bool) else out is not None) == (exp is not None)"),
    "are_equivalent": "exact = True",
    "sum_div": "exact = out == exp or out == 0",
    # the height may also be that of the pyramid, and not of its sides
    "surface_Area": "b, h = given\nexact = out == exp or "
    "abs(out - round(b * b + 2 * b * math.sqrt((b / 2) ** 2 + h * h))) <= atol",
    "digit_distance_nums": "a, b = map(str, given)\nwide = max(len(a), len(b))\nexact = out == exp or out == "
    "sum(abs(int(x) - int(y)) for x, y in zip(a.zfill(wide), b.zfill(wide)))",
    # any zero of the polynomial
    "find_zero": "assert abs(sum(c * math.pow(out, i) for i, c in enumerate(given[0]))) <= atol, out\ncontinue",
}


def reference(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the scoring of one row needs (code.score)."""
    name, number = row["entry_point"], row["task_id"].rpartition("/")[2]
    kinds = _KINDS.get(int(number)) if row["task_id"].startswith("Mbpp/") and number.isdigit() else None
    given = [*row["base_input"], *row["plus_input"]]
    rule = _RULES.get(name, "exact = out == exp")
    canonical = row["prompt"] + row["canonical_solution"]
    tests = _TESTS.format(
        canonical=canonical,
        entry_point=name,
        atol=row["atol"],
        rule="\n".join(f"        {line}" for line in rule.split("\n")),
        inputs=[kinds(inputs) for inputs in given] if kinds else given,
    )
    return {"entry_point": name, "tests": tests, "canonical": canonical, **LIMITS}


def _at(depth: int) -> Callable[[Any], Any]:
    """Lists that lie this deep are tuples: 1, the arguments themselves; 2, what is in them."""
    if depth == 0:
        return lambda value: tuple(value) if isinstance(value, list) else value
    inner = _at(depth - 1)
    return lambda value: [inner(item) for item in value] if isinstance(value, list) else value


def _each(*kinds: Callable[[Any], Any] | None) -> Callable[[Sequence[Any]], list[Any]]:
    """An argument's kind each, None where it stays as it is; arguments behind these stay too."""

    def convert(inputs: Sequence[Any]) -> list[Any]:
        head = [kind(value) if kind else value for kind, value in zip(kinds, inputs, strict=False)]
        return [*head, *inputs[len(kinds) :]]

    return convert


def _deep(value: Any) -> Any:
    return tuple(_deep(item) for item in value) if isinstance(value, list) else value


_tuples, _inner, _outer = _at(1), _at(2), _at(0)


def _both(value: Any) -> Any:
    return _tuples(_inner(value))


_KINDS: dict[int, Callable[[Sequence[Any]], Any]] = {
    **dict.fromkeys(
        (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
        _tuples,
    ),
    **dict.fromkeys((63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780), _inner),
    **dict.fromkeys((75, 413, 444, 753), _each(_tuples)),
    **dict.fromkeys((106, 750), _each(None, _outer)),
    **dict.fromkeys((250, 307, 405, 446, 617, 720, 763, 808), _each(_outer)),
    **dict.fromkeys((259, 278, 401, 445), _both),
    **dict.fromkeys((580, 615, 791), lambda inputs: [_deep(value) for value in inputs]),
    115: _each(lambda items: [set(item) if isinstance(item, list) and item else {} for item in items]),
    124: _each(float, complex),
    252: _each(complex),
    722: _each(lambda rows: {key: tuple(value) for key, value in rows.items()}),
}
