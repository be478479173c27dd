"""The config tree: what a config file's `get_config` returns, checked before anything runs."""

import copy
import dataclasses
import functools
import json
import math
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import jax
import numpy as np

from sftmix_jax import desk
from sftmix_jax.data.loader import BatchConfig, LoaderConfig
from sftmix_jax.data.mixture import MOST_BUDGET, UNITS, Share
from sftmix_jax.data.sources import Source
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.machine import options, overrides, ranges
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import NAME, Choice, Flag, Integer, Items, Table, Text, setting, within
from sftmix_jax.models import quantized
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.compute import ComputeConfig
from sftmix_jax.models.lora import LoraConfig
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.training.loop import CheckpointConfig
from sftmix_jax.training.metrics import LoggingConfig
from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer


@dataclasses.dataclass
class ModelConfig:
    """The base model."""

    init: str = setting("tiny", Text(), "the weights: tiny, hf:DIR_OR_HUB_ID, stage:DIR or scratch:PRESET")
    tokenizer: str = setting("", Text(), "folder or hub id; by default the base model's own")
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    trainable: tuple[str, ...] = setting(
        (),
        Items(Text()),
        "the parameters that are trained: embed, norm, head, layers, layers.NAME or layers.FIRST-LAST; by default all, "
        "or with lora.rank the adapters alone",
    )
    frozen_dtype: str = setting(
        "bfloat16",
        Choice(("bfloat16", "float32", *quantized.FORMATS)),
        "of the parameters that are not trained, in memory; int8 and nf4 quantise the linear weights of the layers",
    )
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)

    @property
    def trains_all(self) -> bool:
        """Whether no parameter is frozen by these fields."""
        return not self.lora.rank and not self.trainable


@dataclasses.dataclass
class Stage:
    """One stage: what it takes of each domain, for how long, and how it learns."""

    mixture: dict[str, Share] = dataclasses.field(
        default_factory=dict, metadata=within(Table(Share, NAME), "domain → the share that this stage takes of it")
    )
    epochs: int = setting(3, Integer(at_least=1, at_most=10_000), "passes over shares by fraction or count")
    steps: int = setting(
        0, Integer(at_least=0, at_most=2_000_000), "optimizer steps; 0: as many as the epochs or the budget hold"
    )
    budget: int = setting(
        0, Integer(at_least=0, at_most=MOST_BUDGET), "for shares by weight: the amount of data in all, in `unit`"
    )
    unit: str = setting("tokens", Choice(UNITS), "of the budget")
    batch: BatchConfig = dataclasses.field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    carry_optimizer: bool = setting(
        False, Flag(), "continue with the optimizer moments of the previous stage in place of fresh ones"
    )
    adapter: str = setting(
        "continue",
        Choice(("continue", "new")),
        "with model.lora: train on with the adapter of the previous stage, or merge it into the weights and start a "
        "new one",
    )

    def relations(self, where: str) -> Iterator[str]:
        """Fields that do not fit together (sftmix_jax.machine.ranges)."""
        weighted = [name for name, share in self.mixture.items() if share.weight is not None]
        if not self.mixture:
            yield f"{where}.mixture is empty: give it a share of at least one domain"
        elif not weighted and self.budget:
            yield f"{where}.budget: {self.budget}; only shares by weight have a budget: delete it, or set steps"
        elif weighted and len(weighted) < len(self.mixture):
            yield f"{where}.mixture: {', '.join(weighted)} by weight and others not; a budget and exact rows do not mix"
        elif weighted and not self.budget and not self.steps:
            yield f"{where}.budget: 0; shares by weight need a budget (in {self.unit}) or steps"


@dataclasses.dataclass
class Experiment:
    """One experiment: a base model, domains, and a chain of stages over them."""

    name: str = dataclasses.field(metadata=within(NAME, "of the experiment, unique within a study"))
    domains: dict[str, Source] = dataclasses.field(
        default_factory=dict, metadata=within(Table(Source, NAME), "name → where its rows are")
    )
    stages: dict[str, Stage] = dataclasses.field(
        default_factory=dict, metadata=within(Table(Stage, NAME), "name → a stage, in the order of training")
    )
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    template: str = setting(
        "",
        Text(),
        "chat template: a built-in one, `jinja` for the tokenizer's own, or FILE.jinja; by default the tokenizer's own "
        "if it has one, else vicuna_v1.1",
    )
    seed: int = setting(0, Integer(at_least=0), "of the order of the data, fresh weights and stochastic rounding")
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    checkpoints: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    loading: LoaderConfig = dataclasses.field(default_factory=LoaderConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)

    def check(self) -> None:
        """Checks everything that needs no data: ranges, and fields that do not fit together. Raises UserError."""
        ranges.check(self, "config")

    def relations(self, where: str) -> Iterator[str]:
        """Fields that do not fit together (sftmix_jax.machine.ranges)."""
        if not self.stages:
            yield f"{where}.stages: experiment '{self.name}' has no stages"
        for name in self.evaluation.tasks:
            if problem := _task_problem(name):
                yield f"{where}.evaluation.tasks: '{name}'; {problem}"
        for name, stage in list(self.stages.items())[:1]:
            if stage.carry_optimizer:
                yield (
                    f"{where}.stages.{name}.carry_optimizer: True; must be False in the first stage, which has no "
                    "stage before it to take the moments of"
                )
        for name, stage in self.stages.items():
            if stage.adapter == "new" and not self.model.lora.rank:
                yield f"{where}.stages.{name}.adapter: new; there are no adapters: set {where}.model.lora.rank"
            if stage.adapter == "new" and stage.carry_optimizer:
                yield (
                    f"{where}.stages.{name}.carry_optimizer: True; the moments of the adapter before are none of a new "
                    "one: set it to False, or adapter to continue"
                )
            if name in ("all", "base") or name.startswith("base-"):
                yield f"{where}.stages: key '{name}'; must not be all, base or base-…, which mean other folders"
            for domain in stage.mixture.keys() - self.domains.keys():
                near = did_you_mean(domain, self.domains)
                yield f"{where}.stages.{name}.mixture: no domain '{domain}' in {where}.domains; {near}"
            if problem := _optimizer_problem(json.dumps(dataclasses.asdict(stage.optimizer))):
                yield f"{where}.stages.{name}.{problem}"


@functools.cache
def _task_problem(name: str) -> str:
    """Why there is no such task; empty if there is one."""
    try:
        desk.find("eval", name)
    except UserError as error:
        return str(error)
    return ""


@functools.cache  # a study has the same optimizer in all of its stages
def _optimizer_problem(record: str) -> str:
    """What optax has against an OptimizerConfig, given as JSON; empty if nothing."""
    try:
        make_optimizer(OptimizerConfig(**json.loads(record)))
    except UserError as error:
        return str(error)
    return ""


def make_mesh(
    config: Experiment, architecture: Architecture, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
    """The mesh that all stages are trained on. Raises UserError for a batch or weights that do not fit it."""
    devices = jax.devices() if devices is None else devices
    rows = {name: stage.batch.batch_size // stage.batch.grad_accum_steps for name, stage in config.stages.items()}
    width = math.gcd(architecture.num_kv_heads, architecture.intermediate_size)
    mesh = sharding.make_mesh(sharding.fitted(config.mesh, devices, math.gcd(*rows.values()), width), devices)
    if not config.model.trains_all:
        quantized.check_mesh(config.model.frozen_dtype, mesh)
    parts = sharding.batch_parts(mesh)
    for name, at_a_time in rows.items():
        if at_a_time % parts:
            raise UserError(
                f"config.stages.{name}.batch: {at_a_time} rows at a time cannot be divided among {parts} devices (mesh "
                f"data × fsdp); set batch.batch_size to a multiple of "
                f"{parts * config.stages[name].batch.grad_accum_steps}, or share rows "
                "among devices (--config.mesh.tensor)"
            )
    return mesh


def read(arguments: Sequence[str]) -> Experiment:
    """The checked experiment of `--config=FILE[:ARGUMENTS]` and `--config.FIELD=VALUE`, in any order.

    FILE is looked for as it is, then in the desk's configs. Raises UserError.
    """
    specs, changes = [], []
    for argument in options.joined(arguments):
        name, _, value = argument.removeprefix("--").partition("=")
        if name == "config":
            specs += [value] if value else []
        else:
            changes.append((name.removeprefix("config."), value))
    if not specs:
        raise UserError(f"name an experiment: --config FILE.py ({did_you_mean('', desk.listed('configs'))})")
    if len(specs) > 1:
        raise UserError(f"--config is given {len(specs)} times ({', '.join(specs)}); leave all but one out")
    experiment = separated(desk.configured(specs[0], "config"))
    if not isinstance(experiment, Experiment):
        raise UserError(f"get_config must return an Experiment, this one returns a {type(experiment).__name__}")
    overrides.apply(experiment, changes, "config")
    experiment.check()
    return experiment


def separated(config: Any) -> Any:
    """A copy of a config tree in which no part stands twice, so that an override of one stage changes no other.

    Numbers of numpy, fractions and paths, with which config files compute, become Python's floats, ints and strings.
    """
    match config:
        case np.generic():
            return config.item()
        case Fraction():
            return float(config)
        case os.PathLike():
            return os.fspath(config)
        case dict():
            return {separated(key): separated(value) for key, value in config.items()}
        case list() | tuple() if type(config) in (list, tuple):
            return type(config)(map(separated, config))
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    copied = copy.copy(config)
    vars(copied).update({name: separated(value) for name, value in vars(config).items()})
    return copied
