"""Tables as data: what they hold, and how they are written for a spreadsheet and a paper."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any

from sftmix_jax.machine import escaping

ABSENT = "–"


@dataclasses.dataclass
class Table:
    """Rows of text or numbers; a cell may be (shown, sorted by)."""

    name: str  # of its files
    title: str
    columns: list[str]
    rows: list[list[Any]]
    caption: str = ""

    @property
    def stem(self) -> str:
        """Its files' name without the suffix."""
        return escaping.file_name(self.name)

    def without_empty(self) -> Table:
        """The table without the columns in which no row has anything."""
        kept = [i for i in range(len(self.columns)) if any(shown(row[i]) not in ("", ABSENT) for row in self.rows)]
        return dataclasses.replace(
            self, columns=[self.columns[i] for i in kept], rows=[[row[i] for i in kept] for row in self.rows]
        )


def shown(cell: Any) -> Any:
    """What of a cell is shown."""
    return cell[0] if isinstance(cell, tuple | list) else cell


def to_csv(made: Table) -> str:
    """The table's shown texts as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    for row in (made.columns, *made.rows):
        writer.writerow([escaping.csv(shown(cell)) for cell in row])
    return stream.getvalue()


def to_latex(made: Table) -> str:
    """The table for a paper (booktabs)."""
    head, *lines = (
        " & ".join(escaping.latex(str(shown(cell))) for cell in row) + r" \\" for row in (made.columns, *made.rows)
    )
    return "\n".join(
        [
            r"\begin{tabular}{" + "l" * len(made.columns) + "}",
            r"\toprule",
            head,
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )
