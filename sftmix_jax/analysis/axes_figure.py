"""The figure over a study's own axes: one along x, the others as lines, and as panels where lines would be many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sftmix_jax.analysis.axes import Axis, in_words
from sftmix_jax.analysis.figures import Figure, Line, Panel
from sftmix_jax.analysis.outcomes import Outcome

Setups = Sequence[Mapping[str, Any]]

_LINES = 6  # that a panel can tell apart


def draw(axes: Sequence[Axis], setups: Setups, outcomes: Sequence[Outcome]) -> Figure | None:
    """Final scores with intervals over the first axis; None where nothing varies or fewer than two have a score.

    A panel of a single score compares nothing, and is left to the table.
    A set-up without a value of that axis is a level across the panel.
    """
    if not axes or max((len(outcome.scores) for outcome in outcomes), default=0) < 2:
        return None
    along, others = axes[0], axes[1:]
    panels = [
        _panel(along, others, [(i, setups[i]) for i in group], outcome, name)
        for outcome in outcomes
        for name, group in _groups(along, others, setups, outcome).items()
    ]
    shown = [panel for panel in panels if sum(len(line.x) for line in panel.lines) > 1]
    if not shown:
        return None
    has_levels = any(line.band for panel in shown for line in panel.lines)
    levels = f" A level across a panel is a set-up without {along.name}." if has_levels else ""
    alone = f" {len(panels) - len(shown)} scores that have no other beside them are in the table alone."
    caption = f"After the last stage, with 95 % intervals.{levels}{alone if len(shown) < len(panels) else ''}"
    return Figure("own_axes", f"Final scores over {along.name}", caption, shown)


def _groups(along: Axis, others: Sequence[Axis], setups: Setups, outcome: Outcome) -> dict[str, list[int]]:
    """The set-ups of each panel by its name: split by one axis after another until no panel has too many lines."""
    groups = {"": sorted(outcome.scores)}
    for axis in sorted(others, key=lambda axis: len(axis.values)):
        if max(_count_lines(along, others, setups, group) for group in groups.values()) <= _LINES:
            break
        split: dict[str, list[int]] = {}
        for name, group in groups.items():
            for i in sorted(group, key=lambda i: _rank(axis, setups[i])):
                part = ", ".join(filter(None, (name, in_words([axis], setups[i]))))
                split.setdefault(part, []).append(i)
        groups = split
    return groups


def _count_lines(along: Axis, others: Sequence[Axis], setups: Setups, group: Sequence[int]) -> int:
    return len({in_words(others, setups[i]) for i in group})


def _panel(along: Axis, others: Sequence[Axis], group: Sequence[tuple[int, Any]], outcome: Outcome, name: str) -> Panel:
    ranks = [(tuple(_rank(axis, setup) for axis in others), i, setup) for i, setup in group]
    lines: dict[str, list[tuple[Any, int]]] = {}
    for _, i, setup in sorted(ranks, key=lambda each: each[0]):
        lines.setdefault(in_words(others, setup), []).append((along.at(setup), i))
    drawn = []
    for style, (words, points) in enumerate(lines.items()):
        placed = sorted((point for point in points if point[0] is not None), key=lambda p: along.values.index(p[0]))
        levels = [(value, i) for _, i in points[:1] for value in along.values] if not placed else []
        drawn.append(_line(along, words or outcome.name, placed or levels, outcome, style, is_level=not placed))
    unit = "score, % of the best possible" if outcome.best else "score, less is better"
    title = ": ".join(filter(None, (outcome.name, name)))
    ticks = list(map(str, along.values)) if along.scale == "category" else []
    return Panel(title, drawn, along.name, unit, log_x=along.scale == "log", ticks=ticks)


def _line(
    along: Axis, name: str, points: Sequence[tuple[Any, int]], outcome: Outcome, style: int, is_level: bool
) -> Line:
    scores = [outcome.scores[i] * outcome.scale if outcome.scale != 1 else outcome.scores[i] for _, i in points]
    bounds = [(outcome.scale * outcome.scores[i].low, outcome.scale * outcome.scores[i].high) for _, i in points]
    is_named = along.scale == "category"
    x: list[Any] = [str(value) if is_named else along.place(value) for value, _ in points]
    return Line(
        name,
        x,
        [score.value for score in scores],
        [low for low, _ in bounds],
        [high for _, high in bounds],
        band=is_level,
        style=style,
        labels=[str(value) for value, _ in points] if along.scale == "log" else [],
    )


def _rank(axis: Axis, setup: Mapping[str, Any]) -> int:
    """The place of a set-up in an axis' order; those without a value come first."""
    value = axis.at(setup)
    return -1 if value is None else axis.values.index(value)
