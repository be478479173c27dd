"""Write the report of a workdir's studies, or of its runs: a page, report.json, every figure and table as a file.

python -m sftmix_jax.report --workdir DIR [--study NAME] [--out DIR] [--inline]
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Flag, Text, setting, within


@dataclasses.dataclass
class Options:
    workdir: str = dataclasses.field(metadata=within(Text(), "the workdir to report on"))
    study: str = setting("", Text(), "only this study; by default all that the workdir holds")
    out: str = setting("", Text(), "where the page goes; by default report/ in the workdir")
    inline: bool = setting(False, Flag(), "put plotly's script (4.6 MB) into the page, so that it can be sent alone")


def main(options: Options) -> int:
    from etils import epath

    from sftmix_jax.machine.files import check_out
    from sftmix_jax.studies import reporting

    workdir = epath.Path(options.workdir)
    if not (workdir / "experiments").is_dir():
        raise UserError(f"{workdir}: no workdir (it has no experiments/); train there first")
    out = epath.Path(options.out) if options.out else None
    if out:
        check_out(out)
    for page in reporting.write(workdir, options.study, out, options.inline):
        terminal.out(page)
    return 0


if __name__ == "__main__":
    command.run(main, Options)
