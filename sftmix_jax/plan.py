"""What each stage needs of a machine that is not here: does it compile, does it fit, what does it cost?

python -m sftmix_jax.plan --config dmt.py:13b --topology v5p:2x2x4,v5e:16x16
    [--num_slices 2] [--utilisation 0.4] [--search] [--json]

The TPU compiler itself compiles the very steps that training, its validation loss and sampling use (pip install
'sftmix-jax[plan]'); nothing is allocated and no weights or data are needed. --search tries other meshes, parts and
remat policies, the fastest-looking first, until one fits. For GPUs (h100:8) memory is counted
by arithmetic, and devices of this machine's CPU stand in to see what is sent.
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.experiment import arguments
from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.options import Arguments
from sftmix_jax.machine.ranges import Flag, Integer, Items, Location, Text, setting
from sftmix_jax.planning.chips import UTILISATION


@dataclasses.dataclass
class Options:
    config: Arguments = dataclasses.field(default=(), metadata=arguments.CONFIG)
    topology: tuple[str, ...] = setting((), Items(Text()), "machines, such as v5e:4x4,v5p:2x2x2 or h100:8")
    num_slices: int = setting(1, Integer(at_least=1), "slices of each topology")
    utilisation: float = setting(0.4, UTILISATION, "the part of the chips' peak that training reaches")
    search: bool = setting(False, Flag(), "tries meshes, grad_accum_steps and remat policies until one fits")
    json: bool = setting(False, Flag(), "prints the plans as JSON")
    workdir: str = setting("", Location(), "")  # so that a train command becomes a plan by its verb alone


def main(options: Options) -> int:
    from sftmix_jax.machine import identity
    from sftmix_jax.planning import aot, printing
    from sftmix_jax.planning.planner import Planner

    config = arguments.read(options.config)
    if not options.topology:
        raise UserError(f"name the machine: --topology NAME[,NAME] (for example {', '.join(aot.TOPOLOGIES[:6])})")
    topologies = [aot.find_topology(name, options.num_slices) for name in options.topology]
    console, planned = terminal.Console(), []
    for planner in [Planner(topology, options.utilisation) for topology in topologies]:
        mine = planner.plan(planner.search(config) if options.search else config)
        planned += mine
        if not options.json:
            printing.show(config, mine, options.utilisation, console)
    if options.json:
        terminal.out_json([identity.plain(each) for each in planned], indent=1)
    return 0 if all(each.fits for each in planned) else 1


if __name__ == "__main__":
    command.run(main, Options)
