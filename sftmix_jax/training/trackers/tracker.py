"""What a tracker is: something that a stage's metrics and scores are sent to beside metrics.jsonl."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from etils import epath

if TYPE_CHECKING:
    from sftmix_jax.training.metrics import LoggingConfig


@dataclasses.dataclass(frozen=True)
class Tracked:
    """The stage that is tracked."""

    folder: epath.Path
    experiment: str  # whose stages are grouped
    config: Mapping[str, Any]  # what is shown beside the curves; as JSON holds it


class Tracker(ABC):
    """One stage in one tracker, from its opening to `close`. Only the primary process has trackers."""

    package: ClassVar[str]  # the Python package that it needs, and
    extra: ClassVar[str]  # the extra of this project that installs it

    @staticmethod
    @abstractmethod
    def is_asked(logging: LoggingConfig) -> bool:
        """Whether the config asks for this tracker."""

    @abstractmethod
    def __init__(self, tracked: Tracked, logging: LoggingConfig, start: int | None):
        """Opens the tracker at step `start` of training, or with None to add scores to a stage that is trained.

        Raises UserError where that is not possible.
        """

    @abstractmethod
    def log(self, record: Mapping[str, Any]) -> None:
        """Sends a record of metrics.jsonl: its `step`, and numbers by name."""

    @abstractmethod
    def score(self, scores: Mapping[str, float], step: int) -> None:
        """Sends scores that were measured after `step`."""

    @abstractmethod
    def close(self, exit_code: int) -> None:
        """Writes everything that is still held back, and ends. `exit_code`: 0 after success."""
