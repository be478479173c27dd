"""Shows what the planner says of an experiment on a topology."""

from __future__ import annotations

from collections.abc import Callable

from rich import box
from rich.table import Table

from sftmix_jax.experiment.config import Experiment
from sftmix_jax.experiment.load_options import Opening
from sftmix_jax.machine import terminal
from sftmix_jax.planning import chips
from sftmix_jax.planning.chips import GIB
from sftmix_jax.planning.collectives import BETWEEN_SLICES
from sftmix_jax.planning.planner import Planned


def show(config: Experiment, mine: list[Planned], utilisation: float, console: terminal.Console) -> None:
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

    line("batch_size × seq_len", lambda p: f"{p.rows} × {p.length}")
    line("rows per accumulation step; remat", lambda p: f"{p.rows // p.grad_accum_steps}; {p.remat}")
    line("parameters: GiB per device", lambda p: _gib(p.parameters))
    line("optimiser", lambda p: _gib(p.optimizer))
    line("gradients, activations, gathered weights", lambda p: _gib(p.temporaries))
    line(f"fits into {first.limit / GIB:.1f} GiB", lambda p: "yes" if p.fits else "NO")
    within = [sum(p.collectives.values()) - p.collectives.get(BETWEEN_SLICES, 0) for p in mine]
    table.add_row("received per device and step, GiB", *(f"{size / GIB:.1f}" for size in within))
    for kind in sorted({kind for p in mine for kind in p.collectives} - {BETWEEN_SLICES}):
        table.add_row(f"  by {kind}", *(f"{each.collectives.get(kind, 0) / GIB:.1f}" for each in mine))
    if any(BETWEEN_SLICES in p.collectives for p in mine):
        line("between slices, GiB per device", lambda p: f"{p.collectives.get(BETWEEN_SLICES, 0) / GIB:.2f}")
    line("arrays gathered to reshard them", lambda p: str(len(p.complaints)))
    for program in first.programs:
        table.add_row(f"{program}: GiB per device", *(f"{each.programs[program] / GIB:.2f}" for each in mine))
    line("slots of the sampler", lambda p: str(p.slots))
    line("GFLOPs per token", lambda p: f"{p.flops_per_token / 1e9:.1f}")
    line("steps", lambda p: f"{p.steps:,}")
    line("tokens", lambda p: f"{p.tokens / 1e6:,.1f}M")
    line("hours", lambda p: f"{p.hours:.2f}")
    line("chip-hours", lambda p: f"{p.chip_hours:,.1f}")
    line("dollars", lambda p: f"{p.dollars:,.0f}")
    console.print(table)
    if first.slots < Opening().slots:
        console.print(f"to sample and evaluate on this machine: --slots={first.slots}")
    for each in mine:
        if not each.fits:
            console.print(
                f"{each.stage} does not fit, with {each.rows // each.grad_accum_steps} rows at a time: {each.message}. "
                "Take more or larger chips, or see what --search finds"
            )
        for complaint in each.complaints:
            console.print(f"{each.stage} gathers a whole array to reshard it: {complaint}")
    chip = chips.find_chip(first.topology.partition(":")[0])
    console.print(
        f"in all {sum(each.chip_hours for each in mine):,.1f} chip-hours, ${sum(each.dollars for each in mine):,.0f}, "
        f"at {utilisation:.0%} of the chips' peak and ${chip.price:.2f} per chip-hour"
        + ("; a GPU's memory by arithmetic" if chip.backend == "gpu" else "")
        + ("; rows and tokens are those that the sources are expected to have" if first.expected else "")
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}" if size else "?"  # what does not compile does not say
