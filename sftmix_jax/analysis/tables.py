"""Results as tables in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.measure import Measurement
from rich.table import Table

from sftmix_jax.analysis.assumptions import LEVEL
from sftmix_jax.analysis.results import Result
from sftmix_jax.analysis.table import Table as Made
from sftmix_jax.analysis.table import shown
from sftmix_jax.machine import terminal


def print_abilities(scores: Sequence[Result], console: terminal.Console | None = None) -> None:
    """Ability × stage, an experiment after the other: first each task's main metric, then the others."""
    console = console or terminal.Console()
    for experiment in dict.fromkeys(score.experiment for score in scores):
        mine = [score for score in scores if score.experiment == experiment]
        for title, scores_, intervals in (
            (f"{experiment}: ability × stage (95 % interval)", [s for s in mine if s.primary], True),
            (f"{experiment}: other metrics", [s for s in mine if not s.primary], False),
        ):
            for table in _tables(title, scores_, intervals, console):
                console.print(table)


def _tables(title: str, scores: Sequence[Result], intervals: bool, console: terminal.Console) -> Iterator[Table]:
    """One table, or as many as it takes for every column to stand whole in the console's width."""
    columns = list(dict.fromkeys((score.task, score.metric) for score in scores))
    endless = console.options.update(width=1 << 20)
    while columns:
        many = len(columns)
        while (
            many > 1
            and Measurement.get(console, endless, _table("", scores, columns[:many], intervals)).maximum > console.width
        ):
            many -= 1
        yield _table(title, scores, columns[:many], intervals)
        columns = columns[many:]


def _table(title: str, scores: Sequence[Result], columns: Sequence[tuple[str, str]], intervals: bool) -> Table:
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    table.add_column("stage")
    for task, metric in columns:
        table.add_column(f"{task}\n{metric}", justify="right")
    for position in sorted({score.position for score in scores}):
        row = {(score.task, score.metric): score for score in scores if score.position == position}
        stage = next(score.stage for score in scores if score.position == position)
        table.add_row(stage, *(cell(row[column], intervals) if column in row else "–" for column in columns))
    return table


def cell(score: Result, interval: bool) -> str:
    """A value, with its interval if asked for and known; rates in per cent, ratings as they are."""
    scale, digits, _ = _form(score.best)
    text = value(score.value, score.best)
    if not interval or score.low is None or score.high is None:
        return text
    return f"{text} ({scale * score.low:.{digits}f}–{scale * score.high:.{digits}f})"


def value(score: float, best: float) -> str:
    """A value alone."""
    scale, digits, unit = _form(best)
    return f"{scale * score:.{digits}f}{unit}"


def _form(best: float) -> tuple[int, int, str]:
    """What a value is multiplied with, its decimals and its unit."""
    return (100, 1, "%") if best == 1 else (1, 2, "")


def print_made(made: Made, console: terminal.Console | None = None) -> None:
    """A table of a report."""
    console = console or terminal.Console()
    table = Table(title=made.title, box=box.SIMPLE, title_justify="left", padding=(0, 1, 0, 0))
    for column in made.columns:
        table.add_column(column, overflow="fold")
    for row in made.rows:
        table.add_row(*(str(shown(cell)) for cell in row))
    console.print(table)
    console.print(made.caption, style="dim")


def print_score(record: dict[str, Any], console: terminal.Console | None = None) -> None:
    """One task's metrics."""
    console = console or terminal.Console()
    table = Table(title=f"{record['task']} on {record['model']}")
    for column in ("metric", "value", "n", "95 % interval"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    few = _few(list(record["metrics"]))
    for name, m in record["metrics"].items():
        if name not in few:
            continue
        if m["n"]:
            interval = "–" if m["low"] is None else f"{m['low']:.4f}–{m['high']:.4f}"
            table.add_row(name, f"{m['value']:.4f}", str(m["n"]), interval)
        else:
            table.add_row(name, "–", "0", "–")
    console.print(table)
    print_failures(record, console)
    if missing := record.get("missing"):
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        counted = "judgment and count as nothing" if "stored_judgments" in record else "response and count as wrong"
        console.print(f"{len(missing)} of {record['questions']} questions have no {counted}: {shown}")
    if empty := record.get("empty"):
        shown = ", ".join(empty[:5]) + (" …" if len(empty) > 5 else "")
        console.print(f"{len(empty)} of {record['questions']} questions have an empty response: {shown}")
    if "judgments" in record:
        _print_judgments(record, console)
    if "stored_judgments" in record:
        _print_stored(record, console)


def _few(names: list[str]) -> list[str]:
    """Of many pass@k those that papers give, and the last; score.json has them all."""
    many = [name for name in names if name.startswith("pass@")]
    shown = {"pass@1", "pass@5", "pass@10", "pass@25", "pass@50", "pass@100", *many[-1:]}
    return [name for name in names if len(many) <= 10 or name not in many or name in shown]


def print_failures(record: dict[str, Any], console: terminal.Console | None = None) -> None:
    """One line: why samples failed, where the task says it; a warning where that looks like a fault of the set-up."""
    console = console or terminal.Console()
    if counts := record.get("failures"):
        told = ", ".join(f"{kind} {number}" for kind, number in counts.items())
        line = f"{record['task']} on {record['model']}, why samples failed: {told}"
        console.print(line, soft_wrap=True)
        if record["warning"]:
            console.print(f"warning: {record['warning']}", style="yellow", soft_wrap=True)


def _print_stored(record: dict[str, Any], console: terminal.Console) -> None:
    """Where judgments that were read again do not say what their file says."""
    console.print(f"{record['stored_judgments']} stored judgments by {record['fixed_by']['judge']['id']}")
    if record.get("one_order"):
        console.print(f"{record['one_order']} turns were judged in one order of the answers alone, which decides there")
    told = {
        "whose reply holds no rating, which count as nothing": "unparsed",
        "whose reply holds another rating than the file": "differing",
    }
    for words, key in told.items():
        if record[key]:
            console.print(f"{len(record[key])} {words}: {', '.join(record[key][:5])}")


def _print_judgments(record: dict[str, Any], console: terminal.Console) -> None:
    """What stands behind a judge's rating, and what does not."""
    console.print(
        f"{record['judgments']} judgments by {record['fixed_by']['judge']['id']}, {record['judgments_known_before']} "
        f"known before; this run's {record['judge_input_tokens']:,} tokens in, {record['judge_output_tokens']:,} out, "
        f"${record['judge_dollars']:.2f}"
    )
    for name, where in (("without a rating", record["unparsed"]), ("without a reply", list(record["failed"]))):
        if where:
            console.print(f"{len(where)} {name}, which count as nothing: {', '.join(where[:5])}")
    for reason in dict.fromkeys(record["failed"].values()):
        console.print(f"  {reason}", style="dim")
    for flag, where in record["flags"].items():
        if where:
            console.print(f"{len(where)} answers flagged ({flag}): {', '.join(where[:5])}")


def print_contamination(found: dict[str, Any]) -> None:
    """Questions that stand in the training data, on stderr."""
    console = terminal.Console(stderr=True)
    for task, record in found.items():
        told = ", ".join(f"{len(ids)} in {domain}" for domain, ids in record["questions"].items())
        console.print(f"{task}: of {record['of']} questions 13 words in a row stand {told}")


def print_differences(
    task: str, first: str, second: str, differences: Sequence[Any], console: terminal.Console | None = None
) -> None:
    """Two models on the same questions; `differences` are evaluation.compare's."""
    table = Table(title=f"{task}: {second} minus {first}, same questions", box=box.SIMPLE, title_justify="left")
    for column in ("metric", "n", "first", "second", "difference", "95 % interval", "p"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for d in differences:
        is_known = math.isfinite(d.p)  # without two different pairs there is no interval
        interval = f"{d.low:+.3f} – {d.high:+.3f}" if is_known else "–"
        row = (d.metric, str(d.n), f"{d.first:.3f}", f"{d.second:.3f}", f"{d.second - d.first:+.3f}", interval)
        table.add_row(*row, f"{d.p:.2g}" if is_known else "–")
    split = [d.metric for d in differences if (d.low > 0 or d.high < 0) != (d.p < LEVEL) and math.isfinite(d.p)]
    border = f"{', '.join(split)}: the interval and p disagree about 0, as two methods may at the border.\n"
    recipes = "Two checkpoints: whether a recipe is better than another, several seeds of each can tell (study)."
    table.caption = border * bool(split) + recipes
    table.caption_justify = "left"
    (console or terminal.Console()).print(table)
