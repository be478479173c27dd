"""Checks a shortened copy of an experiment in a folder of its own, deleted unless it is asked for or needed."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from sftmix_jax.experiment.config import Experiment
from sftmix_jax.machine import terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.options import Arguments
from sftmix_jax.resuming import shortening, verdict
from sftmix_jax.resuming.check import Check
from sftmix_jax.resuming.layouts import find_layouts
from sftmix_jax.resuming.shortening import shortened


def check_copy(
    config: Experiment, arguments: Arguments, *, processes: str, kills: int, steps: int, seed: int, workdir: str
) -> tuple[str, bool]:
    """Trains, kills and resumes a copy → what was found, as text, and whether all is equal. Raises UserError.

    `arguments` name the experiment as on the command line; `processes` are numbers between commas.
    """
    layouts = find_layouts(processes, config)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    folder = _folder(workdir)
    terminal.err(f"resume_check works in {folder}")
    begin = time.monotonic()
    try:
        lengths = shortening.measure(config, steps)
        file = folder / "shortened.py"
        spec = " ".join(arguments).removeprefix("--config=")
        shortening.write(file, arguments, spec, lengths)
        found = Check(file, folder, layouts, kills, seed=seed, keep=bool(workdir), say=terminal.err).run()
    except (UserError, KeyboardInterrupt, OSError):
        _clean(folder, workdir)
        raise
    every = shortened(config, lengths).checkpoints.every
    told = "\n".join(verdict.lines(found, spec, lengths, every, time.monotonic() - begin))
    if found.difference is None:
        _clean(folder, workdir)
    else:
        terminal.err(f"runs and logs are kept in {folder}")
    return told, found.difference is None


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


def _interrupt(number: int, _: Any) -> None:
    raise KeyboardInterrupt
