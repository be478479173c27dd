"""What can be asked of a study: to run it, to list it, to watch it or to write its jobs."""

from __future__ import annotations

import dataclasses

from sftmix_jax.analysis.assumptions import SEED_SPREAD, SMALLEST
from sftmix_jax.machine.ranges import Flag, Integer, Items, Location, Number, Text, setting, within
from sftmix_jax.planning.chips import UTILISATION


@dataclasses.dataclass
class StudyOptions:
    """The options of the study command."""

    config: str = dataclasses.field(metadata=within(Text(), "the study: studies/FILE.py[:NAME=VALUE,…]"))
    workdir: str = setting("", Location(), "the folder for stages and results; shared by all machines that work on it")
    list: bool = setting(False, Flag(), "lists experiments, what they share, and what they cost")
    topology: tuple[str, ...] = setting(
        (), Items(Text()), "with --list: what the planner says of these machines, such as v5e:4x4,v5p:2x2x2"
    )
    utilisation: float = setting(0.4, UTILISATION, "with --topology: the part of the chips' peak that training reaches")
    dry_run: bool = setting(False, Flag(), "the same as --list: nothing is run")
    only: str = setting("", Text(), "names of experiments, with * (several: a*,b*)")
    detect: float = setting(
        5.0,
        Number(above=SMALLEST, at_most=100, hint="smaller ones do not matter to the rule"),
        "with --list: how many seeds detect a difference of so many points",
    )
    seed_spread: float = setting(
        SEED_SPREAD, Number(at_least=0, at_most=100), "with --list: standard deviation of scores between seeds"
    )
    hold: str = setting("", Text(), "keeps equal: epochs, steps or trained_tokens; by default as the study says")
    probe: str = setting("", Text(), "names of experiments, with *, whose stages to look into when all is done")
    workers: int = setting(
        0, Integer(at_least=0, at_most=1024), "processes on this machine; 0: one per core for tiny models, else one"
    )
    watch: bool = setting(False, Flag(), "only shows the state of a study that runs elsewhere")
    emit: str = setting("", Text(), "slurm, xpk or sky: prints a script that submits a job per stage, and runs nothing")
    job: str = setting("", Text(), "ID: does this stage alone, as the jobs of --emit do; waits for its parent")
    logs: str = setting("", Location(), "where the workers' logs go if the workdir is remote")
    worker: int | None = setting(None, Integer(at_least=-1), "")  # number of a process that `study` has started
