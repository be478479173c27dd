"""Scores as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from sftmix_jax.analysis.runs import Score


def print_abilities(scores: Sequence[Score], console: Console | None = None) -> None:
    """Ability × stage, an experiment after the other; each cell with its 95 % interval."""
    console = console or Console()
    for experiment in dict.fromkeys(score.experiment for score in scores):
        mine = [score for score in scores if score.experiment == experiment]
        columns = list(dict.fromkeys((score.task, score.metric) for score in mine))
        table = Table(title=f"{experiment}: ability × stage (95 % interval)")
        table.add_column("stage")
        for task, metric in columns:
            table.add_column(f"{task}\n{metric}", justify="right")
        for position in sorted({score.position for score in mine}):
            row = {(score.task, score.metric): score for score in mine if score.position == position}
            stage = next(score.stage for score in mine if score.position == position)
            table.add_row(stage, *(cell(row[column]) if column in row else "–" for column in columns))
        console.print(table)


def cell(score: Score) -> str:
    """A value with its interval; rates in per cent."""
    if score.high > 1:
        return f"{score.value:.2f}\n{score.low:.2f}–{score.high:.2f}"
    return f"{100 * score.value:.1f} %\n{100 * score.low:.1f}–{100 * score.high:.1f}"


def print_score(record: dict[str, Any], console: Console | None = None) -> None:
    """One task's metrics."""
    console = console or Console()
    table = Table(title=f"{record['task']} on {record['model']}")
    for column in ("metric", "value", "n", "95 % interval"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name, m in record["metrics"].items():
        table.add_row(name, f"{m['value']:.4f}", str(int(m["n"])), f"{m['low']:.4f}–{m['high']:.4f}")
    console.print(table)
    if missing := record.get("missing"):
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        console.print(f"{len(missing)} of {record['questions']} questions have no response and count as wrong: {shown}")
