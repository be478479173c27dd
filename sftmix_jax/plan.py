"""What each stage needs of a machine that is not here: does it compile, does it fit, what does it cost?

python -m sftmix_jax.plan --config dmt.py:13b --topology v5p:2x2x4,v5e:16x16
    [--num_slices 2] [--utilisation 0.4] [--search] [--json]

The TPU compiler itself compiles the very steps that training, its validation loss and sampling use (pip install
'sftmix-jax[plan]'); nothing is allocated and no weights or data are needed. --search tries other meshes, parts and
remat policies, the fastest-looking first, until one fits. For GPUs (h100:8) memory is counted
by arithmetic, and devices of this machine's CPU stand in to see what is sent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich import box
from rich.table import Table

from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment.config import Experiment
from sftmix_jax.machine import command, identity, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Integer, Range, Text
from sftmix_jax.planning import aot, chips
from sftmix_jax.planning.chips import GIB
from sftmix_jax.planning.collectives import BETWEEN_SLICES
from sftmix_jax.planning.planner import UTILISATION, Planned, Planner

_OPTIONS: dict[str, tuple[str | int | float, Range]] = {
    "topology": ("", Text()),
    "num_slices": (1, Integer(at_least=1)),
    "utilisation": (0.4, UTILISATION),
}


def main() -> int:
    as_json, searching = "--json" in sys.argv, "--search" in sys.argv
    rest = [argument for argument in sys.argv[1:] if argument not in ("--json", "--search")]
    config, options = experiment.parse(rest, _OPTIONS)
    if not options["topology"]:
        raise UserError(f"name the machine: --topology NAME[,NAME] (for example {', '.join(aot.TOPOLOGIES[:6])})")
    topologies = [aot.find_topology(name, options["num_slices"]) for name in options["topology"].split(",")]
    planners = [Planner(topology, options["utilisation"]) for topology in topologies]
    console, planned = terminal.Console(), []
    for planner in planners:
        mine = planner.plan(planner.search(config) if searching else config)
        planned += mine
        if not as_json:
            _print(config, mine, options["utilisation"], console)
    if as_json:
        terminal.out_json([identity.plain(each) for each in planned], indent=1)
    return 0 if all(each.fits for each in planned) else 1


def _print(config: Experiment, mine: list[Planned], utilisation: float, console: terminal.Console) -> None:
    """What all stages need of one topology."""
    first = mine[0]
    shape = ", ".join(f"{axis} {size}" for axis, size in first.mesh.items() if size > 1) or "one device"
    title = f"{config.name} ({config.model.init}) on {first.topology}: {first.chips} chips, {shape}"
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    table.add_column("")
    for each in mine:
        table.add_column(each.stage, justify="right")

    def line(title: str, show: Callable[[Planned], str]) -> None:
        table.add_row(title, *map(show, mine))

    line("rows a step, tokens a row", lambda p: f"{p.rows} × {p.length}")
    line("rows at a time; remat", lambda p: f"{p.rows // p.grad_accum_steps}; {p.remat}")
    line("parameters: GiB a device", lambda p: _gib(p.parameters))
    line("optimiser", lambda p: _gib(p.optimizer))
    line("gradients, activations, gathered weights", lambda p: _gib(p.temporaries))
    line(f"fits into {first.limit / GIB:.1f} GiB", lambda p: "yes" if p.fits else "NO")
    within = [sum(p.collectives.values()) - p.collectives.get(BETWEEN_SLICES, 0) for p in mine]
    table.add_row("sent to a device each step, GiB", *(f"{size / GIB:.1f}" for size in within))
    for kind in sorted({kind for p in mine for kind in p.collectives} - {BETWEEN_SLICES}):
        table.add_row(f"  by {kind}", *(f"{each.collectives.get(kind, 0) / GIB:.1f}" for each in mine))
    if any(BETWEEN_SLICES in p.collectives for p in mine):
        line("between slices, GiB a device", lambda p: f"{p.collectives.get(BETWEEN_SLICES, 0) / GIB:.2f}")
    line("arrays made whole to reshard them", lambda p: str(len(p.complaints)))
    for program in first.programs:
        table.add_row(f"{program}: GiB a device", *(f"{each.programs[program] / GIB:.2f}" for each in mine))
    line("GFLOPs a token", lambda p: f"{p.flops_per_token / 1e9:.1f}")
    line("steps", lambda p: f"{p.steps:,}")
    line("tokens", lambda p: f"{p.tokens / 1e6:,.1f}M")
    line("hours", lambda p: f"{p.hours:.2f}")
    line("chip-hours", lambda p: f"{p.chip_hours:,.1f}")
    line("dollars", lambda p: f"{p.dollars:,.0f}")
    console.print(table)
    for each in mine:
        if not each.fits:
            console.print(
                f"{each.stage} does not fit, with {each.rows // each.grad_accum_steps} rows at a time: {each.message}. "
                "Take more or larger chips, or see what --search finds"
            )
        for complaint in each.complaints:
            console.print(f"{each.stage} makes whole, to reshard it: {complaint}")
    chip = chips.find_chip(first.topology.partition(":")[0])
    console.print(
        f"in all {sum(each.chip_hours for each in mine):,.1f} chip-hours, ${sum(each.dollars for each in mine):,.0f}, "
        f"at {utilisation:.0%} of the chips' peak and ${chip.price:.2f} a chip-hour"
        + ("; a GPU's memory by arithmetic" if chip.backend == "gpu" else "")
        + ("; rows and tokens are those that the sources are expected to have" if first.expected else "")
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}" if size else "?"  # what does not compile does not say


if __name__ == "__main__":
    command.run(main)
