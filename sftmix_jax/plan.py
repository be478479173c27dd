"""What each stage needs of a machine that is not here: does it compile, does it fit, what does it cost?

python -m sftmix_jax.plan --config dmt.py:13b --topology v5p:2x2x4,v5e:16x16
    [--num_slices 2] [--utilisation 0.4] [--search] [--json]

The TPU compiler itself compiles the very steps that training, its held-out loss and sampling use (pip install
'sftmix-jax[plan]'); nothing is allocated and no weights or data are needed. --search tries other meshes, parts and
remat policies, the fastest-looking first, until one fits. TPUs only so far.
"""

from __future__ import annotations

import os

# Before jax is imported: it must not look for the chips that it compiles for.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TPU_LOG_DIR", "disabled")
os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5p-8")

import copy
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sftmix_jax import command, experiment, identity, sharding
from sftmix_jax.errors import UserError
from sftmix_jax.experiment import Experiment, Stage
from sftmix_jax.models.llama import Compute, LlamaConfig
from sftmix_jax.opening import Opening
from sftmix_jax.planning import aot, chips, costs, flops, roofline
from sftmix_jax.planning.aot import Compiled, Topology
from sftmix_jax.planning.chips import GIB
from sftmix_jax.planning.costs import StageCost
from sftmix_jax.sharding import MeshConfig

_SAID = ("topology", "num_slices", "utilisation")
_TRIED = 12  # layouts that a search compiles at most


@dataclasses.dataclass(frozen=True)
class Planned:
    """One stage on one topology."""

    topology: str
    chips: int
    stage: str
    mesh: dict[str, int]
    rows: int  # a step
    accumulation: int  # parts that a step is worked through in
    length: int
    fits: bool
    arguments: int  # bytes a device
    temporaries: int
    limit: int
    collectives: dict[str, int]
    flops_per_token: float
    steps: int
    tokens: int
    expected: bool
    hours: float  # at the stated utilisation
    chip_hours: float
    dollars: float
    message: str
    remat: str
    programs: dict[str, int]  # bytes a device of what runs beside training: held-out loss, prefill, decode


def main() -> int:
    as_json, searching = "--json" in sys.argv, "--search" in sys.argv
    rest = [argument for argument in sys.argv[1:] if argument not in ("--json", "--search")]
    config, options = experiment.parse(rest, _SAID)
    if not options["topology"]:
        raise UserError(f"name the machine: --topology NAME[,NAME] (for example {', '.join(aot.TOPOLOGIES[:6])})")
    slices, utilisation = int(options["num_slices"] or 1), float(options["utilisation"] or 0.4)
    planned = []
    for name in options["topology"].split(","):
        topology = aot.find_topology(name, slices)
        chosen = search(config, topology) if searching else config
        planned += plan(chosen, topology, utilisation)
    if as_json:
        print(json.dumps([identity.plain(each) for each in planned], indent=1))
    else:
        _print(config, planned, utilisation, Console())
    return 0 if all(each.fits for each in planned) else 1


def search(config: Experiment, topology: Topology) -> Experiment:
    """The experiment with the fastest-looking mesh, parts and remat policy that fit its largest stage.

    Raises UserError where none of the first few does.
    """
    architecture, longest = (
        costs.architecture(config),
        max(zip(costs.stage_costs(config), config.stages.items(), strict=True), key=lambda pair: pair[0].tokens)[1],
    )
    name, stage = longest
    inside, rows = len(topology.devices) // topology.slices, stage.batch.rows // topology.slices
    length = stage.batch.length or min(architecture.max_length, 2048)
    for choice, estimate in roofline.promising(architecture, topology.chip, inside, rows, length)[:_TRIED]:
        config = copy.deepcopy(config)
        config.mesh = MeshConfig(choice.data, choice.fsdp, choice.tensor)
        config.model.compute.remat = choice.remat
        config.stages[name].batch.accumulation = choice.accumulation
        compute, mesh = config.model.compute.resolved(architecture, "tpu"), aot.make_mesh(topology, config.mesh)
        compiled = _step(architecture, compute, stage, mesh, topology, length, _domains(config), choice.accumulation)
        print(
            f"{topology.name}: {_flags(config, name)}: at best {estimate.seconds:.2f} s a step ({estimate.bound}), "
            f"{compiled.total / GIB:.1f} GiB, {'fits' if compiled.fits else 'does not fit'}",
            file=sys.stderr,
        )
        if compiled.fits:
            return config
    raise UserError(
        f"{topology.name}: nothing that was tried fits stage '{name}' of {config.name}; take more or larger chips"
    )


def _flags(config: Experiment, stage: str) -> str:
    """How a command line asks for this layout."""
    mesh = config.mesh
    return (
        f"--config.mesh.data={mesh.data} --config.mesh.fsdp={mesh.fsdp} --config.mesh.tensor={mesh.tensor} "
        f"--config.model.compute.remat={config.model.compute.remat} "
        f"--config.stages.{stage}.batch.accumulation={config.stages[stage].batch.accumulation}"
    )


def _domains(config: Experiment) -> int:
    return len({domain for stage in config.stages.values() for domain in stage.mixture})


def plan(config: Experiment, topology: Topology, utilisation: float) -> list[Planned]:
    """Every stage on one topology; stages that compile to the same step are compiled once."""
    architecture = costs.architecture(config)
    counted = costs.stage_costs(config)
    domains = _domains(config)
    mesh = aot.make_mesh(topology, config.mesh)
    compute = config.model.compute.resolved(architecture, "tpu")
    known: dict[str, tuple[int, Compiled, Compiled]] = {}
    planned = []
    # Sampling spreads a model over all devices, whatever the training mesh is.
    print(f"{topology.name}: compiling the sampler …", file=sys.stderr)
    sampling = aot.compile_sampler(
        architecture, compute, aot.make_mesh(topology, MeshConfig()), topology, Opening().slots
    )
    for cost, stage in zip(counted, config.stages.values(), strict=True):
        length = stage.batch.length or min(architecture.max_length, 2048)
        key = f"{stage.batch.rows} {stage.batch.accumulation} {length} {stage.optimizer.name} {stage.optimizer.state}"
        if key not in known:
            print(f"{topology.name}: compiling {cost.name} …", file=sys.stderr)
            step = _largest_that_fits(architecture, compute, stage, mesh, topology, length, domains)
            known[key] = *step, aot.compile_evaluation(
                architecture, compute, stage.optimizer, mesh, topology, rows=stage.batch.rows, length=length,
                domains=domains,
            )  # fmt: skip
        accumulation, compiled, held_out = known[key]
        planned.append(_planned(
            topology, mesh, stage, cost, architecture, compute, length, accumulation, compiled,
            {"held-out loss": held_out, **sampling}, utilisation,
        ))  # fmt: skip
    return planned


def _step(
    architecture: LlamaConfig, compute: Compute, stage: Stage, mesh: Any, topology: Topology, length: int, domains: int,
    accumulation: int,
) -> Compiled:  # fmt: skip
    return aot.compile_step(
        architecture, compute, stage.optimizer, mesh, topology, rows=stage.batch.rows, length=length, domains=domains,
        accumulation=accumulation,
    )  # fmt: skip


def _largest_that_fits(
    architecture: LlamaConfig, compute: Compute, stage: Stage, mesh: Any, topology: Topology, length: int, domains: int
) -> tuple[int, Compiled]:
    """The fewest parts of a step's rows that fit → parts, and what the compiler says of them."""
    parts, rows = sharding.batch_parts(mesh), stage.batch.rows
    if rows % parts:
        raise UserError(
            f"batch of {rows} rows cannot be divided among {parts} devices ({topology.name}); set batch.rows to a "
            f"multiple of {parts}, or use tensor parallelism (--config.mesh.tensor)"
        )
    accumulation = stage.batch.accumulation
    while True:
        compiled = _step(architecture, compute, stage, mesh, topology, length, domains, accumulation)
        smaller = accumulation * 2
        if compiled.fits or rows % smaller or (rows // smaller) % parts:
            return accumulation, compiled
        accumulation = smaller


def _planned(
    topology: Topology, mesh: Any, stage: Stage, cost: StageCost, architecture: LlamaConfig, compute: Compute,
    length: int, accumulation: int, compiled: Compiled, programs: dict[str, Compiled], utilisation: float,
) -> Planned:  # fmt: skip
    per_token = flops.training_per_token(architecture, length)
    seconds = cost.tokens * per_token / (topology.chips * topology.chip.flops * utilisation)
    chip_hours = topology.chips * seconds / 3600
    return Planned(
        topology.name + (f" × {topology.slices}" if topology.slices > 1 else ""), topology.chips, cost.name,
        dict(mesh.shape), stage.batch.rows, accumulation, length,
        all(each.fits for each in (compiled, *programs.values())), compiled.arguments,
        compiled.temporaries, compiled.limit, compiled.collectives, per_token, cost.steps, cost.tokens, cost.expected,
        seconds / 3600, chip_hours, chip_hours * topology.chip.price,
        next((f"{name}: {each.message}" for name, each in {"": compiled, **programs}.items() if not each.fits), ""),
        compute.remat, {name: each.total for name, each in programs.items()},
    )  # fmt: skip


def _print(config: Experiment, planned: list[Planned], utilisation: float, console: Console) -> None:
    for name in dict.fromkeys(each.topology for each in planned):
        mine = [each for each in planned if each.topology == name]
        _print_topology(config, name, mine, utilisation, console)


def _print_topology(config: Experiment, name: str, mine: list[Planned], utilisation: float, console: Console) -> None:
    first = mine[0]
    shape = ", ".join(f"{axis} {size}" for axis, size in first.mesh.items() if size > 1) or "one device"
    table = Table(title=f"{config.name} ({config.model.init}) on {name}: {first.chips} chips, {shape}", box=box.SIMPLE,
                  title_justify="left")  # fmt: skip
    table.add_column("")
    for each in mine:
        table.add_column(each.stage, justify="right")

    def line(title: str, show: Callable[[Planned], str]) -> None:
        table.add_row(title, *map(show, mine))

    line("rows a step, tokens a row", lambda p: f"{p.rows} × {p.length}")
    line("in how many parts; remat", lambda p: f"{p.accumulation}; {p.remat}")
    line("parameters, optimiser: GiB a device", lambda p: f"{p.arguments / GIB:.2f}")
    line("gradients, activations, gathered weights", lambda p: f"{p.temporaries / GIB:.2f}")
    line(f"fits into {first.limit / GIB:.1f} GiB", lambda p: "yes" if p.fits else "NO")
    line("sent to a device each step, GiB", lambda p: f"{sum(p.collectives.values()) / GIB:.1f}")
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
                f"{each.stage} does not fit even in {each.accumulation} parts: {each.message or 'too large'}. Take "
                "more or larger chips, or tensor parallelism (--config.mesh.tensor)"
            )
    chip = chips.find_chip(name.partition(":")[0])
    console.print(
        f"in all {sum(each.chip_hours for each in mine):,.1f} chip-hours, ${sum(each.dollars for each in mine):,.0f}, "
        f"at {utilisation:.0%} of the chips' peak and ${chip.price:.2f} a chip-hour"
        + ("; rows and tokens are those that the sources are expected to have" if first.expected else "")
    )


if __name__ == "__main__":
    command.run(main)
