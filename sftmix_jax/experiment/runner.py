"""Trains an experiment's stages, one after the other, and scores each: what is done already is not done again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from etils import epath

from sftmix_jax.experiment import checks, stages
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment.config import Experiment
from sftmix_jax.experiment.measuring import run_tasks
from sftmix_jax.experiment.opening import Opening, open_stage
from sftmix_jax.experiment.stage_training import save_tokenizer, train_stage
from sftmix_jax.experiment.stages import Resolved, ResolvedStage
from sftmix_jax.machine import identity, processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import check_folder, write_json
from sftmix_jax.machine.leases import Leases, for_all_processes
from sftmix_jax.training import trackers
from sftmix_jax.training.trackers import Trackers
from sftmix_jax.training.trackers.tracker import Tracked
from sftmix_jax.workdir import records


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
    """Raises UserError, before a stage is trained, if something else stands where a folder of the experiment is.

    So it does if a finished stage has been renamed.
    """
    named = [workdir, *(workdir / name for name in ("experiments", "stages", "claims"))]
    own = [stage.folder(workdir) for stage in chain]
    for stage, folder in zip(chain, own, strict=True):
        elsewhere = None if folder.exists() else records.renamed(workdir, stage.id)
        if elsewhere:
            raise UserError(
                f"{elsewhere}: holds the finished stage {folder.name} under another name; name it {folder.name} again, "
                "or move it out of the workdir to train the stage once more"
            )
    for folder in (*named, *own, *(stage / name for stage in own for name in ("checkpoints", "claims", "eval"))):
        check_folder(folder)


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
        "experiment": identity.plain(config),
        "base": base_id,
        "stages": {stage.name: stage.id for stage in chain},
    }
    known = records.known(file, records.experiment)
    if known and known["stages"] != record["stages"]:
        changed = identity.differences(known["experiment"], record["experiment"])
        listed = "; ".join(changed[:5]) or "the order of its domains, the contents of its data or its base model"
        raise UserError(
            f"{workdir} holds another experiment '{config.name}', which differs in {listed}. Give this one a name "
            "of its own (--config.name=NAME; stages that both share are reused) or another --workdir"
        )
    write_json(file, record)
    _say_where_the_base_is(chain, config.model.init, workdir)
    processes.wait_for_all("registered")


def _say_where_the_base_is(chain: list[ResolvedStage], init: str, workdir: epath.Path) -> None:
    """In the records of stages with frozen weights, for a base that has been moved since they were trained."""
    for stage in chain:
        folder = stage.folder(workdir)
        if "frozen_dtype" not in stage.record or not folder.exists():
            continue
        with contextlib.suppress(UserError):  # a damaged record is written anew when the stage is trained
            record = stages.read_stage(folder)
            if record.get("base") != init:
                write_json(folder / "stage.json", {**record, "base": init})


def complete(
    resolved: Resolved,
    stage: ResolvedStage,
    workdir: epath.Path,
    holding: contextlib.AbstractContextManager[Callable[[], None]],
) -> None:
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
    save_tokenizer(resolved, folder)
    processes.wait_for_all("the base is written")
    return folder


def _is_sound(stage: ResolvedStage, workdir: epath.Path) -> bool:
    """Whether process 0 finds the stage finished and all of it undamaged."""
    problem = stage.problem(workdir) if processes.is_first() else None
    return bool(processes.first_says(problem is None))


def _leased(stage: ResolvedStage, workdir: epath.Path) -> contextlib.AbstractContextManager[Callable[[], None]]:
    """Holds the stage; raises UserError if another trainer holds it."""
    return for_all_processes(Leases(workdir / "claims").insist(stage.id, f"{stage.name} ({stage.id})"))
