"""Trains one stage, from its newest sound checkpoint if it has one, and writes what came of it."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from sftmix_jax import __version__
from sftmix_jax.data.loader import Plan
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment import stages
from sftmix_jax.experiment.stages import Resolved, ResolvedStage
from sftmix_jax.experiment.tuning import kept, placed
from sftmix_jax.machine import array_hash, identity, manifest, processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import exists, read_json, remove, unfinished, write_json
from sftmix_jax.models import decoder, kernels
from sftmix_jax.models.compute import Compute
from sftmix_jax.models.decoder import Params
from sftmix_jax.training import precision
from sftmix_jax.training.checkpoints import Checkpoints
from sftmix_jax.training.loop import Job, Outcome, Settings, train
from sftmix_jax.training.optimizer import learning_rates, make_optimizer
from sftmix_jax.training.step import Trainer, TrainState, make_trainer
from sftmix_jax.training.trackers import Trackers

_FORMER = "done.json.damaged"  # of a finished stage that is trained again


def train_stage(
    resolved: Resolved, stage: ResolvedStage, workdir: epath.Path, tracking: Trackers, check_lease: Callable[[], None]
) -> None:
    """Train one stage whose parent is done, from its newest sound checkpoint if it has one. Raises Stopped.

    What is damaged of a stage that was finished is written anew; until then it has no done.json.
    """
    mesh = experiment.make_mesh(resolved.experiment, resolved.base.config)
    config, folder = resolved.experiment, stage.folder(workdir)
    plan, pools = resolved.plan(stage.stage)
    steps = stage.stage.steps or plan.num_steps
    optimizer = make_optimizer(stage.stage.optimizer)
    compute, how = _checked(resolved, mesh, stage.stage.batch.seq_len), resolved.tuning
    trainer = make_trainer(
        how.architecture,
        compute,
        optimizer,
        mesh,
        domains=len(resolved.examples),
        grad_accum_steps=stage.stage.batch.grad_accum_steps,
        kept=precision.find(stage.stage.optimizer.state),
        trainable=how.trainable,
        frozen_dtype=how.frozen_dtype,
    )
    beginning = _Beginning(resolved, stage, trainer, compute, workdir)
    if processes.is_first():
        _reopen(stage, workdir)
    name = folder.name.removesuffix(f"-{stage.id}")  # that of the experiment which trained the stage first
    run = {"steps": steps, "devices": jax.device_count(), "kind": jax.devices()[0].device_kind}  # for those who watch
    where = {} if how.is_full else {"base": config.model.init}  # of the frozen weights, which no checkpoint holds
    write_json(folder / "stage.json", {"name": name, "id": stage.id, "run": run, **where, **stage.record})
    save_tokenizer(resolved, folder)
    rows = plan.rows_account(pools, config.seed)
    _say_plan(stage, plan.ledger(steps), rows, steps, plan.fill)
    rates, validation = learning_rates(stage.stage.optimizer, steps), resolved.validation_plan(stage.stage)
    outcome = train(
        Job(stage.name, stage.id, folder, plan, validation, steps, rates),
        trainer,
        Settings(config.checkpoints, config.logging, config.loading),
        start=beginning.state,
        frozen=beginning.frozen,
        check_lease=check_lease,
        trackers=tracking,
    )
    done = _done(stage, plan, rows, steps, outcome)
    if processes.is_first():
        _compare_with_former(folder, stage.id, done["params_sha256"])
    write_json(folder / "done.json", done)
    processes.wait_for_all("the stage is written")


def _checked(resolved: Resolved, mesh: Mesh, length: int) -> Compute:
    """The choices made, with the first attention kernel that does here what the plain path does."""
    compute, config = resolved.compute, resolved.base.config
    sizes = (config.num_heads, config.num_kv_heads, config.head_dim, length)
    every = dict.fromkeys(decoder.scores(config, kind) for kind in config.pattern)
    names = kernels.candidates(compute.attention)
    for name, following in itertools.pairwise(names):
        wrong = next(filter(None, (kernels.probe(name, mesh, compute.dtype, *sizes, each) for each in every)), "")
        if not wrong:
            return dataclasses.replace(compute, attention=name)
        if processes.is_first():
            instead = "using the plain path" if following == "plain" else f"trying '{following}'"
            terminal.err(f"warning: attention kernel '{name}' {wrong}; {instead}")
    return dataclasses.replace(compute, attention=names[-1])


def _reopen(stage: ResolvedStage, workdir: epath.Path) -> None:
    """Rename the done.json of a stage that is damaged: from here on nobody takes the stage for finished."""
    done = stage.folder(workdir) / "done.json"
    if not exists(done):
        return
    terminal.err(
        f"{stage.name} ({stage.id}) was finished but is damaged: {stage.problem(workdir)}; training it again "
        "from its newest sound checkpoint"
    )
    remove(done.with_name(_FORMER))
    done.rename(done.with_name(_FORMER))


def _compare_with_former(folder: epath.Path, id: str, params_sha256: str) -> None:
    """Report if a stage that was finished before has other parameters now, as its children have the former ones."""
    former = folder / _FORMER
    if not exists(former):
        return
    try:
        record = read_json(former, "", id=str, digest=str, params_sha256=str)
    except UserError:
        record = {"digest": None}
    is_own = record.get("id") == id and record["digest"] == stages.done_digest(record)
    before = record["params_sha256"] if is_own else params_sha256
    if before == params_sha256:  # or the record was what was damaged, or another stage's
        remove(former)
        return
    terminal.err(
        f"warning: {folder.name} was trained again and has other parameters ({params_sha256[:12]}…, before "
        f"{before[:12]}…), as on other devices or versions. Stages that start from it were trained from the former "
        f"ones; {former} is kept"
    )


class _Beginning:
    """What a stage starts from: weights of the base or of the stage before, adapters, moments.

    The base is read once where both its trained and its frozen parameters are needed.
    """

    def __init__(
        self, resolved: Resolved, stage: ResolvedStage, trainer: Trainer, compute: Compute, workdir: epath.Path
    ):
        self._resolved, self._stage, self._trainer, self._compute = resolved, stage, trainer, compute
        self._parent = stage.parent.folder(workdir) if stage.parent else None
        self._frozen: Params | None = None

    def state(self) -> TrainState:
        """The trained parameters, with a fresh optimizer unless told to carry it."""
        params = self._params()
        if self._parent is None or not self._stage.stage.carry_optimizer:
            return TrainState(params, self._trainer.init_optimizer(params))
        before = stages.read_stage(self._parent)
        saves = Checkpoints(self._parent / "checkpoints", stage=before["id"])
        try:
            step = stages.read_done(self._parent, before)["steps"]
            return TrainState(params, saves.restore_part(step, "opt_state", self._trainer.abstract.opt_state))
        finally:
            saves.close()

    def frozen(self) -> Params | None:
        """The frozen parameters; None where every one is trained."""
        if self._resolved.tuning.is_full:
            return None
        return self._split()[1] if self._frozen is None else self._frozen

    def _params(self) -> Params:
        abstract = self._trainer.abstract.params
        if self._parent is not None and self._stage.stage.adapter == "continue":
            return stages.trained_params(self._parent, abstract)
        if self._resolved.tuning.is_full:
            return self._resolved.base.params(abstract)
        params, self._frozen = self._split()
        return params

    def _split(self) -> tuple[Params, Params | None]:
        """The weights that a first adapter would stand on, with one: trained parameters and frozen ones."""
        how, abstract = self._resolved.tuning, self._trainer.abstract
        dtype = jax.tree.leaves(abstract.params)[0].dtype.name
        wanted = how.abstract_weights(self._compute, self._trainer.mesh, dtype)
        weights = self._weights(wanted)
        new = {name: x for name, x in abstract.params.get("layers", {}).items() if name not in wanted["layers"]}
        adapters = how.fresh(self._compute, self._seed(), {"layers": new})
        trained, frozen = how.trainable.split({**weights, "layers": {**weights["layers"], **adapters["layers"]}})
        return jax.tree.map(placed, trained, abstract.params), kept(frozen, abstract.frozen)

    def _weights(self, wanted: Params) -> Params:
        """Those of the base, or of the stage before a new adapter."""
        if self._parent is None:
            return self._resolved.base.params(wanted)
        if self._stage.stage.adapter == "new":
            return stages.stage_params(self._parent, wanted)
        return stages.starting_weights(self._parent, stages.read_stage(self._parent), wanted)

    def _seed(self) -> int:
        """Of a fresh adapter: with the A of the one before, a new adapter would read the same part of its inputs."""
        seed, stage, merged = self._resolved.experiment.seed, self._stage, 0
        while stage.parent is not None:
            merged += stage.stage.adapter == "new"
            stage = stage.parent
        return seed if not merged else int(identity.digest({"seed": seed, "adapter": merged}), 16) % 2**31


def _done(stage: ResolvedStage, plan: Plan, rows: dict[str, Any], steps: int, outcome: Outcome) -> dict[str, Any]:
    ledger = plan.ledger(steps)
    trained = sum(account["trained_tokens"] for account in ledger.values())
    tokens = sum(account["tokens"] for account in ledger.values())
    record = {
        "id": stage.id,
        "steps": steps,
        "ledger": ledger,
        "rows": rows,
        "packing_fill": round(plan.fill, 4),
        "validation_loss": outcome.validation_loss,
        "params_sha256": array_hash.tree_digest(outcome.state.params),
        "seconds": round(outcome.seconds, 2),
        "tokens_per_second": round(tokens / max(outcome.seconds, 1e-9), 1),
        "trained_tokens_per_second": round(trained / max(outcome.seconds, 1e-9), 1),
        "devices": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
        "version": __version__,
    }
    return {**record, "digest": stages.done_digest(record)}


def save_tokenizer(resolved: Resolved, folder: epath.Path) -> None:
    """A copy beside the stage, so that the stage alone can be sampled from; written again if it is damaged."""
    copy = folder / "tokenizer"
    of = stages.tokenizer_of({"tokenizer": resolved.tokenizer.fingerprint, "template": resolved.chat.fingerprint})
    if not processes.is_first() or (problem := manifest.damage(copy, of)) is None:
        return
    if manifest.is_sealed(copy):
        terminal.err(f"{copy}: {problem}; written again")
    building = unfinished(copy)
    try:
        resolved.chat.save(building)
        manifest.seal(building, of)
        manifest.install(building, copy, of)
    finally:
        remove(building)


def _say_plan(stage: ResolvedStage, ledger: dict[str, Any], rows: dict[str, Any], steps: int, fill: float) -> None:
    parts = []
    for domain, account in ledger.items():
        text = f"{domain} {rows[domain]['used']:,} of {rows[domain]['stored']:,} rows"
        if cut := rows[domain]["of them truncated"]:
            text += f" ({cut:,} truncated)"
        if unanswered := rows[domain]["without an answer within the length"]:
            text += f" ({unanswered:,} left out, as their answers begin behind the length)"
        if bad := sum(rows[domain]["skipped"].values()):
            text += f" ({bad:,} skipped, reasons in done.json)"
        parts.append(f"{text}, {account['trained_tokens']:,} trained tokens")
    width = shutil.get_terminal_size().columns
    terminal.err("─" * min(width, 80))
    terminal.err(f"{stage.name} ({stage.id}): {steps:,} steps, packing {fill:.1%} full")
    for part in parts:
        terminal.err(f"  {part}")
