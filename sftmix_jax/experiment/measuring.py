"""Scores of stages and models: tasks with their judge, and what may stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etils import epath

from sftmix_jax.analysis import responses, results, tables
from sftmix_jax.evaluation import contamination, harness, runner
from sftmix_jax.evaluation.answers import Model
from sftmix_jax.evaluation.compare import compare
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.evaluation.judges import make_judge
from sftmix_jax.evaluation.judging import Judge
from sftmix_jax.evaluation.layouts import Columns
from sftmix_jax.evaluation.stored_judgments import score_judgments
from sftmix_jax.evaluation.task import ability_of, find_task
from sftmix_jax.experiment import tracking
from sftmix_jax.experiment.evaluate_options import EvaluateOptions
from sftmix_jax.experiment.opening import Opening, one_stage, open_model, open_stage, stage_folders
from sftmix_jax.machine import processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import check_out


def score_stages(options: EvaluateOptions, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Scores the chosen stages of a workdir, and prints or draws what the workdir's stages can do.

    → score.json of each stage and task. Raises UserError.
    """
    workdir = epath.Path(options.workdir)
    records = []
    for folder in stage_folders(workdir, options.stage):
        records += measure(open_stage(folder, options.opening), config, options)
    if config.tasks and not options.skip_contamination and processes.is_first():
        _add_contamination(records, workdir, config)
    found = comparable_results(workdir)
    if options.json:
        terminal.out_json(records, indent=1)
    else:
        tables.print_abilities(found)
        for record in records:
            tables.print_failures(record)
    if options.picture:
        from sftmix_jax.analysis import drawing, figures

        drawing.draw(figures.abilities_over_stages(found), workdir / "abilities.png")
        terminal.err(f"picture: {workdir / 'abilities.png'}")
    return records


def score_model(options: EvaluateOptions, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Scores a model folder, a hub id or a stage folder → score.json of each task. Raises UserError."""
    out = epath.Path(options.out) if options.out else None
    return measure(open_model(options.model, options.opening, out), config, options)


def score_responses(options: EvaluateOptions, config: EvaluationConfig, columns: Columns) -> dict[str, Any]:
    """Scores stored responses to one task → score.json. Raises UserError."""
    out = epath.Path(options.out) if options.out else None
    judge = judge_of(config, options.opening)
    return runner.score_responses(config.tasks[0], epath.Path(options.responses), config, judge, out, columns)


def read_judgments(options: EvaluateOptions, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Scores stored judgments of one task → score.json of each model. Raises UserError."""
    return score_judgments(config.tasks[0], [epath.Path(file) for file in options.judgments], config)


def check_target(options: EvaluateOptions) -> None:
    """Raises UserError if --out cannot be written to, before anything is asked or scored."""
    if processes.is_first():
        parts = [part for name in options.tasks for part in ("claims", f"eval/{name}")] if options.model else [""]
        for part in parts:
            check_out(epath.Path(options.out) / part)


def _add_contamination(records: list[dict[str, Any]], workdir: epath.Path, config: EvaluationConfig) -> None:
    """Which questions stand in the training data: said, and put beside the scores."""
    try:
        seen = contamination.measure(workdir, config)
    except UserError as error:
        terminal.err(f"the questions were not looked for in the training data: {error}")
        return
    tables.print_contamination(seen)
    for record in records:
        if record["task"] in seen:
            record["contamination"] = seen[record["task"]]["questions"]


def comparable_results(workdir: epath.Path, experiment: str = "") -> list[results.Result]:
    """What may stand side by side of a workdir, or of one experiment; what may not is named on stderr."""
    every = results.every_experiment(workdir)
    if experiment:
        every["experiments"] = {experiment: every["experiments"][experiment]}
    return comparable_of(workdir, every)


def comparable_of(workdir: epath.Path, study: dict[str, Any]) -> list[results.Result]:
    """What may stand side by side of a study's experiments; what may not is named on stderr."""
    found, set_aside = results.comparable(results.read_results(workdir, study, ability_of))
    for told in set_aside:
        terminal.err(told)
    return found


def measure(model: Model, config: EvaluationConfig, options: EvaluateOptions) -> list[dict[str, Any]]:
    """Every task of the config and of lm-eval on one model → their score.json. Raises UserError."""
    if config.tasks and processes.is_first():
        terminal.err(f"{model.name}: {model.chat.description}")
    with tracking.trackers_of(model.folder) as send:
        records = run_tasks(model, config, options.opening, send)
        if options.lm_eval:
            with tracking.sending(model.folder, send):
                records += harness.run(model, list(options.lm_eval), options.limit, options.lm_eval_tasks)
    return records


def run_tasks(
    model: Model, config: EvaluationConfig, opening: Opening, send: tracking.Send = lambda _: None
) -> list[dict[str, Any]]:
    """Every task of a config on one model → their score.json; `send` gets what is new of a task once it is scored."""
    judge = judge_of(config, opening)
    records = []
    for name in config.tasks:
        with tracking.sending(model.folder, send):
            records.append(runner.run_task(model, name, config, judge))
    return records


def judge_of(config: EvaluationConfig, opening: Opening) -> Judge | None:
    """The config's judge, where one of its tasks needs it."""
    needed = any(find_task(name)[0].rubric for name in config.tasks)
    return make_judge(config.judge, lambda name: open_model(name, opening)) if config.judge.name and needed else None


def compare_stages(
    workdir: epath.Path, stages: Sequence[str], tasks: Sequence[str], lm_eval: Sequence[str] = ()
) -> None:
    """Prints how two stages of a workdir, or two stage folders, differ on the same questions. Raises UserError."""
    folders = [epath.Path(stage).expanduser() for stage in stages]
    first, second = (
        folder if (folder / "stage.json").exists() else one_stage(workdir, stage)
        for folder, stage in zip(folders, stages, strict=True)
    )
    for name in (*(find_task(task)[0].name for task in tasks), *(f"lm_eval/{task}" for task in lm_eval)):
        tables.print_differences(name, first.name, second.name, compare(first, second, name))


def show_responses(workdir: epath.Path, stage: str, task: str, only: str) -> None:
    """Pages through the responses to a task on the chosen stages. Raises UserError."""
    shown = 0
    for folder in stage_folders(workdir, stage):
        if (folder / "eval" / task / "responses.jsonl").exists():
            rows = responses.read(folder / "eval" / task, only)
            responses.show(rows, terminal.Console(), f"{task} on {folder.name}")
            shown += 1
    if not shown:
        raise UserError(f"no responses to {task} there yet; run evaluate --tasks {task} first")
