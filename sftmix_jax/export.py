"""Write a stage as a folder that transformers and vLLM load, and that behaves there as the stage does here.

python -m sftmix_jax.export --workdir DIR [--stage NAME] --out DIR [--dtype float32 | --adapter]

The tokenizer carries the chat template that was trained with. config.json and generation_config.json carry the token
ids that end an answer. An end that is no single token stands as a stop string in generation_config.json: transformers'
`generate` needs `tokenizer=` for it, and vLLM needs it in the request (`stop`).

An older export at --out is replaced whole or not at all; any other folder that is not empty is refused. In a bucket,
config.json is removed first and written last, so that an export that was cut short is no model folder.
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.ranges import Choice, Flag, Location, Text, setting, within


@dataclasses.dataclass
class Options:
    workdir: str = dataclasses.field(metadata=within(Location(), "the workdir of the stage"))
    out: str = dataclasses.field(metadata=within(Location(), "the folder to write"))
    stage: str = setting("all", Text(), "a stage's name or id; by default the experiment's last")
    dtype: str = setting("float32", Choice(("float32", "bfloat16", "float16")), "of the weights")
    adapter: bool = setting(
        False, Flag(), "write the adapter of a stage with model.lora for PEFT, in place of the merged model"
    )


def main(options: Options) -> int:
    from etils import epath

    from sftmix_jax.experiment import exporting

    workdir = epath.Path(options.workdir)
    if options.adapter:
        folder = exporting.export_adapter(workdir, options.stage, options.out)
        terminal.err(f"{folder.name} → {options.out}")
        return 0
    folder, ends = exporting.export(workdir, options.stage, options.out, options.dtype)
    terminal.err(f"{folder.name} → {options.out}")
    for string in ends.strings:
        terminal.err(
            f"warning: the end of turn {string!r} is no single token of the tokenizer. transformers' generate stops at "
            "it if it is given tokenizer=; vLLM, if a request names it in stop",
        )
    return 0


if __name__ == "__main__":
    command.run(main, Options)
