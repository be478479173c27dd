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

import dataclasses

from sftmix_jax.experiment.evaluate_options import EvaluateOptions
from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Items, Text, setting


@dataclasses.dataclass
class Options(EvaluateOptions):
    task: tuple[str, ...] = setting((), Items(Text()), "the same as --tasks")

    def __post_init__(self) -> None:
        self.tasks = (*self.tasks, *self.task)


def main(options: Options) -> int:
    from etils import epath

    from sftmix_jax.analysis import tables
    from sftmix_jax.evaluation import layouts
    from sftmix_jax.experiment import measuring

    options.check()
    config, workdir = options.config(), epath.Path(options.workdir)
    columns = layouts.columns(options.columns)
    if options.show:
        measuring.show_responses(workdir, options.stage, options.show, options.only)
        return 0
    if options.compare:
        measuring.compare_stages(workdir, options.compare, options.tasks, options.lm_eval)
        return 0
    if options.out:
        measuring.check_target(options)
    if options.judgments:
        records = measuring.read_judgments(options, config)
    elif options.responses:
        records = [measuring.score_responses(options, config, columns)]
    elif options.model:
        records = measuring.score_model(options, config)
    elif options.workdir:
        measuring.score_stages(options, config)
        return 0
    else:
        raise UserError("name what to score: --workdir DIR, --model DIR_OR_HUB_ID, or --responses FILE.jsonl")
    if options.json:
        terminal.out_json(records[0] if len(records) == 1 else records, indent=1)
    else:
        for record in records:
            tables.print_score(record)
    return 0


if __name__ == "__main__":
    command.run(main, Options, together=True)
