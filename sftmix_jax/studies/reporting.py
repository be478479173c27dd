"""Writes the reports of a workdir's studies."""

from __future__ import annotations

from etils import epath

from sftmix_jax.analysis import report, results
from sftmix_jax.machine.errors import UserError, did_you_mean


def write(workdir: epath.Path, only: str = "", out: epath.Path | None = None) -> list[epath.Path]:
    """Every study's report, or one study's: report/index.html, or report-NAME/ where there are several."""
    studies = results.read_studies(workdir)
    if only and only not in studies:
        raise UserError(f"{workdir}: has no study '{only}'; {did_you_mean(only, studies)}")
    chosen = {only: studies[only]} if only else studies
    pages = []
    for name, study in chosen.items():
        if not report.has_results(results.read_results(workdir, study)):
            raise UserError(f"{workdir}: nothing of the study '{name}' is scored yet; run it first")
        folder = out or workdir / ("report" if len(studies) == 1 else f"report-{name}")
        pages.append(report.write(workdir, study, folder, _ability_of))
    return pages


def _ability_of(task: str) -> str:
    """Of a score that does not say it; tasks are loaded (and jax with them) for such alone."""
    from sftmix_jax.evaluation.task import ability_of

    return ability_of(task)
