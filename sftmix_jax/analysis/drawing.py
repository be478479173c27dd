"""Figures as pictures: SVG and PDF for a paper, PNG for a terminal's user."""

from __future__ import annotations

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from etils import epath

from sftmix_jax.analysis.figures import Figure, Line, Panel
from sftmix_jax.machine import escaping

MARKS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":", "-.", "-", "--")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito: told apart by all eyes
_COLUMNS = 3
_TICK_LETTERS = 45  # that fit under a panel side by side,
_LEGEND_LETTERS, _SAMPLE_LETTERS = 72, 6  # and in its smaller legend


def draw(figure: Figure, file: epath.Path) -> None:
    """Into a file whose suffix says the format."""
    with plt.rc_context({"text.parse_math": False, "svg.hashsalt": "sftmix"}):  # the same numbers give the same file
        file.write_bytes(_drawn(figure.with_text(escaping.visible), file.suffix[1:]))


def _drawn(figure: Figure, kind: str) -> bytes:
    columns = min(_COLUMNS, len(figure.panels))
    rows = -(-len(figure.panels) // columns)
    canvas, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.4 * rows + 0.4), squeeze=False)
    for axis in axes.flat[len(figure.panels) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, figure.panels, strict=False):
        _draw_panel(axis, panel)
    canvas.suptitle(figure.title)
    canvas.tight_layout()
    buffer = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    canvas.savefig(buffer, dpi=130, format=kind, metadata=metadata)
    plt.close(canvas)
    return buffer.getvalue()


def _draw_panel(axis: plt.Axes, panel: Panel) -> None:
    named = [x for line in panel.lines for x in line.x if isinstance(x, str)]
    ticks = list(dict.fromkeys([*panel.ticks, *named]))
    for line in panel.lines:
        _draw_line(axis, line, ticks)
    slanted = sum(map(len, ticks)) > _TICK_LETTERS
    if ticks:
        slant: dict[str, Any] = {"rotation": 45, "ha": "right"} if slanted else {}
        axis.set_xticks(range(len(ticks)), ticks, **slant)
    if panel.log_x:
        axis.set_xscale("log", base=4)
        marked = {x: label for line in panel.lines for x, label in zip(map(float, line.x), line.labels, strict=False)}
        if marked:
            axis.set_xticks(list(marked), list(marked.values()))
            axis.minorticks_off()
    axis.set(title=panel.title, xlabel=panel.x_title, ylabel=panel.y_title)
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    # Below the panel: within it a legend lies on the data of one or another.
    under = (0.5, -0.6 if slanted else -0.22)
    axis.legend(
        frameon=False,
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=under,
        ncols=_legend_columns([line.name for line in panel.lines]),
    )


def _legend_columns(names: list[str]) -> int:
    """As many as stand side by side under a panel; a column is as wide as its longest name and its sample of line."""
    for columns in range(min(_COLUMNS, len(names)), 1, -1):
        rows = -(-len(names) // columns)
        widths = [max(map(len, names[i : i + rows])) + _SAMPLE_LETTERS for i in range(0, len(names), rows)]
        if sum(widths) <= _LEGEND_LETTERS:
            return columns
    return 1


def _draw_line(axis: plt.Axes, line: Line, ticks: list[str]) -> None:
    x = np.array([ticks.index(each) if isinstance(each, str) else each for each in line.x], np.float64)
    style = line.style % len(COLOURS)
    colour, dash = COLOURS[style], DASHES[style]
    if line.band:
        axis.fill_between(x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(x, line.y, linestyle=dash, color=colour, linewidth=1, alpha=0.8, label=line.name)
        return
    mark = "" if line.bare else MARKS[style]
    stroke = dash if line.joined else "None"
    axis.plot(x, line.y, linestyle=stroke, color=colour, marker=mark, label=line.name)
    if line.low:
        y = np.array(line.y)
        errors = np.abs([y - np.array(line.low), np.array(line.high) - y])
        axis.errorbar(x, y, errors, fmt="none", ecolor=colour, capsize=3, linewidth=1)
    if line.labels and not ticks and len({*line.labels}) == len(x) and not line.low:
        for label, each, height in zip(line.labels, x, line.y, strict=True):
            axis.annotate(label, (each, height), textcoords="offset points", xytext=(5, 4), fontsize=8)
