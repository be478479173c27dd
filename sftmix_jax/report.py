"""Write the report of a workdir's studies, or of its runs: a page, report.json, every figure and table as a file.

python -m sftmix_jax.report --workdir DIR [--study NAME] [--out DIR] [--inline]
python -m sftmix_jax.report --workdir DIR --serve [PORT]                the page, live, while stages train
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Flag, Integer, Items, Location, Text, setting, within

_HOST = Text(r"\*|(\*\.)?[A-Za-z0-9.-]+", "must be the name of a host, without a port")


@dataclasses.dataclass
class Options:
    workdir: str = dataclasses.field(metadata=within(Location(), "the workdir to report on"))
    study: str = setting("", Text(), "only this study; by default all that the workdir holds")
    out: str = setting("", Location(), "where the page goes; by default report/ in the workdir")
    serve: int | None = dataclasses.field(
        default=None,
        metadata=within(
            Integer(at_least=0, at_most=65_535), "serve the live page on this port, by default 8000; 0: a free port"
        )
        | {"alone": 8000},
    )
    address: str = setting("127.0.0.1", Text(), "with --serve: the address to listen on; by default this machine alone")
    hosts: tuple[str, ...] = setting(
        (), Items(_HOST), "with --serve: further names by which browsers may ask for it; *: any"
    )
    inline: bool = setting(False, Flag(), "put plotly's script (4.6 MB) into the page, so that it can be sent alone")


def main(options: Options) -> int:
    from etils import epath

    from sftmix_jax.machine.files import check_out
    from sftmix_jax.studies import reporting, serving

    workdir = epath.Path(options.workdir)
    written, served = ("out", "inline"), ("address", "hosts")
    for name in written if options.serve is not None else served:
        if getattr(options, name) != getattr(Options, name):
            why = "writes no file" if name in written else "is not given"
            raise UserError(f"--{name} has no effect: --serve {why}")
    if options.serve is not None:
        serving.serve(workdir, options.study, options.address, options.serve, options.hosts)
        return 0
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
