"""Run a study: every experiment of it, each stage that they share once, on several workers if there are.

python -m sftmix_jax.study --config studies/rq4.py:tiny --workdir DIR            run it, or go on; then report
python -m sftmix_jax.study … --probe 'dmt*-s0'                                   and look inside these experiments
python -m sftmix_jax.study … --hold trained_tokens                               keep these equal, or steps; not epochs
python -m sftmix_jax.study --config studies/rq4.py:7b --list                     experiments, shared stages, cost
python -m sftmix_jax.study --config studies/rq4.py:7b --list --topology v5e:4x4  and what the planner says
python -m sftmix_jax.study --config studies/rq4.py:tiny --workdir DIR --watch    only look
python -m sftmix_jax.study --config studies/rq4.py:7b --workdir DIR --emit slurm write a job a stage, for a cluster

The same command on several machines with one workdir shares the work.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from etils import epath
from rich import box
from rich.live import Live
from rich.table import Table

from sftmix_jax import probe, report
from sftmix_jax.analysis import power, rule
from sftmix_jax.evaluation.config import EvaluationConfig, load_questions
from sftmix_jax.evaluation.task import find_task
from sftmix_jax.experiment import checks
from sftmix_jax.machine import command, processes, terminal
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.files import remove
from sftmix_jax.machine.host_memory import has_accelerator
from sftmix_jax.machine.leases import Leases
from sftmix_jax.machine.ranges import Integer, Number
from sftmix_jax.models import table
from sftmix_jax.planning import aot, costs
from sftmix_jax.planning.costs import StageCost
from sftmix_jax.planning.planner import UTILISATION, Planned, Planner
from sftmix_jax.studies import emit, hold, jobs, study, work
from sftmix_jax.studies.jobs import Job
from sftmix_jax.studies.study import Run, Study
from sftmix_jax.training.loop import Stopped

_SMALL = 50_000_000  # parameters; up to so many, one process a core is the fastest on a CPU


def main() -> int:
    options = _parse()
    chosen = _chosen(study.read(options.config), options.only)
    if options.hold:
        chosen = dataclasses.replace(chosen, hold=options.hold)
        chosen.check()
    _matching(chosen, options.probe, "--probe")
    if options.list or options.dry_run:
        chosen = hold.held(chosen)
        _print_list(chosen, terminal.Console())
        _print_power(chosen, options, terminal.Console())
        return _print_plans(chosen, options, terminal.Console()) if options.topology else 0
    if not options.workdir:
        raise UserError("name a folder for stages and results: --workdir DIR")
    workdir = epath.Path(options.workdir)
    if options.worker is not None:
        return _worker(chosen, workdir, options.worker)
    todo = jobs.make_jobs(hold.held(chosen), workdir)
    if options.watch:
        return _watch(chosen, todo, workdir, [])
    if options.emit:
        arguments = [f"--config={options.config}", f"--workdir={options.workdir}"]
        arguments += [f"--hold={options.hold}"] if options.hold else []
        terminal.out(emit.script(options.emit, chosen.name, arguments, todo, options.workdir), end="")
        return 0
    if options.job:
        return _one(todo, options.job, workdir)
    warnings = [each for job in todo if job.stage for each in checks.warnings(job.resolved, [job.stage])]
    for warning in dict.fromkeys(warnings):
        terminal.err(f"warning: {warning}")
    for job in todo:  # what failed before is tried again
        remove(work.failure_file(job, workdir))
    return _run(chosen, todo, workdir, options)


def _chosen(whole: Study, only: str) -> Study:
    """The experiments whose names match one of the comma-separated patterns."""
    return dataclasses.replace(whole, runs=_matching(whole, only, "--only")) if only else whole


def _matching(whole: Study, wanted: str, option: str) -> list[Run]:
    """The runs whose names an option's patterns match. Raises UserError if a pattern matches none."""
    patterns = [pattern for pattern in wanted.split(",") if pattern]
    for pattern in patterns:
        if not any(fnmatch.fnmatch(run.experiment.name, pattern) for run in whole.runs):
            raise UserError(
                f"{option} '{pattern}' matches none of {len(whole.runs)} experiments; --list shows their names"
            )
    return [run for run in whole.runs if any(fnmatch.fnmatch(run.experiment.name, pattern) for pattern in patterns)]


def _run(chosen: Study, todo: list[Job], workdir: epath.Path, options: argparse.Namespace) -> int:
    """Start the workers, look at them until all is done, say what failed; then probe, and write the report."""
    begin = time.monotonic()
    logs = Path(options.logs or ".") if "://" in str(workdir) else Path(os.fspath(workdir)) / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    count = options.workers or _default_workers(chosen)
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "sftmix_jax.study", *sys.argv[1:], "--worker", str(number if count > 1 else -1)],
            stdout=subprocess.DEVNULL, stderr=(logs / f"{os.uname().nodename}-{number}.log").open("a"),
        ) for number in range(count)
    ]  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers hear of it too
    try:
        code = _watch(chosen, todo, workdir, workers, begin)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait()
    for run in _matching(chosen, options.probe, "--probe"):
        probe.probe(run.experiment, workdir)
    if any(job.is_done(workdir) for job in todo):
        terminal.out(f"report: {report.write(workdir, chosen.name)[0]}")
    return code


def _one(todo: list[Job], wanted: str, workdir: epath.Path) -> int:
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


def _worker(chosen: Study, workdir: epath.Path, core: int) -> int:
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


def _watch(
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


def _print_list(chosen: Study, console: terminal.Console) -> None:
    """Every experiment with its stages; a stage is named with its id where others have it too."""
    every = {run.experiment.name: costs.stage_costs(run.experiment) for run in chosen.runs}
    holders: dict[str, list[str]] = {}
    for name, chain in every.items():
        for cost in chain:
            holders.setdefault(cost.key, []).append(name)
    table = Table(title=f"{chosen.name}: {chosen.question}", box=box.SIMPLE, title_justify="left")
    table.add_column("experiment", no_wrap=True)
    table.add_column("stages (shared ones with the number of experiments that hold them)")
    for column in ("steps", "tokens", "FLOPs"):
        table.add_column(column, justify="right")
    for name, chain in every.items():
        stages = " → ".join(
            cost.name + (f" ({len(holders[cost.key])}×)" if len(holders[cost.key]) > 1 else "") for cost in chain
        )
        table.add_row(name, stages, *_sums(chain))
    console.print(table)
    naive = [cost for chain in every.values() for cost in chain]
    shared = list(costs.distinct(every.values()).values())
    for title, stages_ in (("each experiment alone", naive), ("shared stages once", shared)):
        steps, tokens, operations = _sums(stages_)
        console.print(f"{title}: {len(stages_)} stages, {steps} steps, {tokens} tokens, {operations} FLOPs")
    if any(cost.expected for cost in naive):
        console.print(
            "the data is not here: rows and tokens are those that its sources are expected to have", style="dim"
        )


def _print_power(chosen: Study, options: argparse.Namespace, console: terminal.Console) -> None:
    """Which difference between two set-ups the planned seeds and questions detect, benchmark by benchmark."""
    seeds = len({int(run.labels.get("seed") or 0) for run in chosen.runs})
    asked = {task: run.experiment.evaluation for run in chosen.runs for task in run.experiment.evaluation.tasks}
    for task, config in asked.items():
        questions = _questions(task, config)
        if not questions:
            console.print(f"{task}: its questions are not here, so what it can detect is not known", style="dim")
            continue
        least = power.detectable(seeds, questions, options.seed_spread)
        able = f"detect {least:.1f} points" if seeds > 1 else "says nothing about another seed"
        enough = power.seeds_for(options.detect, questions, options.seed_spread)
        more = f"{options.detect:g} points take {enough or 'over a thousand'} seeds"
        console.print(f"{task}: {seeds} seed{'s' * (seeds > 1)} with {questions} questions {able}; {more}")
    if asked:
        console.print(
            f"detect: a difference between two set-ups is told from 0 in {power.POWER:.0%} of studies, where scores of "
            f"seeds have a standard deviation of {options.seed_spread:g} points (--seed_spread) and answers to a third "
            "of the questions differ; points are hundredths of the best possible score", style="dim",
        )  # fmt: skip


def _questions(task: str, config: EvaluationConfig) -> int:
    """How many a task asks; 0 where its data is not here."""
    try:
        return len(load_questions(find_task(task)[0], config))
    except UserError:
        return 0


def _print_plans(chosen: Study, options: argparse.Namespace, console: terminal.Console) -> int:
    """What the planner says of each topology: whether every stage fits, and what all of them cost. → exit code"""
    every_fits = True
    for name in options.topology.split(","):
        planner = Planner(aot.find_topology(name), options.utilisation)
        naive: list[tuple[str, Planned]] = []
        for run in chosen.runs:
            keys = [cost.key for cost in costs.stage_costs(run.experiment)]
            naive += zip(keys, planner.plan(run.experiment), strict=True)
        shared = dict(naive)
        for title, planned in (
            ("each experiment alone", [p for _, p in naive]),
            ("shared stages once", shared.values()),
        ):
            hours, dollars = (sum(getattr(each, field) for each in planned) for field in ("chip_hours", "dollars"))
            console.print(f"{name}, {title}: {hours:,.1f} chip-hours, ${dollars:,.0f}")
        for message in sorted({f"{each.stage}: {each.message}" for each in shared.values() if not each.fits}):
            every_fits = False
            console.print(f"{name}, does NOT fit: {message}")
        console.print(f"at {options.utilisation:.0%} of the chips' peak", style="dim")
    return 0 if every_fits else 1


def _sums(chain: list[StageCost]) -> tuple[str, str, str]:
    steps, tokens, operations = (sum(getattr(c, name) for c in chain) for name in ("steps", "tokens", "flops"))
    return f"{steps:,}", f"{tokens / 1e6:,.2f}M", f"{operations:.2e}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sftmix_jax.study", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--config", required=True, help="studies/FILE.py[:SIZE[,SEEDS]]")
    add("--workdir", default="", help="where stages and results go; shared by all machines that work on it")
    add("--list", action="store_true", help="experiments, what they share, and what they cost")
    add("--topology", default="", help="with --list: what the planner says of these machines, e.g. v5e:4x4,v5p:2x2x2")
    add("--utilisation", type=UTILISATION.parse, default=0.4, help="with --topology: of the chips' peak")
    add("--dry_run", action="store_true", help="the same as --list: nothing is run")
    add("--only", default="", help="names of experiments, with * (several: a*,b*)")
    add("--detect", type=Number(above=0, at_most=100).parse, default=rule.SMALLEST,
        help="with --list: how many seeds detect a difference of so many points")  # fmt: skip
    add("--seed_spread", type=Number(at_least=0, at_most=100).parse, default=power.SEED_SPREAD,
        help="with --list: the standard deviation of scores between seeds, in points")  # fmt: skip
    add("--hold", default="", help="what comparisons keep equal: epochs, steps or trained_tokens (the study's own)")
    add("--probe", default="", help="names of experiments, with *, whose stages to look into when all is done")
    add("--workers", type=Integer(at_least=0, at_most=1024).parse, default=0,
        help="processes on this machine; by default one per core for tiny models")  # fmt: skip
    add("--watch", action="store_true", help="only show the state of a study that runs elsewhere")
    add("--emit", default="", help="slurm, xpk or sky: print a script that submits a job a stage, and run nothing")
    add("--job", default="", metavar="ID", help="do this stage alone, as --emit's jobs do; waits for its parent")
    add("--logs", default="", help="where the workers' logs go if the workdir is remote")
    add("--worker", type=int, default=None, help=argparse.SUPPRESS)
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    command.run(main)
