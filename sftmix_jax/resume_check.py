"""Does your experiment resume exactly? Kills a shortened copy of it at random moments, and compares.

python -m sftmix_jax.resume_check --config FILE [--config.field=value …] [--kills N]
    [--processes 1,2] [--steps N] [--seed N] [--workdir DIR]

A copy of at most --steps (12) steps per stage is trained without interruption. It is trained again and killed --kills
(6) times with SIGKILL: half of the kills hit a save, the others steps, the borders of stages and the start. With
--processes 1,2 it is also trained by 2 processes on this machine, and each resume changes the process count. The batch
that every step had on the devices, learning rates, losses, gradient norms, ledger, validation losses and params_sha256
must be equal bit for bit. The verdict goes to stdout, fit to be pasted into an issue; what is done meanwhile to stderr.

Runs are kept in --workdir if it is given; else in a temporary folder that is deleted unless there is a difference.
Exit codes: 0 equal, 1 different, 2 bad input.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from sftmix_jax.data import loader
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment.config import Experiment
from sftmix_jax.machine import command, host_memory, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Integer, Range, Text
from sftmix_jax.resuming import shortening, verdict
from sftmix_jax.resuming.check import Check
from sftmix_jax.resuming.runs import Layout, cpu_devices
from sftmix_jax.resuming.shortening import shortened

_OPTIONS: dict[str, tuple[str | int | float, Range]] = {
    "kills": (6, Integer(at_least=0, at_most=10_000)),
    "processes": ("1", Text()),
    "steps": (12, Integer(at_least=1)),
    "seed": (0, Integer(at_least=0)),
}
_OWN = tuple(f"--{name}" for name in (*_OPTIONS, "workdir"))


def main() -> int:
    jax.config.update("jax_platforms", "cpu")  # this process computes nothing: the devices are for those that it starts
    config, options = experiment.parse(sys.argv[1:], _OPTIONS)
    layouts = find_layouts(options["processes"], config)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    folder = _folder(options["workdir"])
    say(f"resume_check works in {folder}")
    begin = time.monotonic()
    try:
        lengths = shortening.measure(config, options["steps"])
        file = folder / "shortened.py"
        arguments = _for_config(sys.argv[1:])
        spec = " ".join(arguments).removeprefix("--config=").removeprefix("--config ")
        shortening.write(file, arguments, spec, lengths)
        check = Check(
            file, folder, layouts, options["kills"], seed=options["seed"], keep=bool(options["workdir"]), say=say
        )
        found = check.run()
    except (UserError, KeyboardInterrupt, OSError):
        _clean(folder, options["workdir"])
        raise
    every = shortened(config, lengths).checkpoints.every
    terminal.out("\n".join(verdict.lines(found, spec, lengths, every, time.monotonic() - begin)))
    if found.difference is None:
        _clean(folder, options["workdir"])
    else:
        say(f"runs and logs are kept in {folder}")
    return 1 if found.difference else 0


def find_layouts(processes: str, config: Experiment) -> list[Layout]:
    """The process counts asked for, all with the same number of devices. Raises UserError."""
    counts = processes.split(",")
    if not all(count.isdigit() and int(count) > 0 for count in counts) or len(set(counts)) < len(counts):
        raise UserError(f"--processes {processes}: give each number of processes once, as in --processes 1,2")
    numbers = [int(count) for count in counts]
    if numbers == [1]:
        return [Layout(1)]
    if host_memory.has_accelerator() and os.environ.get("JAX_PLATFORMS") != "cpu":
        raise UserError(
            f"--processes {processes}: several processes on one machine are tried on CPU devices only. Set "
            "JAX_PLATFORMS=cpu, or leave --processes out to check one process on the accelerator"
        )
    for name, stage in config.stages.items():
        for count in numbers:
            try:
                loader.process_part(stage.batch.batch_size, 0, count)
            except UserError as error:
                raise UserError(f"--processes {processes}: config.stages.{name}: {error}") from None
    # The same mesh for all: sums over devices are then taken alike, and the results are equal bit for bit.
    devices = math.lcm(cpu_devices(os.environ), *numbers)
    return [Layout(count, devices // count) for count in numbers]


def say(message: str) -> None:
    terminal.err(message)


def _folder(workdir: str) -> Path:
    if not workdir:
        return Path(tempfile.mkdtemp(prefix="resume_check-"))
    if "://" in workdir:
        raise UserError(f"--workdir {workdir}: kills are timed by what is seen on disk; name a folder of this machine")
    folder = Path(workdir).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--workdir {workdir}: holds something already; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _clean(folder: Path, workdir: str) -> None:
    """Delete a folder that the user has not asked for."""
    if not workdir:
        shutil.rmtree(folder, ignore_errors=True)


def _for_config(argv: Sequence[str]) -> list[str]:
    """The arguments without those of this verb."""
    kept, skipping = [], False
    for argument in argv:
        if skipping:
            skipping = False
        elif argument in _OWN:
            skipping = True  # its value follows
        elif argument.partition("=")[0] not in _OWN:
            kept.append(argument)
    return kept


def _interrupt(number: int, _: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    command.run(main)
