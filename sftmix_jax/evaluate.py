"""Score stages, models or stored responses.

python -m sftmix_jax.evaluate --workdir DIR [--stage all] --tasks gsm8k,humaneval [--limit N] [--data PATH]
python -m sftmix_jax.evaluate --model DIR_OR_HUB_ID --tasks gsm8k
python -m sftmix_jax.evaluate --task gsm8k --responses FILE.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from etils import epath

from sftmix_jax import command
from sftmix_jax.analysis import runs, tables
from sftmix_jax.errors import UserError
from sftmix_jax.evaluation import runner
from sftmix_jax.evaluation.compare import compare
from sftmix_jax.evaluation.runner import EvaluationConfig
from sftmix_jax.evaluation.task import find_task
from sftmix_jax.opening import Opening, open_model, open_stage, stage_folders


def main() -> int:
    options = _parse()
    names = [name for name in options.tasks.split(",") if name]
    config = EvaluationConfig(
        tasks=tuple(names), limit=options.limit, data=_data(options.data, names),
        allow_unsandboxed_code=options.allow_unsandboxed_code,
    )  # fmt: skip
    if not names:
        raise UserError("name what to measure: --tasks gsm8k,humaneval")
    if options.compare:
        return _compare(epath.Path(options.workdir), options.compare, names)
    if options.responses:
        if len(names) != 1:
            raise UserError("--responses belong to one task: --task NAME --responses FILE.jsonl")
        records = [runner.score_responses(names[0], epath.Path(options.responses), config)]
        _show_scores(records, options.json)
        return 0
    opening = Opening(options.template, options.dtype, options.slots)
    if options.model:
        out = epath.Path(options.out) if options.out else None
        _show_scores(run_tasks(open_model(options.model, opening, out), config), options.json)
        return 0
    if not options.workdir:
        raise UserError("name what to score: --workdir DIR, --model DIR_OR_HUB_ID, or --responses FILE.jsonl")
    workdir = epath.Path(options.workdir)
    records = []
    for folder in stage_folders(workdir, options.stage):
        records += run_tasks(open_stage(folder, opening), config)
    if options.json:
        print(json.dumps(records, indent=1))
    else:
        tables.print_abilities(runs.read_scores(workdir))
    if options.picture:
        from sftmix_jax.analysis import figures

        figures.draw_abilities(runs.read_scores(workdir), workdir / "abilities.png")
        print(f"picture: {workdir / 'abilities.png'}", file=sys.stderr)
    return 0


def _compare(workdir: epath.Path, stages: list[str], names: list[str]) -> int:
    """Two stages of a workdir, or two stage folders."""
    first, second = (
        epath.Path(stage) if (epath.Path(stage) / "stage.json").exists() else stage_folders(workdir, stage)[0]
        for stage in stages
    )
    for name in names:
        tables.print_differences(name, first.name, second.name, compare(first, second, find_task(name)[0].name))
    return 0


def run_tasks(model: runner.Model, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Every task of a config on one model → their score.json."""
    return [runner.run_task(model, name, config) for name in config.tasks]


def _show_scores(records: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(records[0] if len(records) == 1 else records, indent=1))
        return
    for record in records:
        tables.print_score(record)


def _data(spec: str, names: list[str]) -> dict[str, str]:
    """`PATH` for the one task, or `task=PATH,task=PATH`."""
    if not spec:
        return {}
    if "=" not in spec:
        if len(names) != 1:
            raise UserError("--data PATH is for one task; for several write --data gsm8k=PATH,humaneval=PATH")
        return {find_task(names[0])[0].name: spec}
    return dict(part.split("=", 1) for part in spec.split(","))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sftmix_jax.evaluate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--workdir", default="", help="score the stages of this workdir")
    parser.add_argument("--stage", default="all", help="a stage's name or id, base, or all")
    parser.add_argument("--model", default="", help="score a model folder, a hub id or a stage folder")
    parser.add_argument("--out", default="", help="where the scores of --model go (default runs/NAME-ID)")
    parser.add_argument("--responses", default="", help="score stored responses instead of a model")
    parser.add_argument("--tasks", "--task", default="", help="comma-separated files of eval/")
    parser.add_argument("--compare", nargs=2, metavar="STAGE", help="two scored stages on the same questions, paired")
    parser.add_argument("--limit", type=int, default=0, help="only the first N questions")
    parser.add_argument("--data", default="", help="PATH, or task=PATH,… instead of the tasks' own data")
    parser.add_argument("--template", default="", help="chat template, instead of the stage's own")
    parser.add_argument("--dtype", default="auto", help="float32 or bfloat16")
    parser.add_argument("--slots", type=int, default=32, help="prompts that are answered at the same time")
    parser.add_argument("--json", action="store_true", help="print score.json")
    parser.add_argument("--picture", action="store_true", help="also draw abilities.png into the workdir")
    parser.add_argument("--allow_unsandboxed_code", action="store_true",
                        help="run model-written code even where it cannot be contained")  # fmt: skip
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    command.run(main)
