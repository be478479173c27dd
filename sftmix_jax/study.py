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

from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.studies.options import StudyOptions as Options


def main(options: Options) -> int:
    from etils import epath

    from sftmix_jax.studies import emit, hold, jobs, listing, running, watching

    chosen = running.chosen_study(options)
    if options.list or options.dry_run:
        return listing.show(hold.held(chosen), options, terminal.Console())
    if not options.workdir:
        raise UserError("name a folder for stages and results: --workdir DIR")
    workdir = epath.Path(options.workdir)
    if options.worker is not None:
        return running.work_as(chosen, workdir, options.worker)
    if options.watch and not (workdir / "studies" / f"{chosen.name}.json").exists():
        raise UserError(f"{workdir}: the study {chosen.name} has not begun there; start it, or name its workdir")
    todo = jobs.make_jobs(hold.held(chosen), workdir)
    if options.watch:
        return watching.watch(chosen, todo, workdir, [])
    if options.emit:
        given = {"config": options.config, "workdir": options.workdir, "hold": options.hold}
        arguments = [f"--{name}={value}" for name, value in given.items() if value]
        terminal.out(emit.script(options.emit, chosen.name, arguments, todo, options.workdir), end="")
        return 0
    if options.job:
        return running.one_job(todo, options.job, workdir)
    return running.run(chosen, todo, workdir, options)


if __name__ == "__main__":
    command.run(main, Options)
