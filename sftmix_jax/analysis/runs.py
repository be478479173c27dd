"""A workdir's files → one tidy table."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from etils import epath


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric of one task on one stage of one experiment."""

    experiment: str
    stage: str
    position: int  # 0 is the base
    task: str
    metric: str
    value: float
    n: int
    low: float
    high: float
    best: float  # the highest value that the metric can take
    primary: bool  # the task's first metric


def read_experiments(workdir: epath.Path) -> dict[str, dict[str, Any]]:
    """Each experiment's resolved config and its stages' ids, by name."""
    files = sorted((workdir / "experiments").glob("*.json")) if (workdir / "experiments").exists() else []
    return {file.name.removesuffix(".json"): json.loads(file.read_text()) for file in files}


def read_scores(workdir: epath.Path) -> list[Score]:
    """All scores of all experiments; a stage that two of them share stands under both."""
    scores = []
    for name, record in read_experiments(workdir).items():
        chain = {"base": record["base"], **record["stages"]}
        for position, (stage, identity) in enumerate(chain.items()):
            for folder in (workdir / "stages").glob(f"*-{identity}"):
                for file in sorted((folder / "eval").glob("*/score.json")) if (folder / "eval").exists() else []:
                    scores += _scores(json.loads(file.read_text()), name, stage, position)
    return scores


def _scores(record: dict[str, Any], experiment: str, stage: str, position: int) -> list[Score]:
    return [
        Score(
            experiment,
            stage,
            position,
            record["task"],
            metric,
            m["value"],
            m["n"],
            m["low"],
            m["high"],
            m["best"],
            i == 0,
        )
        for i, (metric, m) in enumerate(record["metrics"].items())
        if m["n"]
    ]
