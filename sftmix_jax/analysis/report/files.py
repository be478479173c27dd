"""A report's files: index.html, report.json, figures/, tables/, results.csv and results.parquet."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from etils import epath

from sftmix_jax.analysis import drawing, results, table
from sftmix_jax.analysis.report import render
from sftmix_jax.analysis.report.run import RunReport
from sftmix_jax.analysis.report.study import StudyReport


def read(workdir: epath.Path, study: dict[str, Any], ability_of: Callable[[str], str] = str) -> StudyReport | RunReport:
    """The report of a study; of experiments that belong to none, which have no question, that of their runs."""
    kind = StudyReport if results.is_declared(study) else RunReport
    return kind(workdir, study, ability_of)


def write(report: StudyReport | RunReport, folder: epath.Path, inline: bool = False) -> epath.Path:
    """Writes everything → the page. `inline` puts plotly's script into it, else it stands beside."""
    for kind in ("figures", "tables"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for figure in report.figures:
        for suffix in ("svg", "pdf"):
            drawing.draw(figure, folder / "figures" / f"{figure.stem}.{suffix}")
    for made in report.tables:
        (folder / "tables" / f"{made.stem}.csv").write_text(table.to_csv(made), encoding="utf-8")
        (folder / "tables" / f"{made.stem}.tex").write_text(table.to_latex(made), encoding="utf-8")
    results.write_tables(report.results, folder)
    record = report.document().record()
    (folder / "report.json").write_text(json.dumps(record, allow_nan=False), encoding="utf-8")
    if not inline:
        (folder / render.SCRIPT).write_text(render.plotly_source(), encoding="utf-8")
    (folder / "index.html").write_text(render.page(record, inline), encoding="utf-8")
    return folder / "index.html"
