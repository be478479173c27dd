"""Writes the reports of a workdir: of its studies, or of its runs where it has none."""

from __future__ import annotations

import dataclasses
from typing import Any

from etils import epath

from sftmix_jax.analysis import results
from sftmix_jax.analysis.report import files
from sftmix_jax.analysis.table import Table
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.files import read_json


def write(workdir: epath.Path, only: str = "", out: epath.Path | None = None, inline: bool = False) -> list[epath.Path]:
    """Every study's report, or one study's: report/index.html, or report-NAME/ where there are several."""
    studies = results.read_studies(workdir)
    pages = []
    for name, study in ({only: chosen(workdir, only)} if only else studies).items():
        found = files.read(workdir, study, ability_of)
        if found.is_empty:
            raise UserError(f"{workdir}: nothing of the study '{name}' is trained or scored yet; run it first")
        folder = out or workdir / ("report" if len(studies) == 1 else f"report-{name}")
        pages.append(files.write(found, folder, inline))
    return pages


def main_table(page: epath.Path) -> Table | None:
    """The main table of a study's report; None where nothing is scored."""
    record = read_json(page.with_name("report.json"), "write the report again", sections=list)
    parts = (part for section in record["sections"] for part in section["parts"])
    for part in parts:
        if part["kind"] == "table" and part["name"] == "main":
            return Table(*(part[field.name] for field in dataclasses.fields(Table)))
    return None


def chosen(workdir: epath.Path, name: str) -> dict[str, Any]:
    """The record of a study of a workdir; by default its only one, or all experiments as one. Raises UserError."""
    studies = results.read_studies(workdir)
    if name and name not in studies:
        raise UserError(f"{workdir}: has no study '{name}'; {did_you_mean(name, studies)}")
    if not name and len(studies) > 1:
        raise UserError(f"{workdir}: which study? --study {' or '.join(studies)}")
    return studies[name or next(iter(studies))]


def ability_of(task: str) -> str:
    """Of a score that does not say it; tasks are loaded (and jax with them) for such alone."""
    from sftmix_jax.evaluation.task import ability_of

    return ability_of(task)
