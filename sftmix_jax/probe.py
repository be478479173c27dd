"""Look inside an experiment's stages: gradients between domains, and where queries lie. The report shows both.

python -m sftmix_jax.probe --config dmt.py:7b --workdir DIR [--queries 100] [--layer N] [--batches 4]

Of a study's experiments: python -m sftmix_jax.study … --probe 'dmt*-s0'
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.experiment import arguments
from sftmix_jax.machine import command
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.options import Arguments
from sftmix_jax.machine.ranges import Location, setting
from sftmix_jax.probes.settings import ProbeConfig


@dataclasses.dataclass
class Options(ProbeConfig):
    config: Arguments = dataclasses.field(default=(), metadata=arguments.CONFIG)
    workdir: str = setting("", Location(), "the workdir whose stages to probe")


def main(options: Options) -> int:
    from etils import epath

    from sftmix_jax.experiment.probing import probe

    config = arguments.read(options.config)
    if not options.workdir:
        raise UserError("name the workdir whose stages to probe: --workdir DIR")
    probe(config, epath.Path(options.workdir), options)
    return 0


if __name__ == "__main__":
    command.run(main, Options)
