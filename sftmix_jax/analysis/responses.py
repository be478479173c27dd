"""Stored responses, one after the other, for a person to look at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from etils import epath
from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from sftmix_jax.machine import terminal
from sftmix_jax.workdir import records


def read(folder: epath.Path, only: str = "") -> list[dict[str, Any]]:
    """The rows of a responses.jsonl, worst first; `only` is wrong, right, or words that the question must hold."""
    rows = records.responses(folder / "responses.jsonl")
    if only in ("wrong", "right"):
        best = max((worth(row) for row in rows), default=0.0)
        rows = [row for row in rows if (worth(row) == best and best > 0) == (only == "right")]
    elif only:
        rows = [row for row in rows if only.lower() in " ".join(row["turns"]).lower()]
    return sorted(rows, key=worth)


def worth(row: dict[str, Any]) -> float:
    """The main metric, 0 where there is none."""
    return next((float(value) for value in row["scores"].values() if value is not None), 0.0)


def show(rows: list[dict[str, Any]], console: terminal.Console, title: str) -> None:
    """Page through them with the terminal's pager."""
    os.environ.setdefault("LESS", "-R")  # else less shows colours as their codes
    with console.pager(styles=True, links=False):
        console.print(terminal.text(f"{title}: {len(rows)} responses, worst first\n", "bold"))
        for number, row in enumerate(rows, 1):
            console.print(_panel(row, f"{number}/{len(rows)}  {row['id']}"))


def _panel(row: dict[str, Any], title: str) -> Panel:
    colour = "green" if worth(row) > 0 else "red"
    parts = [part for sample in _samples(row) for part in _conversation(row["turns"], sample)]
    if "extracted" in row:
        parts.append(_line("read as", ", ".join(map(str, row["extracted"])), "cyan"))
    for name in ("answer", "result", "tests", "answers", "solution"):
        if name in row["reference"]:
            parts.append(_line("wanted", str(row["reference"][name]), "cyan"))
    scores = "  ".join(f"{name} {value:g}" for name, value in row["scores"].items() if value is not None)
    for reason in dict.fromkeys(reason for reason in row.get("reasons", []) if reason):
        parts.append(_line("failed", reason, "red"))
    parts.append(_line("verdict", scores or "none", colour))
    return Panel(Group(*parts), title=terminal.text(title), title_align="left", border_style=colour)


def _samples(row: dict[str, Any]) -> list[list[str]]:
    given = row["samples"] if "samples" in row else [row.get("response", [])]
    return [sample if isinstance(sample, list) else [sample] for sample in given] or [[]]


def _conversation(turns: list[str], answers: list[str]) -> Iterator[Text]:
    for i, turn in enumerate(turns):
        yield _line("asked", turn, "dim")
        yield _line("said", answers[i] if i < len(answers) else "(no response)", "")


def _line(name: str, text: str, style: str) -> Text:
    return Text.assemble(terminal.text(f"{name}  ", "bold"), terminal.text(text, style))
