"""What a study holds, what it can detect and what it costs, before it is run."""

from __future__ import annotations

from rich import box
from rich.table import Table

from sftmix_jax.analysis import family, power
from sftmix_jax.analysis.assumptions import LEVEL, SMALLEST
from sftmix_jax.evaluation.config import EvaluationConfig, load_questions
from sftmix_jax.evaluation.task import find_task
from sftmix_jax.machine import terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.planning import aot, costs
from sftmix_jax.planning.costs import StageCost
from sftmix_jax.planning.planner import Planned, Planner
from sftmix_jax.studies.options import StudyOptions
from sftmix_jax.studies.study import Study


def show(chosen: Study, options: StudyOptions, console: terminal.Console) -> int:
    """Prints experiments, costs and power; with topologies what the planner says → exit code. Raises UserError."""
    show_experiments(chosen, console)
    show_power(chosen, options, console)
    return show_plans(chosen, options, console) if options.topology else 0


def show_experiments(chosen: Study, console: terminal.Console) -> None:
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


def show_power(chosen: Study, options: StudyOptions, console: terminal.Console) -> None:
    """Which difference between two set-ups the planned seeds and questions detect, benchmark by benchmark."""
    seeds = len({int(run.labels.get("seed") or 0) for run in chosen.runs})
    asked = {task: run.experiment.evaluation for run in chosen.runs for task in run.experiment.evaluation.tasks}
    setups = [{name: value for name, value in run.labels.items() if name != "seed"} for run in chosen.runs]
    among = family.size(setups, list(dict.fromkeys(find_task(task)[0].ability for task in asked)))
    levels = (LEVEL, LEVEL / among)
    for task, config in asked.items():
        questions = _questions(task, config)
        if not questions:
            console.print(f"{task}: its questions are not here, so what it can detect is not known", style="dim")
            continue
        least = [power.planned(seeds, questions, options.seed_spread, level) for level in levels]
        points = _span([f"{each:.1f}" if each <= 100 else "over 100" for each in least])
        able = f"detect {points} points" if seeds > 1 else "says nothing about another seed"
        many = [power.seeds_for(options.detect, questions, options.seed_spread, level) for level in levels]
        enough = _span([f"{each or 'over a thousand'}" for each in many])
        console.print(
            f"{task}: {seeds} seed{'s' * (seeds > 1)} with {questions} questions {able}; "
            f"{options.detect:g} points take {enough} seeds"
        )
    if asked:
        family_wide = (
            f" The larger number is for the only one of {among} findings that holds, the smaller for one of which all "
            "others hold (Holm's correction)."
        )
        console.print(
            f"detect: in {power.POWER:.0%} of studies a difference between two set-ups holds, which its interval above "
            f"0 and a value of {SMALLEST:g} points or more show.{family_wide * (among > 1)} Scores of seeds are taken "
            f"to have a standard deviation of {options.seed_spread:g} points (--seed_spread), and answers to a third "
            "of the questions to differ; points are hundredths of the best possible score",
            style="dim",
        )


def _span(numbers: list[str]) -> str:
    """`11.1 to 15.2`; one number where both are the same."""
    return " to ".join(dict.fromkeys(numbers))


def _questions(task: str, config: EvaluationConfig) -> int:
    """How many a task asks; 0 where its data is not here."""
    try:
        return len(load_questions(find_task(task)[0], config))
    except UserError:
        return 0


def show_plans(chosen: Study, options: StudyOptions, console: terminal.Console) -> int:
    """What the planner says of each topology: whether every stage fits, and what all of them cost. → exit code"""
    every_fits = True
    for name in options.topology:
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
