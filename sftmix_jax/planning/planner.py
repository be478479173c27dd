"""A stage on a machine that is not here: whether its programs fit, in how many parts, and what they cost."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

from jax.sharding import Mesh

from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment import tuning
from sftmix_jax.experiment.config import Experiment, Stage
from sftmix_jax.experiment.opening import Opening
from sftmix_jax.experiment.tuning import Tuning
from sftmix_jax.machine import terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.compute import Compute
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.planning import aot, costs, roofline
from sftmix_jax.planning.aot import Compiled, Topology
from sftmix_jax.planning.chips import GIB
from sftmix_jax.planning.compiler import Compiler
from sftmix_jax.planning.costs import StageCost

_TRIED = 12  # layouts that a search compiles at most


@dataclasses.dataclass(frozen=True)
class Planned:
    """One stage on one topology."""

    topology: str
    chips: int
    stage: str
    mesh: dict[str, int]
    rows: int  # a step
    grad_accum_steps: int  # parts that a step is worked through in
    length: int
    remat: str
    fits: bool
    parameters: int  # bytes per device
    optimizer: int  # and the batch
    temporaries: int  # gradients, activations, gathered weights
    limit: int
    collectives: dict[str, int]
    programs: dict[str, int]  # bytes per device of what runs beside training: validation loss, prefill, decode
    slots: int  # of the sampler
    flops_per_token: float
    steps: int
    tokens: int
    expected: bool
    hours: float  # at the stated utilisation
    chip_hours: float
    dollars: float
    message: str  # of what does not fit
    complaints: list[str]  # the compiler's, of arrays that it gathers on their way from one sharding to another


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What all stages of an experiment share on a topology."""

    architecture: Architecture
    tuning: Tuning
    compute: Compute
    mesh: Mesh
    domains: int

    @property
    def layout(self) -> MeshConfig:
        """The mesh by its sizes, as another process can make it."""
        return MeshConfig(**self.mesh.shape)


class Planner:
    """Plans experiments on one topology; what compiles to the same program is compiled once."""

    def __init__(self, topology: Topology, utilisation: float = 0.4):
        if not 0 < utilisation <= 1:
            raise UserError(f"--utilisation {utilisation}: which part of the chips' peak, above 0 and at most 1")
        self.topology, self.utilisation = topology, utilisation
        self._compiler = Compiler(topology)
        self._known: dict[Hashable, Compiled] = {}

    def plan(self, config: Experiment) -> list[Planned]:
        """Every stage of an experiment. Raises UserError for a batch that the mesh cannot divide."""
        setting = self._setting(config)
        planned = []
        for cost, stage in zip(costs.stage_costs(config), config.stages.values(), strict=True):
            grad_accum_steps, compiled = self._largest_that_fits(setting, stage)
            slots, sampling = self._sampler(setting, fewest=1 if compiled.fits else Opening().slots)
            programs = {"validation loss": self._validation(setting, stage, grad_accum_steps), **sampling}
            planned.append(self._planned(setting, stage, cost, grad_accum_steps, compiled, programs, slots))
        return planned

    def search(self, config: Experiment) -> Experiment:
        """The experiment with the fastest-looking mesh, parts and remat policy that fit its largest stage.

        Raises UserError where none of the first few does.
        """
        every = zip(costs.stage_costs(config), config.stages.items(), strict=True)
        name, stage = max(every, key=lambda pair: pair[0].tokens)[1]
        topology, architecture = self.topology, costs.architecture(config)
        devices, rows = len(topology.devices) // topology.slices, stage.batch.batch_size // topology.slices
        length = stage.batch.resolved(architecture.max_length).seq_len
        how = tuning.of_config(config.model, architecture)
        looked_at = [
            each
            for each in roofline.promising(how, topology.chip, devices, rows, length)
            if self._divides_all(config, each[0])  # one mesh serves all stages, and another may have fewer rows
        ]
        for choice, estimate in looked_at[:_TRIED]:
            config = copy.deepcopy(config)
            config.mesh = MeshConfig(choice.data * topology.slices, choice.fsdp, choice.tensor)
            config.model.compute.remat = choice.remat
            config.stages[name].batch.grad_accum_steps = choice.grad_accum_steps
            try:
                setting = self._setting(config)
            except UserError as error:
                self._say(f"{_flags(config, name)}: {error}")
                continue
            compiled = self._step(setting, config.stages[name], choice.grad_accum_steps)
            verdict = "fits" if compiled.fits else compiled.message or "does not fit"
            self._say(
                f"{_flags(config, name)}: at best {estimate.seconds:.2f} s a step ({estimate.bound}), "
                f"{compiled.total / GIB:.1f} GiB, {verdict}"
            )
            if compiled.fits:
                return config
        raise UserError(
            f"{topology.name}: nothing that was tried fits stage '{name}' of {config.name}; take more or larger chips"
        )

    def _divides_all(self, config: Experiment, choice: roofline.Choice) -> bool:
        parts = choice.data * self.topology.slices * choice.fsdp
        batches = (stage.batch for stage in config.stages.values())
        return all(batch.batch_size % (parts * batch.grad_accum_steps) == 0 for batch in batches)

    def _setting(self, config: Experiment) -> _Setting:
        architecture = costs.architecture(config)
        domains = {domain for stage in config.stages.values() for domain in stage.mixture}
        compute = config.model.compute.resolved(architecture, self.topology.chip.backend)
        mesh = experiment.make_mesh(config, architecture, self.topology.devices)
        how = tuning.of_config(config.model, architecture)
        return _Setting(architecture, how, compute, mesh, len(domains))

    def _largest_that_fits(self, setting: _Setting, stage: Stage) -> tuple[int, Compiled]:
        """The fewest parts of a step's rows that fit → parts, and what the compiler says of them."""
        parts, rows = sharding.batch_parts(setting.mesh), stage.batch.batch_size
        grad_accum_steps = stage.batch.grad_accum_steps
        while True:
            compiled = self._step(setting, stage, grad_accum_steps)
            smaller = grad_accum_steps * 2
            if compiled.fits or rows % smaller or (rows // smaller) % parts:
                return grad_accum_steps, compiled
            grad_accum_steps = smaller

    def _step(self, setting: _Setting, stage: Stage, grad_accum_steps: int) -> Compiled:
        s, rows, length = setting, stage.batch.batch_size, stage.batch.resolved(setting.architecture.max_length).seq_len
        parts = f" in {grad_accum_steps} parts" if grad_accum_steps > 1 else ""
        return self._once(
            f"a step of {rows} × {length}{parts}",
            aot.compile_step,
            s.tuning,
            s.compute,
            stage.optimizer,
            s.layout,
            rows=rows,
            length=length,
            domains=s.domains,
            grad_accum_steps=grad_accum_steps,
        )

    def _validation(self, setting: _Setting, stage: Stage, grad_accum_steps: int) -> Compiled:
        s, rows, length = setting, stage.batch.batch_size, stage.batch.resolved(setting.architecture.max_length).seq_len
        return self._once(
            "its validation loss",
            aot.compile_evaluation,
            s.tuning,
            s.compute,
            stage.optimizer,
            s.layout,
            rows=rows,
            length=length,
            domains=s.domains,
            grad_accum_steps=grad_accum_steps,
        )

    def _sampler(self, setting: _Setting, *, fewest: int) -> tuple[int, dict[str, Compiled]]:
        """The most slots that fit, from the sampler's default down to `fewest`, and what it runs with them."""
        s, slots = setting, Opening().slots
        while True:
            programs = {
                name: self._once(f"{name} of {slots} slots", program, s.architecture, s.compute, slots=slots)
                for name, program in (("prefill", aot.compile_prefill), ("decode", aot.compile_decode))
            }
            if slots == fewest or all(program.fits for program in programs.values()):
                return slots, programs
            slots //= 2

    def _once(self, what: str, program: Callable[..., Compiled], *arguments: Any, **named: Any) -> Compiled:
        key = (program, repr(arguments), repr(named))
        if key not in self._known:
            self._say(f"compiling {what} …")
            self._known[key] = self._compiler(program, *arguments, **named)
        return self._known[key]

    def _say(self, message: str) -> None:
        terminal.err(f"{self.topology.name}: {message}")

    def _planned(
        self,
        setting: _Setting,
        stage: Stage,
        cost: StageCost,
        grad_accum_steps: int,
        compiled: Compiled,
        programs: dict[str, Compiled],
        slots: int,
    ) -> Planned:
        topology, length = self.topology, stage.batch.resolved(setting.architecture.max_length).seq_len
        per_token = costs.operations_per_token(setting.tuning, length)
        seconds = cost.tokens * per_token / (topology.chips * topology.chip.flops * self.utilisation)
        chip_hours = topology.chips * seconds / 3600
        every = {"a step": compiled, **programs}
        too_large = {name: each for name, each in every.items() if not each.fits}
        return Planned(
            topology=topology.name + (f" × {topology.slices}" if topology.slices > 1 else ""),
            chips=topology.chips,
            stage=cost.name,
            mesh=dict(setting.mesh.shape),
            rows=stage.batch.batch_size,
            grad_accum_steps=grad_accum_steps,
            length=length,
            remat=setting.compute.remat,
            fits=not too_large,
            parameters=compiled.parameters,
            optimizer=compiled.arguments - compiled.parameters,
            temporaries=compiled.temporaries,
            limit=compiled.limit,
            collectives=compiled.collectives,
            programs={name: each.total for name, each in programs.items()},
            slots=slots,
            flops_per_token=per_token,
            steps=cost.steps,
            tokens=cost.tokens,
            expected=cost.expected,
            hours=seconds / 3600,
            chip_hours=chip_hours,
            dollars=chip_hours * topology.chip.price,
            message="; ".join(f"{name}: {each.message or 'too large'}" for name, each in too_large.items()),
            complaints=[f"{name}: {said}" for name, each in every.items() for said in each.complaints],
        )


def _flags(config: Experiment, stage: str) -> str:
    """How a command line asks for this layout."""
    mesh = config.mesh
    return (
        f"--config.mesh.data={mesh.data} --config.mesh.fsdp={mesh.fsdp} --config.mesh.tensor={mesh.tensor} "
        f"--config.model.compute.remat={config.model.compute.remat} "
        f"--config.stages.{stage}.batch.grad_accum_steps={config.stages[stage].batch.grad_accum_steps}"
    )
