"""Writes the reports of a workdir: of its studies, or of its runs where it has none."""

from __future__ import annotations

from etils import epath

from sftmix_jax.analysis import results
from sftmix_jax.analysis.report import files
from sftmix_jax.machine.errors import UserError, did_you_mean


def write(
    workdir: epath.Path, only: str = "", out: epath.Path | None = None, inline: bool = False
) -> list[epath.Path]:  # fmt: skip
    """Every study's report, or one study's: report/index.html, or report-NAME/ where there are several."""
    studies = results.read_studies(workdir)
    if only and only not in studies:
        raise UserError(f"{workdir}: has no study '{only}'; {did_you_mean(only, studies)}")
    chosen = {only: studies[only]} if only else studies
    pages = []
    for name, study in chosen.items():
        found = files.read(workdir, study, _ability_of)
        if found.is_empty:
            raise UserError(f"{workdir}: nothing of the study '{name}' is trained or scored yet; run it first")
        folder = out or workdir / ("report" if len(studies) == 1 else f"report-{name}")
        pages.append(files.write(found, folder, inline))
    return pages


def _ability_of(task: str) -> str:
    """Of a score that does not say it; tasks are loaded (and jax with them) for such alone."""
    from sftmix_jax.evaluation.task import ability_of

    return ability_of(task)
