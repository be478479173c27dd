"""Does your experiment resume exactly? Kills a shortened copy of it at random moments, and compares.

python -m sftmix_jax.resume_check --config FILE [--config.FIELD=VALUE …] [--kills N]
    [--processes 1,2] [--steps N] [--seed N] [--workdir DIR]

A copy of at most --steps (12) steps per stage is trained without interruption. It is trained again and killed --kills
(6) times with SIGKILL: half of the kills hit a save, the others steps, the borders of stages and the start. With
--processes 1,2 it is also trained by 2 processes on this machine, and each resume changes the process count. The batch
that every step had on the devices, learning rates, losses, gradient norms, ledger, validation losses and params_sha256
must be equal bit for bit. The verdict goes to stdout, fit to be pasted into an issue; what is done meanwhile to stderr.

Runs are kept in --workdir if it is given; else in a temporary folder that is deleted unless there is a difference.
Exit codes: 0 equal, 1 different, 2 bad input.
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.experiment import arguments
from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.options import Arguments
from sftmix_jax.machine.ranges import Integer, Location, Text, setting


@dataclasses.dataclass
class Options:
    config: Arguments = dataclasses.field(default=(), metadata=arguments.CONFIG)
    kills: int = setting(6, Integer(at_least=0, at_most=10_000), "kills in all")
    processes: str = setting("1", Text(), "numbers of processes to train with, such as 1,2")
    steps: int = setting(12, Integer(at_least=1), "steps per stage of the copy, at most")
    seed: int = setting(0, Integer(at_least=0), "of the kills")
    workdir: str = setting("", Location(), "a new folder that keeps the runs; by default a temporary one")


def main(options: Options) -> int:
    import jax

    from sftmix_jax.resuming import checking

    jax.config.update("jax_platforms", "cpu")  # this process computes nothing: the devices are for those that it starts
    config = arguments.read(options.config)
    told, is_equal = checking.check_copy(
        config,
        options.config,
        processes=options.processes,
        kills=options.kills,
        steps=options.steps,
        seed=options.seed,
        workdir=options.workdir,
    )
    terminal.out(told)
    return 0 if is_equal else 1


if __name__ == "__main__":
    command.run(main, Options)
