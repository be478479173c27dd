"""Run tasks on a model: questions → responses → scores."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class EvaluationConfig:
    tasks: tuple[str, ...] = ()  # files of eval/, evaluated after each stage
    limit: int = 0  # questions of each task; 0: all
    data: dict[str, str] = dataclasses.field(default_factory=dict)  # task → its file, where not the default


class Model: ...
