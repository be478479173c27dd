"""An experiment's stages, resolved: base model, data plan, identity and folder of each. For the verbs."""

from __future__ import annotations

import dataclasses
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from sftmix_jax import checks, identity, model_folder, sharding
from sftmix_jax.data import cache, loader, mixture
from sftmix_jax.data.cache import Examples
from sftmix_jax.data.chat import Chat
from sftmix_jax.data.loader import Plan
from sftmix_jax.data.mixture import Order, Pool
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.errors import UserError
from sftmix_jax.experiment import Experiment, Stage
from sftmix_jax.models import hf_config, huggingface, llama
from sftmix_jax.models.attention import RopeScaling
from sftmix_jax.models.hf_config import NO_ENDS, Ends
from sftmix_jax.models.llama import Compute, ComputeConfig, LlamaConfig, Params
from sftmix_jax.training.checkpoints import Checkpoints

_LENGTH = 2048  # where the config leaves it to the model
TINY = Path(__file__).parent / "tiny" / "base"


@dataclasses.dataclass(frozen=True)
class Base:
    """Where training starts: an architecture, its numbers, and the tokenizer that it knows."""

    fingerprint: str
    config: LlamaConfig
    tokenizer: str
    folder: str  # a model folder, a stage folder, or "" where parameters are drawn from `seed`
    seed: int = 0
    ends: Ends = NO_ENDS  # what ends its answers, besides what a template says

    @property
    def id(self) -> str:
        return self.fingerprint[:12]

    def params(self, abstract: Params) -> Params:
        """On the devices, with the dtypes and shardings of `abstract`; each process reads what it holds."""
        if not self.folder:
            compute = ComputeConfig().resolved(self.config, "cpu")
            return sharding.put_tree(jax.device_get(llama.init(self.config, compute, self.seed)), abstract)
        folder = epath.Path(self.folder)
        if (folder / "config.json").exists():
            return huggingface.stream(folder, abstract)
        return stage_params(folder, abstract)


def find_base(init: str, tokenizer: str, seed: int) -> Base:
    """`tiny`, `hf:DIR_OR_HUB_ID`, `stage:DIR` or `scratch:PRESET`. Raises UserError."""
    kind, _, name = init.partition(":")
    match kind:
        case "tiny":
            kind, name = "hf", str(TINY)
        case "hf" | "stage" | "scratch" if name:
            pass
        case _:
            raise UserError(f"config.model.init: '{init}'; must be tiny, hf:DIR_OR_HUB_ID, stage:DIR or scratch:PRESET")
    if kind == "hf":
        folder = model_folder.find(name)
        fingerprint, config = huggingface.fingerprint(folder), hf_config.read(folder)
        base = Base(fingerprint, config, str(folder), str(folder), ends=hf_config.read_ends(folder))
    elif kind == "stage":
        record = read_stage(epath.Path(name))
        base = Base(record["id"], architecture(record), f"{name}/tokenizer", name, ends=Ends(**record["ends"]))
    else:
        if not tokenizer:
            raise UserError("config.model.tokenizer: a model from scratch needs one; name a folder or a hub id")
        config = llama.preset(name)
        base = Base(identity.digest({"config": config, "seed": seed}), config, tokenizer, "", seed)
    return dataclasses.replace(base, tokenizer=tokenizer or base.tokenizer)


def read_stage(folder: epath.Path) -> dict[str, Any]:
    """A stage folder's stage.json. Raises UserError if it is none."""
    file = folder / "stage.json"
    if not file.exists():
        raise UserError(f"{folder}: no stage folder (it has no stage.json)")
    return json.loads(file.read_text())


def architecture(record: dict[str, Any]) -> LlamaConfig:
    """The model of a stage.json."""
    fields = dict(record["model"])
    scaling = fields.pop("rope_scaling")
    return LlamaConfig(**fields, rope_scaling=RopeScaling(**scaling) if scaling else None)


def on_one_device(config: LlamaConfig) -> Params:
    """Abstract float32 parameters on this process's first device."""
    _, abstract, _ = llama.build(config, ComputeConfig().resolved(config, jax.default_backend()))
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return sharding.with_shardings(abstract, jax.tree.map(lambda _: one, abstract))


def stage_params(folder: epath.Path, abstract: Params) -> Params:
    """A stage's newest parameters, with the dtypes and shardings of `abstract`. Raises UserError."""
    saves = Checkpoints(folder / "checkpoints")
    try:
        params = saves.restore_part("params", abstract)
    finally:
        saves.close()
    if params is None:
        raise UserError(f"{folder}: holds no sound checkpoint; run the same training command again")
    return params


@dataclasses.dataclass(frozen=True)
class ResolvedStage:
    """A stage with all that its identity hashes."""

    name: str
    stage: Stage
    record: dict[str, Any]  # what stage.json holds, without the id
    parent: ResolvedStage | None

    @property
    def id(self) -> str:
        return identity.digest(self.record)

    def folder(self, workdir: epath.Path) -> epath.Path:
        """Where it is, whatever name another experiment gave it; or where it would be."""
        found = sorted((workdir / "stages").glob(f"*-{self.id}")) if (workdir / "stages").exists() else []
        return found[0] if found else workdir / "stages" / f"{self.name}-{self.id}"

    def is_done(self, workdir: epath.Path) -> bool:
        return (self.folder(workdir) / "done.json").exists()


class Resolved:
    """An experiment with its base, tokenised domains and chain of stages; each is made when first asked for."""

    def __init__(self, experiment: Experiment):
        experiment.check()
        self.experiment = experiment

    @cached_property
    def base(self) -> Base:
        model = self.experiment.model
        return find_base(model.init, model.tokenizer, self.experiment.seed)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer(self.base.tokenizer)
        if tokenizer.size > self.base.config.vocab_size:
            raise UserError(
                f"the tokenizer {tokenizer.path} has {tokenizer.size} tokens, the model {self.base.config.vocab_size}; "
                "set --config.model.tokenizer to the model's own"
            )
        return tokenizer

    @cached_property
    def chat(self) -> Chat:
        return Chat(self.experiment.template, self.tokenizer)

    @cached_property
    def compute(self) -> Compute:
        return self.experiment.model.compute.resolved(self.base.config, jax.default_backend())

    @cached_property
    def examples(self) -> dict[str, Examples]:
        """The domains that some stage uses, tokenised."""
        used = dict.fromkeys(domain for stage in self.experiment.stages.values() for domain in stage.mixture)
        return {name: cache.tokenized(name, self.experiment.domains[name], self.chat) for name in used}

    def chain(self) -> list[ResolvedStage]:
        """The stages in order, each knowing its parent and so its identity.

        Raises UserError for everything that would keep one of them from being trained, before any of them is.
        """
        stages: list[ResolvedStage] = []
        for name, stage in self.experiment.stages.items():
            longest = self.base.config.max_length
            if stage.batch.length > longest:
                raise UserError(
                    f"config.stages.{name}.batch.length: {stage.batch.length}, the model was made for {longest} "
                    f"tokens; set it to {longest} or less, and longer examples are cut and counted"
                )
            parent = stages[-1] if stages else None
            batch = dataclasses.replace(stage.batch, length=stage.batch.length or min(longest, _LENGTH))
            stage = dataclasses.replace(stage, batch=batch)
            record = {
                "parent": parent.id if parent else f"base:{self.base.fingerprint}",
                "model": self.base.config, "ends": self.base.ends._asdict(),
                "mixture": stage.mixture,
                "examples": {domain: self.examples[domain].fingerprint for domain in stage.mixture},
                "held_out": {domain: self.experiment.domains[domain].held_out for domain in stage.mixture},
                "template": self.chat.fingerprint,
                "tokenizer": self.tokenizer.fingerprint,
                "epochs": stage.epochs, "steps": stage.steps, "budget": stage.budget, "unit": stage.unit,
                "batch": batch,
                "optimizer": stage.optimizer, "carry_optimizer": stage.carry_optimizer,
                "dtype": self.compute.dtype,
                "seed": self.experiment.seed,
            }  # fmt: skip
            stages.append(ResolvedStage(name, stage, identity.plain(record), parent))
        checks.check(self, stages)
        return stages

    def plan(self, stage: Stage) -> tuple[Plan, dict[str, Pool]]:
        """The stage's data, batch by batch, and its domains' sizes."""
        return loader.make_plan(self.examples, stage.mixture, stage.batch, **self.amounts(stage))

    def amounts(self, stage: Stage) -> dict[str, Any]:
        """How much of its domains a stage takes: the arguments of loader.make_plan behind the batch."""
        return {
            "held_out": {name: self.experiment.domains[name].held_out for name in stage.mixture},
            "epochs": stage.epochs, "budget": stage.budget or None, "unit": stage.unit, "steps": stage.steps or None,
            "seed": self.experiment.seed,
        }  # fmt: skip

    def held_out_plan(self, stage: Stage) -> Plan | None:
        """The held-out rows of every domain, those too that this stage does not train on."""
        pools = {
            name: loader.pool(examples, stage.batch, self.experiment.domains[name].held_out)
            for name, examples in self.examples.items()
            if self.experiment.domains[name].held_out
        }
        rows = [mixture.held_out(name, pool, self.experiment.seed) for name, pool in pools.items()]
        rows = [own[pool.trained[own] > 0] for own, pool in zip(rows, pools.values(), strict=True)]
        if not sum(map(len, rows)):
            return None
        domains = np.concatenate([np.full(len(own), i, np.int32) for i, own in enumerate(rows)])
        order = Order(domains, np.concatenate(rows), {name: len(own) for name, own in zip(pools, rows, strict=True)})
        return Plan({name: self.examples[name] for name in pools}, order, stage.batch, self.experiment.seed)
