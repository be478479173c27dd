"""Shows the state of a study until it is done."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

from etils import epath
from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table

from sftmix_jax.analysis import tables
from sftmix_jax.machine import terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import matching
from sftmix_jax.machine.leases import Leases
from sftmix_jax.studies import jobs, live, work
from sftmix_jax.studies.jobs import Job
from sftmix_jax.studies.study import Study
from sftmix_jax.training.metrics import duration
from sftmix_jax.workdir import records

_NEWEST = 8  # scores that are shown
_RATIOS = {"stage": 3, "of": 5, "by": 3}  # how columns with names share the width that numbers leave


def watch(
    chosen: Study, todo: list[Job], workdir: epath.Path, workers: list[subprocess.Popen[bytes]], begin: float = 0.0
) -> int:
    """Show what is done until all is, or until no worker is left."""
    leases, scores = Leases(workdir / "claims"), Scores(workdir)
    console, done, ended = terminal.Console(stderr=True), set[str](), False
    with Live(console=console, auto_refresh=False, transient=True) as drawn:
        while True:
            ended = ended or (bool(workers) and all(worker.poll() is not None for worker in workers))
            for job in todo:
                if job.id not in done and job.is_done(workdir):
                    done.add(job.id)
                    told = scores.of(job)
                    if not console.is_terminal:
                        name = f"{job.name} ({job.id}) of {job.experiments[0]}"
                        console.print(": ".join([f"{len(done)}/{len(todo)} done", name, *filter(None, [told])]))
            failed = work.failures(todo, workdir)
            if console.is_terminal:
                shown = states(chosen, todo, done, failed, workdir, leases, begin)
                for job in todo:
                    if job.id not in done and leases.holder(job.id):
                        scores.of(job)
                drawn.update(Group(shown, *scores.newest()), refresh=True)
            if ended or all(job.id in done or work.blocked(job, todo, failed) for job in todo):
                break
            time.sleep(1.0)
    if console.is_terminal and not workers:
        console.print(*scores.newest())
    return _summary(chosen, todo, workdir, done, failed, begin)


class Scores:
    """The scores of a study's stages as they come; each score.json is read once."""

    def __init__(self, workdir: epath.Path):
        self._workdir = workdir
        self._read: dict[epath.Path, tuple[str, str, str]] = {}  # score.json → stage, experiment, score

    def of(self, job: Job) -> str:
        """The main scores of a stage that are there by now, as text."""
        files = [folder / "score.json" for folder in matching(job.folder(self._workdir) / "eval", "*")]
        for file in files:
            try:
                if file not in self._read and file.exists():
                    self._read[file] = (job.name, job.experiments[0], _score(records.score(file)))
            except UserError:  # it is being written, or damaged: the report says so
                continue
        return ", ".join(self._read[file][2] for file in files if file in self._read)

    def newest(self) -> Iterator[Table]:
        """The last ones, the newest first; nothing where there are none."""
        if self._read:
            table = _table("scores", "stage", "of", "score")
            for cells in list(reversed(self._read.values()))[:_NEWEST]:
                table.add_row(*cells)
            yield table


def _score(record: dict[str, Any]) -> str:
    """A task's main metric; the task alone where it has none."""
    if not record["metrics"]:
        return str(record["task"])
    name, metric = next(iter(record["metrics"].items()))
    what = record["task"] if name == record["task"] else f"{record['task']} {name}"
    return f"{what} {tables.value(metric['value'], metric['best'])}"


def states(
    chosen: Study, todo: list[Job], done: set[str], failed: set[str], workdir: epath.Path, leases: Leases, begin: float
) -> Table:
    """What is running, what failed and what is left."""
    title = f"{chosen.name}: {len(done)} of {len(todo)} stages done"
    table = _table(title, "stage", "of", "step", "loss", "left", "by")
    waiting = 0
    for job in todo:
        if job.id in done:
            continue
        holder = leases.holder(job.id)
        if job.id in failed:
            table.add_row(job.name, job.experiments[0], "failed", style="red")
        elif holder:
            by = f"{holder.get('pid')} on {holder.get('host')}"
            table.add_row(job.name, job.experiments[0], *_progress(job, workdir, leases), by)
        else:
            waiting += 1
    table.caption = f"{waiting} waiting"
    if begin:
        table.caption += f", {(time.monotonic() - begin) / 60:.1f} min so far"
    return table


def _progress(job: Job, workdir: epath.Path, leases: Leases) -> tuple[str, str, str]:
    """Step, loss and time left of a stage that a worker holds."""
    if job.is_trained(workdir):
        return "scoring", "", ""
    try:
        now = live.stage(workdir, job.id, leases)
    except (UserError, OSError):  # a record is being written
        now = {}
    if now.get("loss") is None:
        return "starting", "", ""
    left = now.get("seconds_left")
    return f"{now['step']}/{now['steps']}", f"{now['loss']:.3f}", "" if left is None else duration(left)


def _table(title: str, *columns: str) -> Table:
    """A table of the terminal's width whose names are cut where they do not fit; numbers stand whole."""
    table = Table(
        title=title, box=box.SIMPLE, title_justify="left", caption_justify="left", expand=True, padding=(0, 1, 0, 0)
    )
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis", ratio=_RATIOS.get(column))
    return table


def _summary(
    chosen: Study, todo: list[Job], workdir: epath.Path, done: set[str], failed: set[str], begin: float
) -> int:
    trained = sum(job.stage is not None and job.id in done for job in todo)
    minutes = f" in {(time.monotonic() - begin) / 60:.1f} min" if begin else ""
    terminal.err(
        f"{chosen.name}: {trained} stages for {len(chosen.runs)} experiments, where each alone would take "
        f"{jobs.naive_stages(chosen)}{minutes}",
    )
    for job in todo:
        if job.id in failed:
            lost = [other for other in todo if work.blocked(other, todo, {job.id})]
            names = sorted({name for other in lost for name in other.experiments})
            terminal.err(
                f"failed: {job.name} ({job.id}), and with it {', '.join(names)}: see {work.failure_file(job, workdir)}"
            )
    left = [job for job in todo if job.id not in done and job.id not in failed and not work.blocked(job, todo, failed)]
    if left:
        terminal.err(f"{len(left)} stages are not done; the same command goes on")
    return 1 if failed or left else 0
