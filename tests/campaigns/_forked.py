"""Training commands forked from a process that has imported the package, and has not started jax."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import sftmix_jax.train as train
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment.stages import TINY
from sftmix_jax.machine import command
from sftmix_jax.resuming.runs import Process

Tokenizer(str(TINY))  # imports what training would import only then
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.campaigns._forked"])


class Forked:
    """A training command in a process forked from one that has imported the package."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path):
        self._process = _FORKING.Process(target=_train, args=(list(arguments), dict(environment), log))
        self._process.start()

    def has_ended(self) -> bool:
        return not self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> int:
        self._process.kill()
        self._process.join()
        return self._process.exitcode or 0


def _train(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    sys.argv = ["sftmix_jax.train", *arguments]
    command.run(train.main, train.Options, together=True)


def launch(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    return Forked(arguments, environment, log)
