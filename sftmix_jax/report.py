"""Write the report of a workdir's studies, or of its runs: a page, report.json, every figure and table as a file.

python -m sftmix_jax.report --workdir DIR [--study NAME] [--out DIR] [--inline]
"""

from __future__ import annotations

import argparse
import sys

from etils import epath

from sftmix_jax.analysis import results
from sftmix_jax.analysis.report import files
from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.files import check_out


def main() -> int:
    options = _parse()
    workdir = epath.Path(options.workdir)
    if not (workdir / "experiments").is_dir():
        raise UserError(f"{workdir}: no workdir (it has no experiments/); train there first")
    if options.out:
        check_out(epath.Path(options.out))
    for page in write(workdir, options.study, epath.Path(options.out) if options.out else None, options.inline):
        terminal.out(page)
    return 0


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


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sftmix_jax.report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--study", default="", help="only this one; by default all that the workdir holds")
    parser.add_argument("--out", default="", help="where the page goes (default: report/ in the workdir)")
    parser.add_argument("--inline", action="store_true",
                        help="put plotly's script (4.6 MB) into the page, so that it can be sent alone")  # fmt: skip
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    command.run(main)
