"""Runs a study: workers on this machine until all is done, then probes and the report."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from etils import epath

from sftmix_jax.analysis import tables
from sftmix_jax.experiment import checks, probing
from sftmix_jax.machine import processes, terminal
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.files import remove
from sftmix_jax.machine.host_memory import has_accelerator
from sftmix_jax.models import table
from sftmix_jax.planning import costs
from sftmix_jax.probes.settings import ProbeConfig
from sftmix_jax.studies import hold, jobs, reporting, study, watching, work
from sftmix_jax.studies.jobs import Job
from sftmix_jax.studies.options import StudyOptions
from sftmix_jax.studies.study import Run, Study
from sftmix_jax.training.loop import Stopped

_SMALL = 50_000_000  # parameters; up to so many, one process a core is the fastest on a CPU


def chosen_study(options: StudyOptions) -> Study:
    """The study with the experiments that --only names, and with --hold. Raises UserError, also for --probe."""
    chosen = study.read(options.config)
    if options.only:
        chosen = dataclasses.replace(chosen, runs=matching(chosen, options.only, "--only"))
    if options.hold:
        chosen = dataclasses.replace(chosen, hold=options.hold)
        chosen.check()
    matching(chosen, options.probe, "--probe")
    return chosen


def matching(whole: Study, wanted: str, option: str) -> list[Run]:
    """The runs whose names an option's patterns match. Raises UserError if a pattern matches none."""
    patterns = [pattern for pattern in wanted.split(",") if pattern]
    for pattern in patterns:
        if not any(fnmatch.fnmatch(run.experiment.name, pattern) for run in whole.runs):
            raise UserError(
                f"{option} '{pattern}' matches none of {len(whole.runs)} experiments; --list shows their names"
            )
    return [run for run in whole.runs if any(fnmatch.fnmatch(run.experiment.name, pattern) for pattern in patterns)]


def run(chosen: Study, todo: list[Job], workdir: epath.Path, options: StudyOptions) -> int:
    """Start the workers, look at them until all is done, say what failed; then probe, and write the report."""
    warnings = [each for job in todo if job.stage for each in checks.warnings(job.resolved, [job.stage])]
    for warning in dict.fromkeys(warnings):
        terminal.err(f"warning: {warning}")
    for job in todo:  # what failed before is tried again
        remove(work.failure_file(job, workdir))
    begin = time.monotonic()
    logs = Path(options.logs or ".") if "://" in str(workdir) else Path(os.fspath(workdir)) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    count = options.workers or _default_workers(chosen)
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "sftmix_jax.study", *sys.argv[1:], "--worker", str(number if count > 1 else -1)],
            stdout=subprocess.DEVNULL,
            stderr=(logs / f"{os.uname().nodename}-{number}.log").open("a"),
        )
        for number in range(count)
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers hear of it too
    try:
        code = watching.watch(chosen, todo, workdir, workers, begin)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait()
    for each in matching(chosen, options.probe, "--probe"):
        probing.probe(each.experiment, workdir, ProbeConfig())
    if any(job.is_done(workdir) for job in todo):
        page = reporting.write(workdir, chosen.name)[0]
        if main := reporting.main_table(page):
            tables.print_made(main)
        terminal.out(f"report: {page}")
    return code


def one_job(todo: list[Job], wanted: str, workdir: epath.Path) -> int:
    """A single job of the study, by its id."""
    job = next((job for job in todo if job.id == wanted), None)
    if job is None:
        raise UserError(f"--job {wanted}: no stage of this study; {did_you_mean(wanted, [job.id for job in todo])}")
    processes.join()
    work.failure_file(job, workdir).unlink(missing_ok=True)
    try:
        return 0 if work.do_one(job, todo, workdir) else 1
    except Stopped as stopped:
        return stopped.code


def _default_workers(chosen: Study) -> int:
    """One a core for models that a core holds easily on a machine without accelerators, else one."""
    small = all(table.num_params(costs.architecture(run.experiment)) <= _SMALL for run in chosen.runs[:1])
    return len(os.sched_getaffinity(0)) if small and not has_accelerator() else 1


def work_as(chosen: Study, workdir: epath.Path, core: int) -> int:
    """One worker, on one core if there are several."""
    processes.join()
    if processes.are_many():
        raise UserError("a study's workers are one process each: let --emit make a job of each stage, for all hosts")
    if core >= 0:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})
    try:
        work.work(jobs.make_jobs(hold.held(chosen), workdir), workdir)
    except Stopped as stopped:
        return stopped.code
    return 0
