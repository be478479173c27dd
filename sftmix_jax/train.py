"""Train an experiment's stages, one after the other; what is done already is not done again.

python -m sftmix_jax.train --config dmt.py[:NAME=VALUE,…] --workdir DIR [--config.FIELD=VALUE …]
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.experiment import arguments
from sftmix_jax.machine import command, processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.options import Arguments
from sftmix_jax.machine.ranges import Location, setting


@dataclasses.dataclass
class Options:
    config: Arguments = dataclasses.field(default=(), metadata=arguments.CONFIG)
    workdir: str = setting("", Location(), "the folder for stages, metrics and scores; gs:// too")


def main(options: Options) -> int:
    from etils import epath

    from sftmix_jax.analysis import tables
    from sftmix_jax.experiment import measuring, runner
    from sftmix_jax.training.loop import Stopped

    config = arguments.read(options.config)
    if not options.workdir:
        raise UserError("name a folder for stages and results: --workdir DIR")
    workdir = epath.Path(options.workdir)
    try:
        runner.run(config, workdir)
        if config.evaluation.tasks and processes.is_first():
            tables.print_abilities(measuring.comparable_results(workdir, config.name))
    except Stopped as stopped:
        terminal.err("stopped and saved; the same command goes on from here")
        return stopped.code
    return 0


if __name__ == "__main__":
    command.run(main, Options, together=True)
