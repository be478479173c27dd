"""Weights & Biases: one run per stage, grouped by experiment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sftmix_jax.machine.errors import UserError
from sftmix_jax.training.trackers.tracker import Tracked, Tracker

if TYPE_CHECKING:
    from sftmix_jax.training.metrics import LoggingConfig


class WeightsAndBiases(Tracker):
    """The run's id is the name of the stage's folder, so a resumed stage continues its run.

    wandb drops a record whose `step=` is below the last one that it has seen, as after a restart from a checkpoint. So
    the step is sent as a metric of its own, which the others are plotted against.
    """

    package, extra = "wandb", "wandb"

    @staticmethod
    def is_asked(logging: LoggingConfig) -> bool:
        return bool(logging.wandb)

    def __init__(self, tracked: Tracked, logging: LoggingConfig, start: int | None):
        import wandb

        folder = os.fspath(tracked.folder)
        try:
            self._run = wandb.init(
                project=logging.wandb,
                group=tracked.experiment,
                name=tracked.folder.name,
                id=tracked.folder.name,
                config=dict(tracked.config),
                resume="allow",
                reinit="create_new",  # never a run that the process has open for another purpose
                dir=None if "://" in folder or os.environ.get("WANDB_DIR") else folder,
            )
        except wandb.errors.Error as error:
            raise UserError(
                f"logging.wandb: {error}; log in with 'wandb login', or set WANDB_MODE=offline and sync later"
            ) from None
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, record: Mapping[str, Any]) -> None:
        self._run.log(dict(record))

    def score(self, scores: Mapping[str, float], step: int) -> None:
        self._run.log({"step": step, **scores})
        self._run.summary.update(dict(scores))

    def close(self, exit_code: int) -> None:
        self._run.finish(exit_code=exit_code)
