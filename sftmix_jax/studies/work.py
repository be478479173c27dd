"""A worker: takes the next job that nobody has, until none is left."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable

from etils import epath

from sftmix_jax.experiment.runner import complete, score_base
from sftmix_jax.machine import processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import write_json
from sftmix_jax.machine.leases import Leases, Lost, for_all_processes
from sftmix_jax.studies.jobs import Job
from sftmix_jax.training.loop import Stopped

_WAIT = 1.0  # seconds between looks for something to do


def work(jobs: list[Job], workdir: epath.Path) -> None:
    """Do every job that can be done, together with other workers on the same workdir.

    A job that fails is written down under failures/ and not tried again; those that need it are left. Raises Stopped
    when asked to stop.
    """
    leases = Leases(workdir / "claims")
    finished: set[str] = set()
    while True:
        open_ = [job for job in jobs if job.id not in finished]
        failed = failures(jobs, workdir)
        possible = [job for job in open_ if not blocked(job, jobs, failed)]
        if not possible:
            return
        for job in possible:
            if job.is_done(workdir):
                finished.add(job.id)
                break
            if not _is_ready(job, jobs, workdir):
                continue
            try:
                with leases.take(job.id) as lease:
                    if lease:
                        _do(job, workdir, lease.check)
                        break
            except Lost as lost:
                terminal.err(lost)
                break
        else:
            time.sleep(_WAIT)


def do_one(job: Job, jobs: list[Job], workdir: epath.Path) -> bool:
    """One job that a cluster's queue gave this command, with all its processes, once its parent is trained.

    → whether it is done. Raises Stopped.
    """
    by_id = {other.id: other for other in jobs}
    parent = by_id.get(job.parent) if job.parent else None
    while parent is not None and not processes.first_says(parent.is_trained(workdir)):
        if processes.first_says(blocked(job, jobs, failures(jobs, workdir))):
            raise UserError(
                f"{job.name} ({job.id}) starts from {parent.name} ({parent.id}), which failed: see "
                f"{failure_file(parent, workdir)}"
            )
        time.sleep(_WAIT)
    lease = Leases(workdir / "claims").wait(job.id, f"{job.name} ({job.id})")
    with for_all_processes(lease) as check_lease:
        _do(job, workdir, check_lease)
    return job.is_done(workdir)


def _is_ready(job: Job, jobs: list[Job], workdir: epath.Path) -> bool:
    parent = next((other for other in jobs if other.id == job.parent), None)
    return parent is None or parent.is_trained(workdir)


def _do(job: Job, workdir: epath.Path, check_lease: Callable[[], None]) -> None:
    if processes.first_says(job.is_done(workdir)):  # by another worker, between the look and the lease
        return
    begin = time.monotonic()
    try:
        if job.stage is None:
            score_base(job.resolved, workdir)
        else:
            complete(job.resolved, job.stage, workdir, contextlib.nullcontext(check_lease))
    except (Stopped, Lost):
        raise
    except Exception as error:
        text = str(error) if isinstance(error, UserError) else traceback.format_exc()
        write_json(failure_file(job, workdir), {"job": job.name, "experiments": job.experiments, "error": text})
        terminal.err(f"failed: {job.name} ({job.id}): {error}")
        return
    terminal.err(f"done: {job.name} ({job.id}) in {time.monotonic() - begin:.0f} s")


def failure_file(job: Job, workdir: epath.Path) -> epath.Path:
    return workdir / "failures" / f"{job.id}.json"


def failures(jobs: list[Job], workdir: epath.Path) -> set[str]:
    """Ids of the jobs that failed."""
    return {job.id for job in jobs if failure_file(job, workdir).exists()}


def blocked(job: Job, jobs: list[Job], failed: set[str]) -> bool:
    """Whether the job or one that it needs has failed."""
    by_id = {other.id: other for other in jobs}
    current: Job | None = job
    while current is not None:
        if current.id in failed:
            return True
        current = by_id.get(current.parent) if current.parent else None
    return False
