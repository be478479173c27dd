"""A study's own axes: as it declares them, else the labels that tell its set-ups apart."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from sftmix_jax.analysis.cells import given

Labels = Mapping[str, Any]

_WIDE = 8.0  # largest over smallest value from which on an undeclared axis of positive numbers is logarithmic
_SPECIAL = ("seed", "stage", "experiment")


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis that varies; of several labels where they change together."""

    labels: tuple[str, ...]
    values: tuple[Any, ...]  # in order; each as `at` gives it
    scale: str  # linear, log, or category
    default: Any = None

    @property
    def name(self) -> str:
        return ", ".join(self.labels)

    def at(self, setup: Labels) -> Any:
        """The set-up's value: of one label as it is, of several their words; None where it has none of them."""
        found = [given(setup.items()).get(label) for label in self.labels]
        if len(found) == 1 or all(value is None for value in found):
            return found[0]
        return ", ".join("–" if value is None else str(value) for value in found)

    def place(self, value: Any) -> float:
        """Where a value lies on a numeric axis, else its position in the order."""
        return float(Fraction(value)) if self.scale != "category" else float(self.values.index(value))


def varied(study: Mapping[str, Any], setups: Sequence[Labels]) -> list[Axis]:
    """The axes on which set-ups differ, declared ones first; without any, the one with most values first.

    Beside declared axes, of undeclared labels those are axes that tell set-ups apart which the axes before them do not.
    """
    declared = {axis["name"]: axis for axis in study.get("axes", [])}
    setups = [given(setup.items()) for setup in setups]
    labels = dict.fromkeys([*declared, *(label for setup in setups for label in setup)])
    several = [label for label in labels if label not in _SPECIAL and len(_distinct(setups, [label])) > 1]
    if declared:
        chosen = [label for label in several if label in declared]
        for label in several:
            if label not in declared and len(_distinct(setups, [*chosen, label])) > len(_distinct(setups, chosen)):
                chosen.append(label)
    else:
        chosen = several
    groups: list[list[str]] = []
    for label in chosen:
        if group := next((each for each in groups if _change_together(setups, each[0], label)), None):
            group.append(label)
        else:
            groups.append([label])
    made = [_axis(tuple(group), declared, setups) for group in groups]
    return made if declared else sorted(made, key=lambda axis: -len(axis.values))


def default(axes: Sequence[Axis], setups: Sequence[Labels]) -> int | None:
    """The number of the set-up with the default of every axis that has one; None where not just one has."""
    asked = [axis for axis in axes if axis.default is not None]
    found = [i for i, setup in enumerate(setups) if all(axis.at(setup) == axis.default for axis in asked)]
    return found[0] if asked and len(found) == 1 else None


def in_words(axes: Sequence[Axis], setup: Labels) -> str:
    """`learning_rate 2e-05, rows 4`: the labels that the set-up has on these axes; strategy and source by value."""
    has = given(setup.items())
    return ", ".join(
        str(has[label]) if label in ("strategy", "source") else f"{label} {has[label]}"
        for axis in axes
        for label in axis.labels
        if label in has
    )


def _distinct(setups: Sequence[Labels], labels: Sequence[str]) -> set[str]:
    return {json.dumps([setup.get(label) for label in labels]) for setup in setups}


def _change_together(setups: Sequence[Labels], first: str, second: str) -> bool:
    """Whether each value of one label goes with one value of the other, as where both are varied at once."""
    pairs = len(_distinct(setups, [first, second]))
    return pairs == len(_distinct(setups, [first])) == len(_distinct(setups, [second]))


def _axis(labels: tuple[str, ...], declared: Mapping[str, Any], setups: Sequence[Labels]) -> Axis:
    first = declared.get(labels[0], {})
    bare = Axis(labels, (), "category")
    found = list(dict.fromkeys(value for setup in setups if (value := bare.at(setup)) is not None))
    if len(labels) > 1:  # in the order of the first label
        alone = _axis(labels[:1], declared, setups)
        found.sort(
            key=lambda value: next(
                alone.values.index(alone.at(setup)) if alone.at(setup) is not None else -1
                for setup in setups
                if bare.at(setup) == value
            )
        )
        default = next((bare.at(s) for s in setups if alone.at(s) is not None and alone.at(s) == alone.default), None)
        return Axis(labels, tuple(found), "category", default)
    order = first.get("order", [])
    numeric = all(_number(value) is not None for value in found)
    if order:
        found.sort(key=lambda value: order.index(value) if value in order else len(order))
    elif numeric:
        found.sort(key=_place)
    scale = "category"
    if numeric and found == sorted(found, key=_place):  # another order than that of the numbers is one of names
        scale = first["scale"] if first else "log" if _is_wide(found) else "linear"
        if (scale == "log" and _place(found[0]) <= 0) or (scale == "linear" and any(isinstance(v, str) for v in found)):
            scale = "category"  # fractions such as 1/256 beside 1/4 would lie on one another
    return Axis(labels, tuple(found), scale, first.get("default"))


def _is_wide(values: Sequence[Any]) -> bool:
    places = sorted(map(_place, values))
    return places[0] > 0 and places[-1] / places[0] >= _WIDE


def _place(value: Any) -> float:
    return _number(value) or 0.0


def _number(value: Any) -> float | None:
    """A number, or a fraction as text; None for other labels."""
    try:
        return float(Fraction(value))
    except (ValueError, TypeError, ArithmeticError):
        return None
