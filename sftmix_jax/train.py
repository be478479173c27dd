"""Train an experiment's stages, one after the other; what is done already is not done again.

python -m sftmix_jax.train --config dmt.py[:SIZE] --workdir DIR [--config.field=value …]
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
import sys
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from sftmix_jax import __version__
from sftmix_jax.analysis import tables
from sftmix_jax.data.loader import Plan
from sftmix_jax.evaluate import comparable_results, run_tasks
from sftmix_jax.experiment import checks, stages
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment.config import Experiment
from sftmix_jax.experiment.opening import Opening, open_stage
from sftmix_jax.experiment.stages import Resolved, ResolvedStage
from sftmix_jax.machine import array_hash, command, identity, manifest, processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import check_folder, exists, read_json, remove, unfinished, write_json
from sftmix_jax.machine.leases import Leases, for_all_processes
from sftmix_jax.models import kernels
from sftmix_jax.models.llama import Compute
from sftmix_jax.training import precision, trackers
from sftmix_jax.training.checkpoints import Checkpoints
from sftmix_jax.training.loop import Outcome, Stopped, train
from sftmix_jax.training.optimizer import learning_rates, make_optimizer
from sftmix_jax.training.step import Trainer, TrainState, make_trainer
from sftmix_jax.training.trackers import Trackers
from sftmix_jax.training.trackers.tracker import Tracked
from sftmix_jax.workdir import records

_FORMER = "done.json.damaged"  # of a finished stage that is trained again


def main() -> int:
    config, options = experiment.parse(sys.argv[1:])
    if not options["workdir"]:
        raise UserError("name a folder for stages and results: --workdir DIR")
    workdir = epath.Path(options["workdir"])
    try:
        run(config, workdir)
        if config.evaluation.tasks and processes.is_first():
            tables.print_abilities(comparable_results(workdir, config.name))
    except Stopped as stopped:
        terminal.err("stopped and saved; the same command goes on from here")
        return stopped.code
    return 0


def run(config: Experiment, workdir: epath.Path) -> list[epath.Path]:
    """Train every stage that is not done, evaluate after each if asked to. → the stages' folders."""
    trackers.require(config.logging)
    resolved = Resolved(config)
    experiment.make_mesh(config, resolved.base.config)  # before any data is read: a batch may not fit it
    chain = resolved.chain()
    check_folders(chain, workdir)
    if processes.is_first():
        terminal.err(resolved.description)
        for warning in checks.warnings(resolved, chain):
            terminal.err(f"warning: {warning}")
    register(config, resolved.base_id, chain, workdir)
    score_base(resolved, workdir)
    for stage in chain:
        complete(resolved, stage, workdir, _leased(stage, workdir))
    return [stage.folder(workdir) for stage in chain]


def check_folders(chain: list[ResolvedStage], workdir: epath.Path) -> None:
    """Raises UserError if something else stands where a folder of the experiment is, before a stage is trained."""
    named = [workdir, *(workdir / name for name in ("experiments", "stages", "claims"))]
    own = [stage.folder(workdir) for stage in chain]
    for folder in (*named, *own, *(stage / name for stage in own for name in ("checkpoints", "claims", "eval"))):
        check_folder(folder)


def _is_sound(stage: ResolvedStage, workdir: epath.Path) -> bool:
    """Whether process 0 finds the stage finished and all of it undamaged."""
    problem = stage.problem(workdir) if processes.is_first() else None
    return bool(processes.first_says(problem is None))


def _leased(stage: ResolvedStage, workdir: epath.Path) -> contextlib.AbstractContextManager[Callable[[], None]]:
    """Holds the stage; raises UserError if another trainer holds it."""
    return for_all_processes(Leases(workdir / "claims").insist(stage.id, f"{stage.name} ({stage.id})"))


def register(config: Experiment, base_id: str, chain: list[ResolvedStage], workdir: epath.Path) -> None:
    """Write the experiment down. Raises UserError if the workdir knows another one by this name, or is not shared."""
    file = workdir / "experiments" / f"{config.name}.json"
    if not processes.is_first():
        processes.wait_for_all("registered")
        if not file.exists():
            raise UserError(
                f"{workdir}: process 0 has written {file.name}, which is not seen here; the workdir must be on storage "
                "that all processes share (gs://, NFS)"
            )
        return
    record = {
        "experiment": identity.plain(config), "base": base_id, "stages": {stage.name: stage.id for stage in chain}
    }  # fmt: skip
    known = records.known(file, records.experiment)
    if known and known["stages"] != record["stages"]:
        changed = identity.differences(known["experiment"], record["experiment"])
        listed = "; ".join(changed[:5]) or "the order of its domains, the contents of its data or its base model"
        raise UserError(
            f"{workdir} holds another experiment '{config.name}', which differs in {listed}. Give this one a name "
            "of its own (--config.name=NAME; stages that both share are reused) or another --workdir"
        )
    write_json(file, record)
    processes.wait_for_all("registered")


def complete(
    resolved: Resolved, stage: ResolvedStage, workdir: epath.Path,
    holding: contextlib.AbstractContextManager[Callable[[], None]],
) -> None:  # fmt: skip
    """Train a stage whose parent is done, unless it is done itself, and evaluate it as the experiment asks.

    `holding` gives what `train` calls before it saves; it is entered to train alone. Raises Stopped.
    """
    config, folder = resolved.experiment, stage.folder(workdir)
    tracked = Tracked(folder, config.name, {"name": stage.name, "id": stage.id, **stage.record})
    with Trackers(tracked, config.logging) as tracking:
        if _is_sound(stage, workdir):
            terminal.err(f"{stage.name} ({stage.id}): done already")
        else:
            with holding as check_lease:
                if not _is_sound(stage, workdir):  # another process may have finished it meanwhile
                    train_stage(resolved, stage, workdir, tracking, check_lease)
        evaluate_stage(folder, config, tracking, records.done(folder / "done.json")["steps"])


def score_base(resolved: Resolved, workdir: epath.Path) -> None:
    """Write the base's folder, and evaluate the base as the experiment asks."""
    config, folder = resolved.experiment, write_base(resolved, workdir)
    record = {"name": "base", "id": resolved.base_id, "init": config.model.init}
    with Trackers(Tracked(folder, config.name, record), config.logging) as tracking:
        evaluate_stage(folder, config, tracking, 0)


def evaluate_stage(folder: epath.Path, config: Experiment, tracking: Trackers, step: int) -> None:
    """The config's tasks on one stage, as it is after `step`; nothing where they were scored before."""
    if not config.evaluation.tasks:
        return
    run_tasks(open_stage(folder, Opening()), config.evaluation, Opening(), lambda new: tracking.score(new, step))


def write_base(resolved: Resolved, workdir: epath.Path) -> epath.Path:
    """A folder for the base beside those of the stages, so that it is evaluated and sampled like them."""
    folder, record = resolved.base_folder(workdir), {"name": "base", "id": resolved.base_id, **resolved.base_record}
    write_json(folder / "stage.json", {**identity.plain(record), "digest": stages.stage_digest(record)})
    _save_tokenizer(resolved, folder)
    processes.wait_for_all("the base is written")
    return folder


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
    trainer = make_trainer(
        resolved.base.config, _checked(resolved, mesh, stage.stage.batch.seq_len), optimizer, mesh,
        domains=len(resolved.examples), grad_accum_steps=stage.stage.batch.grad_accum_steps,
        kept=precision.find(stage.stage.optimizer.state),
    )  # fmt: skip
    if processes.is_first():
        _reopen(stage, workdir)
    name = folder.name.removesuffix(f"-{stage.id}")  # that of the experiment which trained the stage first
    write_json(folder / "stage.json", {"name": name, "id": stage.id, **stage.record})
    _save_tokenizer(resolved, folder)
    rows = plan.rows_account(pools, config.seed)
    _say_plan(stage, plan.ledger(steps), rows, steps, plan.fill)
    outcome = train(
        stage.name, folder, trainer, plan, steps,
        start=lambda: _start(resolved, stage, trainer, workdir),
        rates=learning_rates(stage.stage.optimizer, steps),
        validation=resolved.validation_plan(stage.stage),
        checkpoints=config.checkpoints, logging=config.logging, loading=config.loading,
        trackers=tracking,
        stage_id=stage.id, check_lease=check_lease,
    )  # fmt: skip
    done = _done(stage, plan, rows, steps, outcome)
    if processes.is_first():
        _compare_with_former(folder, stage.id, done["params_sha256"])
    write_json(folder / "done.json", done)
    processes.wait_for_all("the stage is written")


def _checked(resolved: Resolved, mesh: Mesh, length: int) -> Compute:
    """The choices made, with the first attention kernel that does here what the plain path does."""
    compute, config = resolved.compute, resolved.base.config
    sizes = (config.num_heads, config.num_kv_heads, config.head_dim, length)
    names = kernels.candidates(compute.attention)
    for name, following in itertools.pairwise(names):
        wrong = kernels.probe(name, mesh, compute.dtype, *sizes)
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
    terminal.err(f"{stage.name} ({stage.id}) was finished but is damaged: {stage.problem(workdir)}; training it again "
                 "from its newest sound checkpoint")  # fmt: skip
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
    terminal.err(f"warning: {folder.name} was trained again and has other parameters ({params_sha256[:12]}…, before "
          f"{before[:12]}…), as on other devices or versions. Stages that start from it were trained from the former "
          f"ones; {former} is kept")  # fmt: skip


def _start(resolved: Resolved, stage: ResolvedStage, trainer: Trainer, workdir: epath.Path) -> TrainState:
    """Parameters of the stage before, or of the base; a fresh optimiser unless told to carry it."""
    if stage.parent is None:
        params = resolved.base.params(trainer.abstract.params)
        return TrainState(params, trainer.init_optimizer(params))
    parent = stage.parent.folder(workdir)
    params = stages.stage_params(parent, trainer.abstract.params)
    if not stage.stage.carry_optimizer:
        return TrainState(params, trainer.init_optimizer(params))
    saves = Checkpoints(parent / "checkpoints", stage=stage.parent.id)
    try:
        step = stages.read_done(parent, stages.read_stage(parent))["steps"]
        return TrainState(params, saves.restore_part(step, "opt_state", trainer.abstract.opt_state))
    finally:
        saves.close()


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


def _save_tokenizer(resolved: Resolved, folder: epath.Path) -> None:
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
        if lost := sum(rows[domain]["skipped"].values()) + rows[domain]["without an answer within the length"]:
            text += f" ({lost:,} skipped, reasons in done.json)"
        parts.append(f"{text}, {account['trained_tokens']:,} trained tokens")
    width = shutil.get_terminal_size().columns
    terminal.err("─" * min(width, 80))
    terminal.err(f"{stage.name} ({stage.id}): {steps:,} steps, packing {fill:.1%} full")
    for part in parts:
        terminal.err(f"  {part}")


if __name__ == "__main__":
    command.run(main, together=True)
