"""Trackers: where a stage's metrics and scores go beside metrics.jsonl. One file per tracker.

A new tracker is a file with a subclass of Tracker, a field of LoggingConfig that asks for it, and a name in `KNOWN`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sftmix_jax.machine import processes
from sftmix_jax.machine.errors import UserError
from sftmix_jax.training.trackers.tensorboard import TensorBoard
from sftmix_jax.training.trackers.tracker import Tracked, Tracker
from sftmix_jax.training.trackers.weights_and_biases import WeightsAndBiases

if TYPE_CHECKING:
    from sftmix_jax.training.metrics import LoggingConfig

KNOWN: tuple[type[Tracker], ...] = (TensorBoard, WeightsAndBiases)


def require(logging: LoggingConfig) -> None:
    """Raises UserError if a tracker that the config asks for is not installed."""
    for kind in KNOWN:
        if kind.is_asked(logging) and importlib.util.find_spec(kind.package) is None:
            raise UserError(f"config.logging.{kind.extra} needs {kind.package}: pip install 'sftmix-jax[{kind.extra}]'")


class Trackers:
    """All trackers of one stage: opened by the first record, closed together, whatever ends the stage.

    One `with` statement spans a stage's training and its evaluation. A stage that has nothing new opens no tracker.
    """

    def __init__(self, tracked: Tracked, logging: LoggingConfig):
        self._tracked, self._logging = tracked, logging
        self._open: list[Tracker] = []
        self._asked = [kind for kind in KNOWN if kind.is_asked(logging)] if processes.is_first() else []

    def begin(self, start: int, kept: Sequence[Mapping[str, Any]] = ()) -> None:
        """Opens the trackers at step `start` of training. `kept`: the records of this step, which are sent again."""
        self._open_all(start)
        for record in kept:
            self.log(record)

    def log(self, record: Mapping[str, Any]) -> None:
        """Sends a record of metrics.jsonl."""
        for tracker in self._open:
            tracker.log(record)

    def score(self, scores: Mapping[str, float], step: int) -> None:
        """Sends scores that were measured after `step`."""
        if not scores:
            return
        if not self._open:
            self._open_all(None)
        for tracker in self._open:
            tracker.score(scores, step)

    def close(self, exit_code: int) -> None:
        """Closes all trackers; a second call does nothing."""
        processes.forget_early_end(self._close_early)
        while self._open:
            self._open.pop().close(exit_code)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(0 if error is None else getattr(error, "code", None) or 1)

    def _open_all(self, start: int | None) -> None:
        if self._asked:
            processes.on_early_end(self._close_early)
        for kind in self._asked:
            self._open.append(kind(self._tracked, self._logging, start))

    def _close_early(self) -> None:
        self.close(1)
