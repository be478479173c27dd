"""What a run measured while it trained: metrics.jsonl of each stage, as series over steps."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from sftmix_jax.machine import terminal
from sftmix_jax.workdir import records

_NUMBERS = 60_000  # in all curves of a page: some 400 KB
_START = 16  # first points of a stage, which are always kept
_FEWEST = 40  # points that a stage keeps however many stages there are
_ALWAYS = ("loss", "learning_rate", "grad_norm")
_OTHERS = ("loss/", "validation_loss/")


@dataclasses.dataclass(frozen=True)
class Series:
    """Some metrics at the same steps; None where a step has no such number."""

    step: list[int]
    values: dict[str, list[float | None]]

    def thinned(self, most: int) -> Series:
        """At most so many points: the first ones, the last, and evenly spaced ones between."""
        if len(self.step) <= most:
            return self
        rest = np.linspace(_START, len(self.step) - 1, max(1, most - _START)).round().astype(int).tolist()
        kept = [*range(_START), *rest]
        return Series(
            [self.step[i] for i in kept], {name: [values[i] for i in kept] for name, values in self.values.items()}
        )


@dataclasses.dataclass(frozen=True)
class StageCurves:
    """What one stage measured."""

    name: str
    steps: int  # of its last line
    training: Series  # loss, loss/DOMAIN, learning_rate, grad_norm, tokens_per_second
    validation: Series  # validation_loss/DOMAIN


def of_stage(name: str, rows: Sequence[Mapping[str, Any]]) -> StageCurves:
    """The curves of a stage from the lines of its metrics.jsonl."""
    trained = [row for row in rows if "loss" in row]
    validation = [row for row in rows if any(key.startswith("validation_loss/") for key in row)]
    training = _series(trained)
    if rates := _throughput(trained):
        training.values["tokens_per_second"] = rates
    return StageCurves(name, max((int(row["step"]) for row in rows), default=0), training, _series(validation))


def thinned(stages: Mapping[str, StageCurves]) -> tuple[dict[str, StageCurves], bool]:
    """The stages with as many points as a page can hold, and whether any was left out."""
    lines = sum(len(stage.training.values) + len(stage.validation.values) for stage in stages.values())
    most = max(_FEWEST, _NUMBERS // max(lines, 1))
    made = {
        identity: dataclasses.replace(
            stage, training=stage.training.thinned(most), validation=stage.validation.thinned(most)
        )
        for identity, stage in stages.items()
    }
    return made, any(len(stages[identity].training.step) > most for identity in stages)


def _series(rows: Sequence[Mapping[str, Any]]) -> Series:
    keys = dict.fromkeys(key for row in rows for key in row if key in _ALWAYS or key.startswith(_OTHERS))
    return Series([int(row["step"]) for row in rows], {key: [_finite(row.get(key)) for row in rows] for key in keys})


def _throughput(rows: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Tokens per second between two lines, from the mean of their steps' tokens; None for the first."""
    if not all(_is_number(row.get(key)) for row in rows for key in ("seconds", "tokens")):
        return []
    found: list[float | None] = [None] * min(1, len(rows))
    for before, after in itertools.pairwise(rows):
        seconds, steps = after["seconds"] - before["seconds"], after["step"] - before["step"]
        tokens = steps * (before["tokens"] + after["tokens"]) / 2
        found.append(_finite(tokens / seconds) if seconds > 0 else None)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: Any) -> float | None:
    """A number with five digits, which is more than a curve shows; None for whatever is no finite number."""
    return float(f"{value:.5g}") if _is_number(value) and np.isfinite(value) else None


class MetricsFiles:
    """Reads each metrics.jsonl once, and reports once what is missing or damaged of it."""

    def __init__(self) -> None:
        self._read: dict[epath.Path, list[dict[str, Any]]] = {}

    def rows(self, file: epath.Path) -> list[dict[str, Any]]:
        """The sound lines of a finished or running stage's file."""
        if file not in self._read and not file.exists():
            self._read[file] = []
            terminal.err(f"{file}: is missing though the stage is finished; the curves have a gap there")
        if file not in self._read:
            self._read[file], damaged = records.metrics(file)
            if damaged:
                listed = ", ".join(map(str, damaged[:5])) + (" …" if len(damaged) > 5 else "")
                terminal.err(f"{file}: damaged lines are left out of the curves: {listed}")
        return self._read[file]


def of_chain(files: MetricsFiles, chain: Iterable[tuple[str, str, epath.Path | None]]) -> dict[str, StageCurves]:
    """An experiment's stages (name, id, folder) that were begun, by id."""
    found = {}
    for name, identity, folder in chain:
        if folder is None or not any((folder / file).exists() for file in ("metrics.jsonl", "done.json")):
            break
        found[identity] = of_stage(name, files.rows(folder / "metrics.jsonl"))
    return found
