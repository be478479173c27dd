"""Score stages, models or stored responses.

python -m sftmix_jax.evaluate --workdir DIR [--stage all] --tasks gsm8k,humaneval [--limit N] [--data PATH]
python -m sftmix_jax.evaluate --model DIR_OR_HUB_ID --tasks gsm8k [--samples 8 --temperature 0.7]
python -m sftmix_jax.evaluate --workdir DIR --tasks mt_bench --data DIR --judge openai:MODEL
python -m sftmix_jax.evaluate --workdir DIR --lm_eval arc_challenge,hellaswag
python -m sftmix_jax.evaluate --task gsm8k --responses FILE.jsonl [--columns id=idx,samples=code] [--out DIR]
python -m sftmix_jax.evaluate --task mt_bench --data DIR --judgments gpt-4_single.jsonl
python -m sftmix_jax.evaluate --task pairs --data QUESTIONS.json --judgments annotations.json
python -m sftmix_jax.evaluate --workdir DIR --tasks gsm8k --lm_eval arc_easy --compare specialised general
python -m sftmix_jax.evaluate --workdir DIR --show gsm8k --stage general [--only wrong]
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from etils import epath

from sftmix_jax.analysis import responses, results, tables
from sftmix_jax.evaluation import contamination, harness, layouts, runner
from sftmix_jax.evaluation.answers import Model
from sftmix_jax.evaluation.compare import compare
from sftmix_jax.evaluation.config import EvaluationConfig, own_data
from sftmix_jax.evaluation.judges import make_judge
from sftmix_jax.evaluation.judging import Judge, JudgeConfig
from sftmix_jax.evaluation.stored_judgments import score_judgments
from sftmix_jax.evaluation.task import ability_of, find_task
from sftmix_jax.experiment import tracking
from sftmix_jax.experiment.opening import Opening, one_stage, open_model, open_stage, stage_folders
from sftmix_jax.machine import command, processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import check_out
from sftmix_jax.machine.ranges import of

# What is stored already needs no other source of answers, and stored judgments have nowhere to go but to the terminal.
_DEFAULTS = {"samples": 1, "temperature": 0.0, "seed": 0, "lm_eval": ""}
_ALONE = {"judgments": ("responses", "model", "workdir", "out"), "responses": ("model", "workdir")}


def main() -> int:
    options = _parse()
    names = _listed(options.tasks)
    config = _config(options, names)
    opening = Opening(options.template, options.dtype, options.slots)
    columns = layouts.columns(options.columns)
    if columns and not options.responses:
        raise UserError("--columns name the fields of --responses FILE")
    for option, others in _ALONE.items():
        for other in others if getattr(options, option) else ():
            if getattr(options, other):
                raise UserError(f"--{option} scores what is stored already; leave --{other} out")
        for asked in ("samples", "temperature", "seed", "lm_eval") if getattr(options, option) else ():
            if getattr(options, asked) != _DEFAULTS[asked]:
                raise UserError(f"--{option} asks no model; leave --{asked} out")
    if options.model and options.workdir:
        raise UserError("--model and --workdir name two things to score; leave one out")
    if options.show:
        return _show(options)
    if not names and not options.lm_eval:
        raise UserError("name what to measure: --tasks gsm8k,humaneval")
    if options.compare:
        tasks = [find_task(name)[0].name for name in names]
        tasks += [f"lm_eval/{name}" for name in _listed(options.lm_eval)]
        return _compare(epath.Path(options.workdir), options.compare, tasks)
    if options.out and processes.is_first():
        parts = [part for name in names for part in ("claims", f"eval/{name}")] if options.model else [""]
        for part in parts:  # before anything is asked or scored
            check_out(epath.Path(options.out) / part)
    if options.judgments:
        files = [epath.Path(file) for file in options.judgments]
        records = score_judgments(_only(names, "--judgments"), files, config)
    elif options.responses:
        records = [_score_responses(options, config, opening, columns)]
    elif options.model:
        out = epath.Path(options.out) if options.out else None
        records = _measure(open_model(options.model, opening, out), config, options, opening)
    elif options.workdir:
        return _score_stages(options, config, opening)
    else:
        raise UserError("name what to score: --workdir DIR, --model DIR_OR_HUB_ID, or --responses FILE.jsonl")
    _print(records, options.json)
    return 0


def _score_stages(options: argparse.Namespace, config: EvaluationConfig, opening: Opening) -> int:
    workdir = epath.Path(options.workdir)
    records = []
    for folder in stage_folders(workdir, options.stage):
        records += _measure(open_stage(folder, opening), config, options, opening)
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
    return 0


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
    found, set_aside = results.comparable(results.read_results(workdir, every, ability_of))
    for told in set_aside:
        terminal.err(told)
    return found


def _measure(
    model: Model, config: EvaluationConfig, options: argparse.Namespace, opening: Opening
) -> list[dict[str, Any]]:
    if config.tasks and processes.is_first():
        terminal.err(f"{model.name}: {model.chat.description}")
    with tracking.trackers_of(model.folder) as send:
        records = run_tasks(model, config, opening, send)
        if options.lm_eval:
            with tracking.sending(model.folder, send):
                records += harness.run(model, _listed(options.lm_eval), options.limit, options.lm_eval_tasks)
    return records


def run_tasks(
    model: Model, config: EvaluationConfig, opening: Opening, send: tracking.Send = lambda _: None
) -> list[dict[str, Any]]:
    """Every task of a config on one model → their score.json; `send` gets what is new of a task once it is scored."""
    judge = _judge(config, opening)
    records = []
    for name in config.tasks:
        with tracking.sending(model.folder, send):
            records.append(runner.run_task(model, name, config, judge))
    return records


def _judge(config: EvaluationConfig, opening: Opening) -> Judge | None:
    """The config's judge, where one of its tasks needs it."""
    needed = any(find_task(name)[0].rubric for name in config.tasks)
    return make_judge(config.judge, lambda name: open_model(name, opening)) if config.judge.name and needed else None


def _score_responses(
    options: argparse.Namespace, config: EvaluationConfig, opening: Opening, columns: layouts.Columns
) -> dict[str, Any]:
    name = _only(list(config.tasks), "--responses")
    out = epath.Path(options.out) if options.out else None
    judge = _judge(config, opening)
    return runner.score_responses(name, epath.Path(options.responses), config, judge, out, columns)


def _only(names: list[str], option: str) -> str:
    if len(names) != 1:
        raise UserError(f"{option} belong to one task: --task NAME {option} FILE.jsonl")
    return names[0]


def _compare(workdir: epath.Path, stages: list[str], tasks: list[str]) -> int:
    """Two stages of a workdir, or two stage folders, on scored tasks."""
    first, second = (
        epath.Path(stage) if (epath.Path(stage) / "stage.json").exists() else one_stage(workdir, stage)
        for stage in stages
    )
    for task in tasks:
        tables.print_differences(task, first.name, second.name, compare(first, second, task))
    return 0


def _show(options: argparse.Namespace) -> int:
    """Page through the responses of a task on the chosen stages."""
    if not options.workdir:
        raise UserError("name the workdir whose responses to show: --workdir DIR --show TASK --stage NAME")
    shown = 0
    for folder in stage_folders(epath.Path(options.workdir), options.stage):
        if (folder / "eval" / options.show / "responses.jsonl").exists():
            rows = responses.read(folder / "eval" / options.show, options.only)
            responses.show(rows, terminal.Console(), f"{options.show} on {folder.name}")
            shown += 1
    if not shown:
        raise UserError(f"no responses to {options.show} there yet; run evaluate --tasks {options.show} first")
    return 0


def _print(records: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        terminal.out_json(records[0] if len(records) == 1 else records, indent=1)
        return
    for record in records:
        tables.print_score(record)


def _listed(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _config(options: argparse.Namespace, names: list[str]) -> EvaluationConfig:
    judge = JudgeConfig(
        options.judge, options.judgings, options.judge_temperature, concurrency=options.judge_concurrency,
        timeout=options.judge_timeout, limit=options.judge_limit,
        input_price=options.judge_prices[0], output_price=options.judge_prices[1],
    )  # fmt: skip
    return EvaluationConfig(
        tasks=tuple(names), limit=options.limit, data=own_data(options.data, names), samples=options.samples,
        temperature=options.temperature, seed=options.seed, judge=judge,
        allow_unsandboxed_code=options.allow_unsandboxed_code,
    )  # fmt: skip


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sftmix_jax.evaluate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--workdir", default="", help="score the stages of this workdir")
    add("--stage", default="all", help="a stage's name or id, base, or all")
    add("--model", default="", help="score a model folder, a hub id or a stage folder")
    add("--out", default="", help="where the scores of --model (default runs/NAME-ID) or --responses go")
    add("--responses", default="", help="score stored responses instead of a model: FILE as in docs/stored_outputs.md")
    add("--columns", default="", metavar="OURS=FIELD,…",
        help="fields of --responses: id or question, or both, and response or samples")  # fmt: skip
    add("--judgments", nargs="+", default=[], metavar="FILE",
        help="read stored judgments again: FastChat's model_judgment/*.jsonl; of pairs AlpacaEval's and QLoRA's, too")
    add("--tasks", "--task", default="", help="comma-separated files of eval/")
    add("--lm_eval", default=_DEFAULTS["lm_eval"], help="comma-separated tasks of lm-evaluation-harness")
    add("--lm_eval_tasks", default="", metavar="DIR", help="a folder of further task files for lm-eval")
    add("--compare", nargs=2, metavar="STAGE", help="two scored stages on the same questions, paired")
    add("--show", default="", metavar="TASK", help="page through the stored responses to a task, worst first")
    add("--only", default="", help="with --show: wrong, right, or words of the question")
    add("--limit", type=of(EvaluationConfig, "limit").parse, default=0, help="only the first N questions")
    add("--data", default="", help="PATH, or task=PATH,… instead of the tasks' own data")
    add("--samples", type=of(EvaluationConfig, "samples").parse, default=_DEFAULTS["samples"],
        help="answers drawn for each question (pass@k, majority)")  # fmt: skip
    add("--temperature", type=of(EvaluationConfig, "temperature").parse, default=_DEFAULTS["temperature"],
        help="instead of the task's own")  # fmt: skip
    add("--seed", type=of(EvaluationConfig, "seed").parse, default=_DEFAULTS["seed"], help="of the draws")
    add("--judge", type=of(JudgeConfig, "name").parse, default="",
        help="openai:MODEL (OPENAI_BASE_URL, OPENAI_API_KEY) or model:DIR_OR_HUB_ID")  # fmt: skip
    add("--judgings", type=of(JudgeConfig, "judgings").parse, default=1, help="judgments of each answer, averaged")
    add("--judge_temperature", type=of(JudgeConfig, "temperature").parse, default=0.0)
    add("--judge_concurrency", type=of(JudgeConfig, "concurrency").parse, default=8, help="requests at the same time")
    add("--judge_timeout", type=of(JudgeConfig, "timeout").parse, default=120.0, help="seconds that a request may take")
    add("--judge_limit", type=of(JudgeConfig, "limit").parse, default=0.0,
        help="dollars that this run may spend; needs --judge_prices")  # fmt: skip
    add("--judge_prices", type=of(JudgeConfig, "input_price").parse, nargs=2, default=(0.0, 0.0), metavar=("IN", "OUT"),
        help="dollars for a million tokens")  # fmt: skip
    add("--template", default="", help="chat template, instead of the stage's own")
    add("--dtype", type=of(Opening, "dtype").parse, default="auto", help="float32 or bfloat16")
    add("--slots", type=of(Opening, "slots").parse, default=32, help="prompts that are answered at the same time")
    add("--json", action="store_true", help="print score.json")
    add("--skip_contamination", action="store_true", help="do not look for the questions in the training data")
    add("--picture", action="store_true", help="also draw abilities.png into the workdir")
    add("--allow_unsandboxed_code", action="store_true",
        help="run model-written code even where it cannot be contained")  # fmt: skip
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    command.run(main, together=True)
