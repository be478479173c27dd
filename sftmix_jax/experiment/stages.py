"""An experiment's stages, resolved: base model, data plan, identity and folder of each. For the verbs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from sftmix_jax import tiny
from sftmix_jax.data import cache, loader, mixture
from sftmix_jax.data.cache import Examples
from sftmix_jax.data.chat import Chat
from sftmix_jax.data.loader import Plan
from sftmix_jax.data.mixture import Order, Pool
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment import checks, tuning
from sftmix_jax.experiment.config import Experiment, Stage
from sftmix_jax.experiment.tuning import Tuning
from sftmix_jax.machine import array_hash, identity, manifest, model_folder, processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import decoder, families, hf_config, huggingface
from sftmix_jax.models.architecture import Architecture, from_record
from sftmix_jax.models.compute import Compute, ComputeConfig
from sftmix_jax.models.decoder import Params
from sftmix_jax.models.hf_config import NO_ENDS, Ends
from sftmix_jax.parallel import sharding
from sftmix_jax.training import checkpoints, precision
from sftmix_jax.training.checkpoints import Checkpoints
from sftmix_jax.workdir import records
from sftmix_jax.workdir.records import TRAIN_AGAIN

TINY = Path(tiny.__file__).parent / "base"


@dataclasses.dataclass(frozen=True)
class Base:
    """Where training starts: an architecture, its numbers, and the tokenizer that it knows."""

    fingerprint: str
    config: Architecture
    tokenizer: str  # that it is used with
    folder: str  # a model folder, a stage folder, or "" where parameters are drawn from `seed`
    seed: int = 0
    ends: Ends = NO_ENDS  # what ends its answers, besides what a template says
    own_tokenizer: str = ""  # that its embeddings were trained with; "" for a model from scratch

    def params(self, abstract: Params) -> Params:
        """On the devices, with the dtypes and shardings of `abstract`; each process reads what it holds."""
        if not self.folder:
            compute = ComputeConfig().resolved(self.config, "cpu")
            return decoder.drawing(self.config, compute, self.seed, abstract)()
        folder = epath.Path(self.folder)
        if (folder / "stage.json").exists():
            return stage_params(folder, abstract)
        return huggingface.stream(folder, abstract)


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
        weights = huggingface.Weights(folder)
        if weights.note and processes.is_first():
            terminal.err(f"note: {weights.note}")
        base = Base(weights.fingerprint(), weights.config, str(folder), str(folder), ends=hf_config.read_ends(folder))
    elif kind == "stage":
        folder = epath.Path(name).expanduser()
        record = read_stage(folder)
        if record["name"] == "base":
            raise UserError(f"config.model.init: {folder} is a base and holds no weights; set it to {record['init']}")
        read_done(folder, record)
        check_tokenizer(folder)
        base = Base(record["id"], architecture(record), f"{folder}/tokenizer", str(folder), ends=Ends(**record["ends"]))
    else:
        if not tokenizer:
            raise UserError("config.model.tokenizer: a model from scratch needs one; name a folder or a hub id")
        config = families.preset(name)
        base = Base(identity.digest({"config": config, "seed": seed}), config, tokenizer, "", seed)
    own = base.tokenizer if base.folder else ""
    return dataclasses.replace(base, tokenizer=tokenizer or base.tokenizer, own_tokenizer=own)


def read_stage(folder: epath.Path) -> dict[str, Any]:
    """A stage folder's stage.json. Raises UserError if it is none, or if its content is not what its id is the hash of.

    A base's id does not cover where its model lies, so its record holds a hash of its own.
    """
    file = folder / "stage.json"
    if not file.exists():
        raise UserError(f"{folder}: no stage folder (it has no stage.json); name another, or {TRAIN_AGAIN}")
    record = records.stage(file)
    if stage_digest(record) != (record.get("digest") if record["name"] == "base" else record["id"]):
        raise UserError(f"{file}: has changed since it was written; {TRAIN_AGAIN}")
    wanted = records.id_of(folder) if folder.parent.name == "stages" else ""  # elsewhere a folder has any name
    if wanted not in ("", record["id"]):
        raise records.of_another(file, record["id"], wanted)
    return record


# The name, where frozen weights are, and how a run of the stage is planned change nothing that is trained.
_NOT_HASHED = ("name", "id", "digest", "base", "run")


def stage_digest(record: dict[str, Any]) -> str:
    """The hash of a stage.json without what is not part of it."""
    return identity.digest({key: value for key, value in record.items() if key not in _NOT_HASHED})


def read_done(folder: epath.Path, record: dict[str, Any]) -> dict[str, Any]:
    """The done.json of a stage with this stage.json. Raises UserError if it is damaged, or the stage not finished."""
    file = folder / "done.json"
    if not file.exists():
        raise UserError(f"{folder}: this stage is not finished (it has no done.json); {TRAIN_AGAIN}")
    done = records.done(file)
    if done["id"] != record["id"]:
        raise records.of_another(file, done["id"], record["id"])
    if done["digest"] != done_digest(done):
        raise UserError(f"{file}: has changed since it was written; {TRAIN_AGAIN}")
    return done


def done_digest(done: dict[str, Any]) -> str:
    """The hash of a done.json without itself."""
    return identity.digest({key: value for key, value in done.items() if key != "digest"})


def check_tokenizer(folder: epath.Path) -> None:
    """Raises UserError unless a stage folder's tokenizer is as it was written."""
    problem = manifest.damage(folder / "tokenizer", tokenizer_of(read_stage(folder)))
    if problem:
        raise UserError(f"{folder / 'tokenizer'}: {problem}; {TRAIN_AGAIN}")


def tokenizer_of(record: dict[str, Any]) -> dict[str, Any]:
    """What the manifest of the tokenizer beside a stage.json says that it is of."""
    return {key: record[key] for key in ("tokenizer", "template")}


def architecture(record: dict[str, Any]) -> Architecture:
    """The model of a stage.json."""
    return from_record(record["model"])


def on_one_device(config: Architecture, device: jax.Device | None = None) -> Params:
    """Abstract float32 parameters on a device, by default this process's first."""
    _, abstract, _ = decoder.build(config, ComputeConfig().resolved(config, jax.default_backend()))
    one = jax.sharding.SingleDeviceSharding(device or jax.local_devices()[0])
    return sharding.with_shardings(abstract, jax.tree.map(lambda _: one, abstract))


def stage_params(folder: epath.Path, abstract: Params) -> Params:
    """A finished stage's weights, with the dtypes and shardings of `abstract`; adapters are merged into them.

    Raises UserError if a checkpoint or the base is damaged, missing or another one.
    """
    record = read_stage(folder)
    how = tuning.of_record(record, architecture(record))
    if how.is_full:
        return trained_params(folder, abstract)
    weights = starting_weights(folder, record, precision.in_dtype(abstract, how.weights_dtype))
    return how.whole(trained_params(folder, how.abstract_trained(abstract)), weights, abstract)


def starting_weights(folder: epath.Path, record: dict[str, Any], abstract: Params) -> Params:
    """The weights that the frozen ones of a stage are part of: its base's, or its parent's if its adapter is new.

    Raises UserError if they are not where they were.
    """
    parent = _parent(folder, record)
    if parent is None:
        return base_below(folder, record)[1].params(abstract)
    if record["adapter"] == "new":
        return stage_params(parent, abstract)
    return starting_weights(parent, read_stage(parent), abstract)


def base_below(folder: epath.Path, record: dict[str, Any]) -> tuple[str, Base]:
    """The base that a stage's frozen weights come from: where it is, as in `model.init`, and what was found there.

    Raises UserError if it is not the one that was trained with.
    """
    parent = _parent(folder, record)
    if parent is not None:
        return base_below(parent, read_stage(parent))
    init = record.get("base", "a base that its stage.json does not name")
    said = f"{folder}: its frozen weights are those of {init}"
    remedy = (
        "restore its files; if they lie elsewhere now, run the train command again with --config.model.init naming "
        "that place"
    )
    try:
        base = find_base(init, str(folder / "tokenizer"), record["seed"])
    except UserError as error:
        raise UserError(f"{said}, which cannot be read ({error}); {remedy}") from None
    if f"base:{base.fingerprint}" != record["parent"]:
        raise UserError(f"{said}, which has changed since; {remedy}")
    return init, base


def merged_before(folder: epath.Path, record: dict[str, Any]) -> str:
    """The stage whose merged weights a stage's adapter stands on; empty where it stands on the base's."""
    parent = _parent(folder, record)
    if parent is None:
        return ""
    return parent.name if record["adapter"] == "new" else merged_before(parent, read_stage(parent))


def _parent(folder: epath.Path, record: dict[str, Any]) -> epath.Path | None:
    """The folder of the stage before; None for a first stage. Raises UserError if it is not in the workdir."""
    if record["parent"].startswith("base:"):
        return None
    parent = records.stage_folder(folder.parent.parent, record["parent"])
    if parent is None:
        raise UserError(
            f"{folder}: its frozen weights are found by way of the stage {record['parent']}, which is not in "
            f"{folder.parent}; put both into the stages/ of one workdir"
        )
    return parent


def trained_params(folder: epath.Path, abstract: Params) -> Params:
    """What a finished stage's checkpoint holds: the trained parameters, with the dtypes and shardings of `abstract`.

    They are read in the dtype that they were trained in and hashed before they are cast, one after the other. Raises
    UserError if the checkpoint is damaged, if they are not those that done.json names, and if they are not finite.
    """
    record = read_stage(folder)
    done = read_done(folder, record)
    saves, step = Checkpoints(folder / "checkpoints", stage=record["id"]), done["steps"]
    total, params, broken = hashlib.sha256(), [], ""
    try:
        if processes.is_first() and (problem := checkpoints.damage(saves.folder, record["id"], step)):
            raise _set_aside(saves, step, folder, problem)
        processes.wait_for_all("the checkpoint is checked")
        stored = precision.find(record["optimizer"]["state"]).stored(abstract)
        for (path, leaf), wanted in zip(saves.leaves(step, "params", stored), jax.tree.leaves(abstract), strict=True):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            array_hash.add(total, jax.tree_util.keystr(path), leaf, jax.device_get(array_hash.words(leaf)))
            broken = broken or ("" if precision.are_finite(leaf) else name)
            params.append(leaf.astype(wanted.dtype))
    finally:
        saves.close()
    if total.hexdigest() != done["params_sha256"]:
        problem = f"its parameters hash to {total.hexdigest()[:12]}…, done.json says {done['params_sha256'][:12]}…"
        raise _set_aside(saves, step, folder, problem)
    if broken:
        raise UserError(
            f"{folder}: its parameter {broken} holds NaN or infinite values, so that the stage cannot be used; train "
            "it with a lower optimizer.learning_rate, or with optimizer.clip_norm"
        )
    return jax.tree.unflatten(jax.tree.structure(abstract), params)


def _set_aside(saves: Checkpoints, step: int, folder: epath.Path, problem: str) -> UserError:
    """Renames a finished stage's last checkpoint, so that training replaces it. → what to say of it."""
    if processes.is_first() and (folder / "done.json").exists():  # else it is being trained again already
        with contextlib.suppress(OSError):  # it may not be ours to change, or there may be none
            saves.set_aside(step, problem)
    return UserError(
        f"{folder}: its last checkpoint, after step {step}, cannot be used: {problem}. Run the same train command "
        "again: it goes on from the sound checkpoint before it, and from the stage's start where there is none"
    )


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
        return records.stage_folder(workdir, self.id) or workdir / "stages" / f"{self.name}-{self.id}"

    def is_done(self, workdir: epath.Path) -> bool:
        """True if the stage is finished, by its records; the checkpoint's and the tokenizer's files are not read."""
        folder = self.folder(workdir)
        if not (folder / "done.json").exists():
            return False
        try:
            return checkpoints.is_complete(folder / "checkpoints", self._done(folder)["steps"])
        except UserError:
            return False

    def problem(self, workdir: epath.Path) -> str | None:
        """What is missing or damaged of a stage, or None if it is finished and sound; reads its last checkpoint."""
        folder = self.folder(workdir)
        try:
            step = self._done(folder)["steps"]
            check_tokenizer(folder)
        except UserError as error:
            return str(error).partition(f"; {TRAIN_AGAIN}")[0]
        problem = checkpoints.damage(folder / "checkpoints", self.id, step)
        return f"{folder / 'checkpoints' / str(step)}: {problem}" if problem else None

    def _done(self, folder: epath.Path) -> dict[str, Any]:
        record = read_stage(folder)
        if record["id"] != self.id:
            raise records.of_another(folder / "stage.json", record["id"], self.id)
        return read_done(folder, record)


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
    def base_record(self) -> dict[str, Any]:
        """What stage.json holds of the base, without its id: all that decides its prompts and where its answers end."""
        return {
            "init": self.experiment.model.init,
            "weights": self.base.fingerprint,
            "seed": self.base.seed,
            "model": self.base.config,
            "ends": self.base.ends._asdict(),
            "template": self.chat.fingerprint,
            "tokenizer": self.tokenizer.fingerprint,
            "dtype": self.compute.dtype,
        }

    @cached_property
    def base_id(self) -> str:
        """Names the base's folder. Experiments share it if their bases answer alike: same weights, prompts, dtype."""
        return identity.digest({key: value for key, value in self.base_record.items() if key != "init"})

    @cached_property
    def tuning(self) -> Tuning:
        """What the stages train of the base. Raises UserError."""
        return tuning.of_config(self.experiment.model, self.base.config)

    def base_folder(self, workdir: epath.Path) -> epath.Path:
        return workdir / "stages" / f"base-{self.base_id}"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer(self.base.tokenizer)
        remedy = "set --config.model.tokenizer to the model's own"
        tokenizer.check_size(self.base.config.vocab_size, remedy)
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
        return cache.for_all_processes({name: self.experiment.domains[name] for name in used}, self.chat)

    @property
    def description(self) -> str:
        """The chat template with its notices, and a line per domain whose rows have fields that are left out."""
        lines = [self.chat.description]
        for name, examples in self.examples.items():
            left_out = [
                f"{field} ({rows:,} rows)" if rows < examples.rows else field for field, rows in examples.unused.items()
            ]
            if left_out:
                lines.append(f"domain '{name}': fields without a meaning for training, left out: {', '.join(left_out)}")
            lines += [f"warning: domain '{name}': {notice}" for notice in examples.notices]
        return "\n".join(lines)

    def chain(self) -> list[ResolvedStage]:
        """The stages in order, each knowing its parent and so its identity.

        Raises UserError for everything that would keep one of them from being trained, before any of them is.
        """
        stages: list[ResolvedStage] = []
        for name, stage in self.experiment.stages.items():
            longest = self.base.config.max_length
            if stage.batch.seq_len > longest:
                raise UserError(
                    f"config.stages.{name}.batch.seq_len: {stage.batch.seq_len}, the model was made for {longest} "
                    f"tokens; set it to {longest} or less, and longer examples are cut and counted"
                )
            parent = stages[-1] if stages else None
            stage = dataclasses.replace(stage, batch=stage.batch.resolved(longest))
            record = {
                "parent": parent.id if parent else f"base:{self.base.fingerprint}",
                "model": self.base.config,
                "ends": self.base.ends._asdict(),
                "mixture": stage.mixture,
                "domains": list(stage.mixture),  # their order decides that of the rows; the hash of a dict has none
                "examples": {domain: self.examples[domain].fingerprint for domain in stage.mixture},
                "validation_rows": {name: self.experiment.domains[name].validation_rows for name in stage.mixture},
                "template": self.chat.fingerprint,
                "tokenizer": self.tokenizer.fingerprint,
                "epochs": stage.epochs,
                "steps": stage.steps,
                "budget": stage.budget,
                "unit": stage.unit,
                "batch": stage.batch,
                "optimizer": stage.optimizer,
                "carry_optimizer": stage.carry_optimizer,
                "dtype": self.compute.dtype,
                "seed": self.experiment.seed,
                **self.tuning.record,
                **({} if self.tuning.is_full else {"adapter": stage.adapter if parent else "continue"}),
            }
            stages.append(ResolvedStage(name, stage, identity.plain(record), parent))
        checks.check(self, stages)
        return stages

    def plan(self, stage: Stage) -> tuple[Plan, dict[str, Pool]]:
        """The stage's data, batch by batch, and its domains' sizes."""
        return loader.make_plan(self.examples, stage.mixture, stage.batch, **self.amounts(stage))

    def amounts(self, stage: Stage) -> dict[str, Any]:
        """How much of its domains a stage takes: the arguments of loader.make_plan behind the batch."""
        return {
            "validation_rows": {name: self.experiment.domains[name].validation_rows for name in stage.mixture},
            "epochs": stage.epochs,
            "budget": stage.budget or None,
            "unit": stage.unit,
            "steps": stage.steps or None,
            "seed": self.experiment.seed,
        }

    def validation_plan(self, stage: Stage) -> Plan | None:
        """The validation rows of every domain, those too that this stage does not train on."""
        pools = {
            name: loader.pool(examples, stage.batch, self.experiment.domains[name].validation_rows)
            for name, examples in self.examples.items()
            if self.experiment.domains[name].validation_rows
        }
        rows = [mixture.validation_examples(name, pool, self.experiment.seed) for name, pool in pools.items()]
        rows = [own[pool.trained[own] > 0] for own, pool in zip(rows, pools.values(), strict=True)]
        if not sum(map(len, rows)):
            return None
        domains = np.concatenate([np.full(len(own), i, np.int32) for i, own in enumerate(rows)])
        order = Order(domains, np.concatenate(rows), {name: len(own) for name, own in zip(pools, rows, strict=True)})
        return Plan({name: self.examples[name] for name in pools}, order, stage.batch, self.experiment.seed)
