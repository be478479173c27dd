"""Write the report of a workdir's studies: one page that opens anywhere, with every figure and table as a file.

python -m sftmix_jax.report --workdir DIR [--study NAME] [--out DIR]
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Text, setting, within


@dataclasses.dataclass
class Options:
    workdir: str = dataclasses.field(metadata=within(Text(), "the workdir to report on"))
    study: str = setting("", Text(), "only this study; by default all that the workdir holds")
    out: str = setting("", Text(), "where the page goes; by default report/ in the workdir")


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
    for page in reporting.write(workdir, options.study, out):
        terminal.out(page)
    return 0


if __name__ == "__main__":
    command.run(main, Options)
