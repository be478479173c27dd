"""The config tree: what a config file's `get_config` returns, checked before anything runs."""

import argparse
import contextlib
import copy
import dataclasses
import functools
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from absl.flags import FlagValues

from sftmix_jax import desk
from sftmix_jax.data.loader import BatchConfig, LoaderConfig
from sftmix_jax.data.mixture import MOST_BUDGET, UNITS, Share
from sftmix_jax.data.sources import Source
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.machine import identity, ranges, terminal
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import NAME, Choice, Flag, Integer, Number, Range, Table, Text, setting, within
from sftmix_jax.models.llama import ComputeConfig, LlamaConfig
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.training.loop import CheckpointConfig
from sftmix_jax.training.metrics import LoggingConfig
from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer


@dataclasses.dataclass
class ModelConfig:
    """The base model."""

    init: str = setting("tiny", Text())  # tiny, hf:DIR_OR_HUB_ID, stage:DIR or scratch:PRESET
    tokenizer: str = setting("", Text())  # folder or hub id; by default the base model's own
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)


@dataclasses.dataclass
class Stage:
    """One stage: what it takes of each domain, for how long, and how it learns."""

    mixture: dict[str, Share] = dataclasses.field(default_factory=dict, metadata=within(Table(Share, NAME)))
    epochs: int = setting(3, Integer(at_least=1, at_most=10_000))  # for shares by fraction or count
    # 0: as many as the epochs or the budget hold; else just so many
    steps: int = setting(0, Integer(at_least=0, at_most=2_000_000))
    budget: int = setting(0, Integer(at_least=0, at_most=MOST_BUDGET))  # for shares by weight: how much in all,
    unit: str = setting("tokens", Choice(UNITS))  # in examples, tokens or trained_tokens
    batch: BatchConfig = dataclasses.field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    # go on with the moments of the stage before, instead of fresh ones
    carry_optimizer: bool = setting(False, Flag())

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

    name: str = dataclasses.field(metadata=within(NAME))
    domains: dict[str, Source] = dataclasses.field(default_factory=dict, metadata=within(Table(Source, NAME)))
    stages: dict[str, Stage] = dataclasses.field(default_factory=dict, metadata=within(Table(Stage, NAME)))
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    # A built-in chat template (data/templates), jinja: the tokenizer's own, or FILE.jinja. By default the tokenizer's
    # own if it has one, else vicuna_v1.1.
    template: str = setting("", Text())
    seed: int = setting(0, Integer(at_least=0))
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
    config: Experiment, architecture: LlamaConfig, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
    """The mesh that all stages are trained on. Raises UserError for a batch that it cannot divide."""
    devices = jax.devices() if devices is None else devices
    rows = {name: stage.batch.batch_size // stage.batch.grad_accum_steps for name, stage in config.stages.items()}
    width = math.gcd(architecture.num_kv_heads, architecture.intermediate_size)
    mesh = sharding.make_mesh(sharding.fitted(config.mesh, devices, math.gcd(*rows.values()), width), devices)
    parts = sharding.batch_parts(mesh)
    for name, at_a_time in rows.items():
        if at_a_time % parts:
            raise UserError(
                f"config.stages.{name}.batch: {at_a_time} rows at a time cannot be divided among {parts} devices (mesh "
                f"data × fsdp); set batch.batch_size to a multiple of "
                f"{parts * config.stages[name].batch.grad_accum_steps}, or "
                "share rows among devices (--config.mesh.tensor)"
            )
    return mesh


def _define_flags(argv: list[str]) -> FlagValues:
    from ml_collections import config_flags

    values = FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "the experiment: FILE.py[:ARGUMENT]", flag_values=values, sys_argv=[sys.argv[0], *argv]
    )
    values["config"].parser = _ConfigFile(argv)
    flags.DEFINE_string("workdir", "", "where stages, metrics and scores go", flag_values=values)
    return values


class _ConfigFile(flags.ArgumentParser[Any]):
    """Reads `FILE[:ARGUMENT]`, so that an error in it is told by its line, and overrides may name new keys of dicts."""

    def __init__(self, argv: Sequence[str]):
        self._overrides = [found[1] for each in argv if (found := re.match(r"--?config\.([^=]+)", each))]

    def parse(self, argument: str) -> Any:
        from ml_collections.config_flags import config_path

        file, *behind = argument.split(":", 1)
        config = desk.call(Path(file), "config", *behind)
        config = separated(config)
        for override in self._overrides if isinstance(config, Experiment) else ():
            with contextlib.suppress(ValueError, KeyError, AttributeError, StopIteration, TypeError):  # see _explain
                path = config_path.split(override)
                _add_key(config, path)
                _change_kind(config, path)
        return config


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


def _change_kind(config: Experiment, path: Sequence[Any]) -> None:
    """Clears what the file says of a share, so that `…mixture.math.count=5` takes the place of a fraction.

    Raises KeyError, AttributeError or ValueError for a path to anything else.
    """
    match path:
        case ["stages", stage, "mixture", domain, "fraction" | "count" | "weight"]:
            share = config.stages[stage].mixture[domain]
            share.fraction = share.count = share.weight = None


def _add_key(config: Experiment, path: Sequence[Any]) -> None:
    """Puts a value of the right type at the key of a dict of plain values: ml_collections sets no key that is missing.

    Raises KeyError, AttributeError or StopIteration if there is no such path.
    """
    held: Any = config
    allowed: Range | None = None
    for name in path[:-1]:
        if isinstance(held, dict):
            held, allowed = held[name], None
        else:
            held, allowed = getattr(held, name), ranges.of(type(held), name)
    if isinstance(allowed, Table) and isinstance(allowed.each, Range):
        held[path[-1]] = "" if isinstance(allowed.each, Text) else object()  # object: read as a Python literal


def parse(
    argv: Sequence[str], extra: Mapping[str, tuple[str | int | float, Range]] | None = None
) -> tuple[Experiment, dict[str, Any]]:
    """`--config FILE[:ARGUMENT] --config.a.b=value …` → the checked experiment, and the other flags.

    FILE is looked for as it is, then in the desk's configs. `extra`: further flags, with their defaults and ranges.
    `--help` prints the verb's docstring and the config files there are, and ends.
    """
    if {"--help", "-h"} & set(argv):
        terminal.out((sys.modules["__main__"].__doc__ or "").strip())
        terminal.out(f"\nconfigs: {', '.join(desk.listed('configs'))}")
        sys.exit(0)
    resolved = _find_config(argv)
    if not any(argument.startswith("--config=") for argument in resolved):
        raise UserError(f"name an experiment: --config FILE.py ({did_you_mean('', desk.listed('configs'))})")
    values = _define_flags(resolved)
    for name, (default, _) in (extra or {}).items():
        flags.DEFINE_string(name, str(default), "", flag_values=values)
    try:
        rest = values([sys.argv[0], *resolved])[1:]
        experiment = values["config"].value
    except (flags.Error, KeyError, ValueError, TypeError, OSError, AttributeError) as error:
        raise _explain(error, argv) from None
    if rest:
        raise UserError(f"'{rest[0]}' is not understood; options look like --workdir=DIR or --config.seed=1")
    if not isinstance(experiment, Experiment):
        raise UserError(f"get_config must return an Experiment, this one returns a {type(experiment).__name__}")
    experiment.check()
    options = {name: _option(name, str(values[name].value), allowed) for name, (_, allowed) in (extra or {}).items()}
    return experiment, {"workdir": values["workdir"].value, **options}


def _option(name: str, text: str, allowed: Range) -> Any:
    """The value of a flag. Raises UserError if it is out of its range."""
    try:
        return allowed.parse(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--{name}: {error}") from None


def _find_config(argv: Sequence[str]) -> list[str]:
    """The same arguments with the config's file resolved and in front, and names such as `my-data` in quotes."""
    config, others, waiting = [], [], list(argv)
    while waiting:
        name, equals, value = waiting.pop(0).partition("=")
        if name in ("--config", "-config") and (equals or waiting):
            config.append("--config=" + _with_folder(value if equals else waiting.pop(0)))
        else:
            others.append(_quoted(name) + equals + value)
    return config + others


def _quoted(flag: str) -> str:
    """`--config.domains.my-data.path` as ml_collections reads it: `--config.domains['my-data'].path`."""
    if not re.match(r"--?config\.", flag) or "[" in flag:
        return flag
    first, *names = flag.split(".")
    return first + "".join(f".{name}" if name.isidentifier() else f"[{name!r}]" for name in names)


def _with_folder(spec: str) -> str:
    file, colon, argument = spec.partition(":")
    return str(desk.find("configs", file)) + colon + argument


def _explain(cause: Exception, argv: Sequence[str]) -> UserError:
    """What is wrong with the command line: the nearest known name, or the range of the field."""
    message = cause.args[0] if isinstance(cause, KeyError) and cause.args else str(cause)
    config = _loaded(argv)
    for argument in argv:
        if config is not None and argument.startswith("--config."):
            known: Any = config
            path = argument[2:].partition("=")[0].split(".")
            for depth, name in enumerate(path[1:], 2):
                fields = known if isinstance(known, dict) else identity.plain(known)
                if not isinstance(fields, dict):
                    break
                if name not in fields:
                    return UserError(f"--{'.'.join(path[:depth])}: no field '{name}'; {did_you_mean(name, fields)}")
                allowed = None if isinstance(known, dict) else ranges.of(type(known), name)
                known = known[name] if isinstance(known, dict) else getattr(known, name)
                if depth == len(path) and (isinstance(known, dict) or dataclasses.is_dataclass(known)):
                    where = ".".join(path)
                    return UserError(f"--{where}: holds fields of its own; set one of them: --{where}.KEY=VALUE")
                if depth == len(path) and "=" in argument and isinstance(allowed, Integer | Number | Flag):
                    try:
                        _option(".".join(path), argument.partition("=")[2], allowed)
                    except UserError as error:
                        return error
    return UserError(message.strip())


def _loaded(argv: Sequence[str]) -> Experiment | None:
    """The config without its overrides, for messages about them."""
    try:
        plain = [argument for argument in _find_config(argv) if not argument.startswith("--config.")]
        values = _define_flags(plain)
        values([sys.argv[0], *plain], known_only=True)
        return values["config"].value
    except Exception:
        return None
