"""Write a config to start from, for data of your own.

python -m sftmix_jax.init_data --data math.jsonl,code.csv,chat.jsonl --model DIR_OR_HUB_ID --out mine.py

Each path becomes a domain, named after its file. Every row is read once, so that a path that cannot be trained on is
refused here. With a general domain beside others the config is DMT: the others first, then the general one with a
replay of the part k of the others; k and the validation rows follow from the numbers of rows.
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.machine import command, terminal
from sftmix_jax.machine.ranges import Items, Location, Text, setting, within


@dataclasses.dataclass
class Options:
    data: tuple[str, ...] = dataclasses.field(
        metadata=within(Items(Text(), at_least=1), "a path for each domain: a file, a folder, a glob or hf:ID")
    )
    out: str = dataclasses.field(metadata=within(Location(), "the config file to write"))
    model: str = setting("tiny", Text(), "the base: tiny, a model folder or a hub id")
    general: str = setting(
        "", Text(), "the domain of general conversation; by default one that is named chat, general or conversation"
    )


def main(options: Options) -> int:
    from sftmix_jax.experiment import starting

    started = starting.write(options.data, options.model, options.general, options.out)
    for line in started.found:
        terminal.err(line)
    terminal.out(f"{options.out}: {started.strategy}. Go on with")
    for line in started.commands:
        terminal.out(f"  {line}")
    return 0


if __name__ == "__main__":
    command.run(main, Options)
