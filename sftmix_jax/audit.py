"""Look at an experiment's data before training on it.

python -m sftmix_jax.audit --config dmt.py:7b [--tasks gsm8k,humaneval] [--data task=PATH,…] [--examples 2]
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.experiment import arguments
from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.options import Arguments
from sftmix_jax.machine.ranges import Integer, Items, Location, Text, setting


@dataclasses.dataclass
class Options:
    config: Arguments = dataclasses.field(default=(), metadata=arguments.CONFIG)
    tasks: tuple[str, ...] = setting((), Items(Text()), "benchmarks to look for in the data; by default the config's")
    data: str = setting("", Text(), "PATH, or task=PATH,… instead of the tasks' own data")
    examples: int = setting(1, Integer(at_least=0), "rows to print of each domain, as the model sees them")
    workdir: str = setting("", Location(), "")  # so that a train command becomes an audit by its verb alone


def main(options: Options) -> int:
    from sftmix_jax.evaluation.config import own_data
    from sftmix_jax.experiment import auditing

    config = arguments.read(options.config)
    tasks = options.tasks or config.evaluation.tasks
    data = own_data(options.data, tasks) or config.evaluation.data
    auditing.audit(config, tasks, data, options.examples, terminal.Console())
    return 0


if __name__ == "__main__":
    command.run(main, Options)
