"""Ask a stage or a model: prompts to responses, or a small chat in the terminal.

python -m sftmix_jax.sample --workdir DIR [--stage NAME] --prompt TEXT
python -m sftmix_jax.sample --model DIR_OR_HUB_ID --prompts FILE.jsonl --json
python -m sftmix_jax.sample --model DIR_OR_HUB_ID --score FILE.jsonl --json
python -m sftmix_jax.sample --workdir DIR                                       (chat)

Control characters of an answer are shown as escapes (\\x1b); --json holds the answer itself. An answer ends before the
stop token or string; its `tokens` are the fewest that hold all of its text.
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.experiment.load_options import Opening
from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Flag, Location, Text, of, setting
from sftmix_jax.sampling.settings import SamplingConfig


@dataclasses.dataclass
class Options(SamplingConfig):
    workdir: str = setting("", Location(), "ask a stage of this workdir")
    stage: str = setting("all", Text(), "name or id, or base; by default the experiment's last")
    model: str = setting("", Text(), "ask a model folder, a hub id or a stage folder")
    prompt: str | None = setting(None, Text(), "one prompt")
    prompts: str = setting("", Location(), 'FILE.jsonl with rows {"prompt": …}')
    score: str = setting("", Location(), 'FILE.jsonl with rows {"prompt": …, "completion": …}: log-likelihoods')
    raw: bool = setting(False, Flag(), "takes the prompt as it is, without a chat template")
    template: str = setting("", of(Opening, "template"), "chat template, instead of the stage's own")
    dtype: str = setting("auto", of(Opening, "dtype"), "of the computation")
    slots: int = setting(32, of(Opening, "slots"), "prompts that are answered at the same time")
    json: bool = setting(False, Flag(), "prints a JSON line per sample")


def main(options: Options) -> int:
    from etils import epath

    from sftmix_jax.evaluation import asking
    from sftmix_jax.experiment.opening import one_stage, open_model, open_stage

    opening = Opening(options.template, options.dtype, options.slots)
    if options.model and options.workdir:
        raise UserError("--model and --workdir name two models to ask; leave one out")
    if options.model:
        model = open_model(options.model, opening)
    elif options.workdir:
        model = open_stage(one_stage(epath.Path(options.workdir), options.stage), opening)
    else:
        raise UserError("name what to ask: --workdir DIR [--stage NAME] or --model DIR_OR_HUB_ID")
    if not options.raw:
        terminal.err(model.chat.description)
    if options.score:
        asking.score(model, options.score, raw=options.raw, as_json=options.json)
    elif options.prompt is not None or options.prompts:
        prompts = [options.prompt] if options.prompt is not None else asking.read_prompts(options.prompts)
        asking.answer(model, prompts, options, raw=options.raw, as_json=options.json)
    else:
        with command.open_stdin():
            asking.chat(model, options)
    return 0


if __name__ == "__main__":
    command.run(main, Options)
