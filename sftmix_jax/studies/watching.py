"""Shows the state of a study until it is done."""

from __future__ import annotations

import subprocess
import time

from etils import epath
from rich import box
from rich.live import Live
from rich.table import Table

from sftmix_jax.machine import terminal
from sftmix_jax.machine.leases import Leases
from sftmix_jax.studies import jobs, work
from sftmix_jax.studies.jobs import Job
from sftmix_jax.studies.study import Study


def watch(
    chosen: Study, todo: list[Job], workdir: epath.Path, workers: list[subprocess.Popen[bytes]], begin: float = 0.0
) -> int:
    """Show what is done until all is, or until no worker is left."""
    leases = Leases(workdir / "claims")
    console, done, ended = terminal.Console(stderr=True), set[str](), False
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            ended = ended or (bool(workers) and all(worker.poll() is not None for worker in workers))
            for job in todo:
                if job.id not in done and job.is_done(workdir):
                    done.add(job.id)
                    if not console.is_terminal:
                        name = f"{job.name} ({job.id}) of {job.experiments[0]}"
                        console.print(f"{len(done)}/{len(todo)} done: {name}")
            failed = work.failures(todo, workdir)
            if console.is_terminal:
                live.update(_states(chosen, todo, done, failed, leases, begin), refresh=True)
            if ended or all(job.id in done or work.blocked(job, todo, failed) for job in todo):
                break
            time.sleep(1.0)
    return _summary(chosen, todo, workdir, done, failed, begin)


def _states(chosen: Study, todo: list[Job], done: set[str], failed: set[str], leases: Leases, begin: float) -> Table:
    """What is running and what is left."""
    table = Table(title=f"{chosen.name}: {len(done)} of {len(todo)} stages done", box=box.SIMPLE, title_justify="left")
    for column in ("stage", "of", "state"):
        table.add_column(column, no_wrap=True)
    waiting = 0
    for job in todo:
        if job.id in done:
            continue
        holder = leases.holder(job.id)
        if job.id in failed:
            table.add_row(job.name, job.experiments[0], "failed", style="red")
        elif holder:
            table.add_row(job.name, job.experiments[0], f"at work: {holder.get('host')}, process {holder.get('pid')}")
        else:
            waiting += 1
    if begin and done:
        table.caption = f"{waiting} waiting, {(time.monotonic() - begin) / 60:.1f} min so far"
    return table


def _summary(
    chosen: Study, todo: list[Job], workdir: epath.Path, done: set[str], failed: set[str], begin: float
) -> int:
    trained = sum(job.stage is not None and job.id in done for job in todo)
    minutes = f" in {(time.monotonic() - begin) / 60:.1f} min" if begin else ""
    terminal.err(
        f"{chosen.name}: {trained} stages for {len(chosen.runs)} experiments, where each alone would take "
        f"{jobs.naive_stages(chosen)}{minutes}",
    )  # fmt: skip
    for job in todo:
        if job.id in failed:
            lost = [other for other in todo if work.blocked(other, todo, {job.id})]
            names = sorted({name for other in lost for name in other.experiments})
            terminal.err(f"failed: {job.name} ({job.id}), and with it {', '.join(names)}: see "
                  f"{work.failure_file(job, workdir)}")  # fmt: skip
    left = [job for job in todo if job.id not in done and job.id not in failed and not work.blocked(job, todo, failed)]
    if left:
        terminal.err(f"{len(left)} stages are not done; the same command goes on")
    return 1 if failed or left else 0
