"""TensorBoard event files in the stage's folder."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sftmix_jax.machine.errors import UserError
from sftmix_jax.training.trackers.tracker import Tracked, Tracker

if TYPE_CHECKING:
    from sftmix_jax.training.metrics import LoggingConfig

_number = itertools.count()  # of the event file: two that are opened in the same second must not share a name


class TensorBoard(Tracker):
    """Writes each record to the disk at once.

    tensorboardX's SummaryWriter holds events back in a queue, so a process that ends by a signal or by os._exit would
    lose them.
    """

    package, extra = "tensorboardX", "tensorboard"

    @staticmethod
    def is_asked(logging: LoggingConfig) -> bool:
        return logging.tensorboard

    def __init__(self, tracked: Tracked, logging: LoggingConfig, start: int | None):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog
        from tensorboardX.record_writer import directory_check

        folder = os.fspath(tracked.folder / "tensorboard")
        try:
            directory_check(folder)
            self._writer = EventsWriter(os.path.join(folder, "events"), f".{os.getpid()}.{next(_number)}")
        except ImportError as error:  # a bucket needs a package of its own
            raise UserError(f"logging.tensorboard: {folder}: {error}") from None
        if start is not None:
            # TensorBoard then hides what an earlier run wrote of this step and later ones.
            self._write(start, session_log=SessionLog(status=SessionLog.START))
            self._writer.flush()

    def log(self, record: Mapping[str, Any]) -> None:
        self._scalars({key: value for key, value in record.items() if key != "step"}, record["step"])

    def score(self, scores: Mapping[str, float], step: int) -> None:
        self._scalars(scores, step)

    def close(self, exit_code: int) -> None:
        self._writer.close()

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._write(step, summary=scalar(name, value))
        self._writer.flush()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
