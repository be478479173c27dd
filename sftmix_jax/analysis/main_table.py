"""A study's main table: a row per set-up in the order of the axes, a column per axis and score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftmix_jax.analysis import scores
from sftmix_jax.analysis.axes import Axis
from sftmix_jax.analysis.best import Best
from sftmix_jax.analysis.cells import given
from sftmix_jax.analysis.outcomes import Outcome
from sftmix_jax.analysis.table import ABSENT, Table


def make(
    axes: Sequence[Axis],
    setups: Sequence[Mapping[str, Any]],
    outcomes: Sequence[Outcome],
    bests: Sequence[Best],
    default: int | None,
    by: str,
) -> Table:
    """Final scores with 95 % intervals; the note says where a set-up is the best, and which is the default."""
    labels = [(axis, label) for axis in axes for label in axis.labels]
    measured = sorted({i for outcome in outcomes for i in outcome.scores}, key=lambda i: _order(axes, setups[i]))
    rows = []
    for i in measured:
        has = given(setups[i].items())
        row: list[Any] = [_label(axis, has.get(label)) for axis, label in labels]
        row += [scores.cell(outcome.scores.get(i), outcome.best) for outcome in outcomes]
        leading = [best.outcome.name for best in bests if i in best.leaders]
        note = [f"best: {', '.join(leading)}"] if leading else []
        rows.append([*row, "; ".join(note + (["default"] if i == default else []))])
    columns = [*(label for _, label in labels), *(outcome.name for outcome in outcomes), "note"]
    shared = _shared(axes, setups)
    caption = f"Final scores with 95 % intervals; rates in %, {by}." + (f" All set-ups: {shared}." if shared else "")
    return Table("main", "After the last stage", columns, rows, caption).without_empty()


def _order(axes: Sequence[Axis], setup: Mapping[str, Any]) -> tuple[int, ...]:
    found = [(axis, axis.at(setup)) for axis in axes]
    return tuple(-1 if value is None else axis.values.index(value) for axis, value in found)


def _label(axis: Axis, value: Any) -> Any:
    """A label, sorted by its place where it is a number."""
    if value is None:
        return ABSENT
    if len(axis.labels) == 1 and axis.scale != "category":
        return str(value), axis.place(value)
    return value


def _shared(axes: Sequence[Axis], setups: Sequence[Mapping[str, Any]]) -> str:
    """The labels that all set-ups have alike, in words."""
    varied = {label for axis in axes for label in axis.labels}
    first = given(setups[0].items()) if setups else {}
    alike = {
        label: value
        for label, value in first.items()
        if label not in (*varied, "seed", "experiment") and all(setup.get(label) == value for setup in setups)
    }
    return ", ".join(f"{label} {value}" for label, value in alike.items())
