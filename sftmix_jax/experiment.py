"""The config tree: what a config file's `get_config` returns, checked before anything runs."""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import flags
from absl.flags import FlagValues

from sftmix_jax import desk, identity, sharding
from sftmix_jax.data.loader import BatchConfig, LoaderConfig
from sftmix_jax.data.mixture import UNITS, Share
from sftmix_jax.data.sources import Source
from sftmix_jax.errors import UserError, did_you_mean
from sftmix_jax.evaluation.runner import EvaluationConfig
from sftmix_jax.models.llama import ComputeConfig, LlamaConfig
from sftmix_jax.sharding import MeshConfig
from sftmix_jax.training.loop import CheckpointConfig
from sftmix_jax.training.metrics import LoggingConfig
from sftmix_jax.training.optimizer import OptimizerConfig


@dataclasses.dataclass
class ModelConfig:
    """The base model."""

    init: str = "tiny"  # tiny, hf:DIR_OR_HUB_ID, stage:DIR or scratch:PRESET
    tokenizer: str = ""  # folder or hub id; by default the base model's own
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)


@dataclasses.dataclass
class Stage:
    """One stage: what it takes of each domain, for how long, and how it learns."""

    mixture: dict[str, Share] = dataclasses.field(default_factory=dict)
    epochs: int = 3  # for shares by fraction or count
    steps: int = 0  # 0: as many as the epochs or the budget hold; else just so many
    budget: int = 0  # for shares by weight: how much in all,
    unit: str = "tokens"  # in examples, tokens or trained_tokens
    batch: BatchConfig = dataclasses.field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    carry_optimizer: bool = False  # go on with the moments of the stage before, instead of fresh ones


@dataclasses.dataclass
class Experiment:
    """One experiment: a base model, domains, and a chain of stages over them."""

    name: str
    domains: dict[str, Source] = dataclasses.field(default_factory=dict)
    stages: dict[str, Stage] = dataclasses.field(default_factory=dict)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    template: str = "vicuna_v1.1"  # a chat template of data/chat.py, or jinja: the tokenizer's own
    seed: int = 0
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    checkpoints: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    loading: LoaderConfig = dataclasses.field(default_factory=LoaderConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)

    def check(self) -> None:
        """Raise UserError for whatever no data could mend."""
        if not self.stages:
            raise UserError(f"experiment '{self.name}' has no stages")
        for name, stage in self.stages.items():
            where = f"config.stages.{name}"
            if not stage.mixture:
                raise UserError(f"{where}.mixture is empty: give it a share of at least one domain")
            for domain, share in stage.mixture.items():
                if domain not in self.domains:
                    raise UserError(
                        f"{where}.mixture: no domain '{domain}' in config.domains; {did_you_mean(domain, self.domains)}"
                    )
                share.check(f"{where}.mixture.{domain}")
            if stage.epochs < 1 or stage.steps < 0 or stage.budget < 0:
                raise UserError(f"{where}: epochs must be at least 1; steps and budget cannot be negative")
            if stage.unit not in UNITS:
                raise UserError(f"{where}.unit: '{stage.unit}'; {did_you_mean(stage.unit, UNITS)}")
            stage.batch.check(f"{where}.batch")
        for domain, source in self.domains.items():
            if source.bad_rows not in ("refuse", "skip"):
                raise UserError(f"config.domains.{domain}.bad_rows: '{source.bad_rows}'; must be refuse or skip")


def make_mesh(
    config: Experiment, architecture: LlamaConfig, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
    """The mesh that all stages are trained on. Raises UserError for a batch that it cannot divide."""
    devices = jax.devices() if devices is None else devices
    rows = {name: stage.batch.rows // stage.batch.accumulation for name, stage in config.stages.items()}
    width = math.gcd(architecture.num_kv_heads, architecture.intermediate_size)
    mesh = sharding.make_mesh(sharding.fitted(config.mesh, devices, math.gcd(*rows.values()), width), devices)
    parts = sharding.batch_parts(mesh)
    for name, at_a_time in rows.items():
        if at_a_time % parts:
            raise UserError(
                f"config.stages.{name}.batch: {at_a_time} rows at a time cannot be divided among {parts} devices (mesh "
                f"data × fsdp); set batch.rows to a multiple of {parts * config.stages[name].batch.accumulation}, or "
                "share rows among devices (--config.mesh.tensor)"
            )
    return mesh


def _define_flags(argv: list[str]) -> FlagValues:
    from ml_collections import config_flags

    values = FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "the experiment: FILE.py[:ARGUMENT]", flag_values=values, sys_argv=[sys.argv[0], *argv]
    )
    flags.DEFINE_string("workdir", "", "where stages, metrics and scores go", flag_values=values)
    return values


def parse(
    argv: Sequence[str], extra: Mapping[str, str | int | float] | None = None
) -> tuple[Experiment, dict[str, Any]]:
    """`--config FILE[:ARGUMENT] --config.a.b=value …` → the checked experiment, and the other flags.

    FILE is looked for as it is, then in the desk's configs. `extra`: further flags and their defaults; whole numbers
    are 1 at least, or 0 where that is the default. `--help` prints the verb's own words and the config files there are,
    and ends.
    """
    if {"--help", "-h"} & set(argv):
        print((sys.modules["__main__"].__doc__ or "").strip())
        print(f"\nconfigs: {', '.join(desk.listed('configs'))}")
        sys.exit(0)
    resolved = _find_config(argv)
    values = _define_flags(resolved)
    for name, default in (extra or {}).items():
        if isinstance(default, str):
            flags.DEFINE_string(name, default, "", flag_values=values)
        elif isinstance(default, int):
            flags.DEFINE_integer(name, default, "", lower_bound=min(default, 1), flag_values=values)
        else:
            flags.DEFINE_float(name, default, "", flag_values=values)
    try:
        rest = values([sys.argv[0], *resolved])[1:]
        experiment = values["config"].value if values["config"].present else None
    except (flags.Error, KeyError, ValueError, TypeError, OSError, AttributeError) as error:
        raise _explain(error, argv) from None
    if rest:
        raise UserError(f"'{rest[0]}' is not understood; options look like --workdir=DIR or --config.seed=1")
    if experiment is None:
        raise UserError(f"name an experiment: --config FILE.py ({did_you_mean('', desk.listed('configs'))})")
    if not isinstance(experiment, Experiment):
        raise UserError(f"get_config must return an Experiment, this one returns a {type(experiment).__name__}")
    experiment.check()
    return experiment, {name: values[name].value for name in ("workdir", *(extra or {}))}


def _find_config(argv: Sequence[str]) -> list[str]:
    """The same arguments with the config's file resolved."""
    resolved = list(argv)
    for i, argument in enumerate(argv):
        if argument in ("--config", "-config") and i + 1 < len(argv):
            resolved[i + 1] = _with_folder(argv[i + 1])
        elif argument.startswith(("--config=", "-config=")):
            resolved[i] = "--config=" + _with_folder(argument.partition("=")[2])
    return resolved


def _with_folder(spec: str) -> str:
    file, colon, argument = spec.partition(":")
    return str(desk.find("configs", file)) + colon + argument


def _explain(error: Exception, argv: Sequence[str]) -> UserError:
    """What was wrong with the command line, with the nearest name that would have been right."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
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
                known = known[name] if isinstance(known, dict) else getattr(known, name)
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
