"""What a run leaves of each stage, and the first thing in which two runs differ."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath

from sftmix_jax.workdir import records as stored

# What is compared of a finished stage; time and throughput are not.
_DONE = ("steps", "ledger", "rows", "packing_fill", "validation_loss", "params_sha256")
# Keys that begin like this are rounded by the machine; others are exact.
_MEASURED = ("loss", "grad_norm", "validation_loss")


@dataclasses.dataclass(frozen=True)
class StageRecord:
    """One stage of a run: `steps` and `validation` are lines of metrics.jsonl by step."""

    name: str
    id: str
    steps: Mapping[int, Mapping[str, Any]]
    validation: Mapping[int, Mapping[str, Any]]
    done: Mapping[str, Any]  # empty until the stage is finished


@dataclasses.dataclass(frozen=True)
class Difference:
    """Where a run first differs from the reference, in words."""

    stage: str
    step: int  # 0: the stage as a whole
    text: str
    measured: bool = False  # whether it is a number that a machine may round in another way

    def __str__(self) -> str:
        return f"stage '{self.stage}'" + (f", step {self.step}" if self.step else "") + f": {self.text}"


def read(workdir: Path) -> dict[str, StageRecord]:
    """What the stages of a workdir with one experiment have recorded so far, by name, in the order of training."""
    records = {}
    for name, id in stages(workdir).items():
        steps: dict[int, Any] = {}
        validation: dict[int, Any] = {}
        done = {}
        for folder in workdir.glob(f"stages/*-{id}"):
            for record in lines(folder / "metrics.jsonl"):
                (steps if "loss" in record else validation)[record["step"]] = record
            if (folder / "done.json").exists():
                done = stored.done(epath.Path(folder / "done.json"))
        records[name] = StageRecord(name, id, steps, validation, done)
    return records


def stages(workdir: Path) -> dict[str, str]:
    """The id of each stage of a workdir's one experiment by name, in the order of training."""
    for file in workdir.glob("experiments/*.json"):
        return stored.experiment(epath.Path(file))["stages"]
    return {}


def lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; one that a kill has cut is left out."""
    return stored.metrics(epath.Path(file))[0] if file.exists() else []


class Comparison:
    """Compares records with those of the uninterrupted run, and keeps account of what was compared."""

    def __init__(self, reference: Mapping[str, StageRecord]):
        self.reference = reference
        self.lines = 0  # steps compared; one that was trained again counts again
        self.largest = 0.0  # relative difference that was within a tolerance

    def attempt(
        self, found: Mapping[str, StageRecord], first: Mapping[str, int], tolerance: float = 0.0
    ) -> Difference | None:
        """The first difference in steps and validation losses; `first`: an attempt's first step of each stage."""
        for name, wanted in self.reference.items():
            if name not in found:
                continue
            mine = found[name]
            if mine.id != wanted.id:
                return Difference(name, 0, f"has the identity {mine.id}, in the uninterrupted run {wanted.id}")
            if name in first:
                self.lines += sum(step >= first[name] for step in mine.steps)
            for step, line in sorted(mine.steps.items()):
                if problem := self._fed(wanted, step, line):
                    return Difference(name, step, problem)
                if problem := self._measured(wanted.steps[step], line, first.get(name, 1), tolerance):
                    return Difference(name, step, problem, measured=True)
            for step, line in sorted(mine.validation.items()):
                if step not in wanted.validation:
                    return Difference(name, step, "has validation losses that the uninterrupted run has not")
                for key, value in wanted.validation[step].items():
                    if not self._equal(key, line.get(key), value, tolerance):
                        return Difference(name, step, _was(key, line.get(key), value), measured=True)
        return None

    def whole(self, found: Mapping[str, StageRecord], tolerance: float = 0.0) -> Difference | None:
        """The first difference between finished runs: every step, validation losses, and what done.json says."""
        for name, wanted in self.reference.items():
            if name not in found or not found[name].done:
                return Difference(name, 0, "was not finished")
            mine = found[name]
            for key in ("steps", "validation"):
                missing = sorted(getattr(wanted, key).keys() - getattr(mine, key).keys())
                if missing:
                    return Difference(name, missing[0], f"metrics.jsonl has lost its {key.replace('_', '-')} line")
        if extra := sorted(found.keys() - self.reference.keys()):
            return Difference(extra[0], 0, "is no stage of the uninterrupted run")
        if difference := self.attempt(found, {}, tolerance):
            return difference
        for name, wanted in self.reference.items():
            for key in _DONE:
                if key == "params_sha256" and tolerance:
                    continue
                value, right = found[name].done.get(key), wanted.done.get(key)
                for path in _paths(value, right, key):
                    one, other = _at(value, path), _at(right, path)
                    if not self._equal(path[0], one, other, tolerance):
                        measured = path[0] in ("validation_loss", "params_sha256")
                        return Difference(name, 0, _was(" ".join(path), one, other), measured)
        return None

    def _fed(self, wanted: StageRecord, step: int, line: Mapping[str, Any]) -> str:
        """What is wrong with what a step was given, or nothing."""
        if step not in wanted.steps:
            return "was trained, beyond the end of the uninterrupted run"
        right = wanted.steps[step]
        if line.get("batch") != right["batch"]:
            return "was trained on another batch" + _of_step(wanted, "batch", line.get("batch"))
        for key in ("learning_rate", "trained_tokens", "tokens"):
            if line.get(key) != right[key]:
                hint = _of_step(wanted, key, line.get(key)) if key == "learning_rate" else ""
                return _was(key, line.get(key), right[key]) + hint
        return ""

    def _measured(self, right: Mapping[str, Any], line: Mapping[str, Any], first: int, tolerance: float) -> str:
        """What is wrong with what a step measured, or nothing; the run was resumed at step `first` (1: it was not)."""
        for key in sorted(right.keys() - {"step", "seconds"}, key=lambda key: key != "loss"):
            if self._equal(key, line.get(key), right[key], tolerance):
                continue
            text = _was(key, line.get(key), right[key]) + "; batch and learning rate are the same"
            if first > 1 and line["step"] == first:
                text += ". This is the first step after the resume: the parameters are not those that were saved"
            elif first > 1 and line["step"] == first + 1:
                text += (
                    ". The first step after the resume was equal: the parameters were restored, the optimizer's state "
                    "was not"
                )
            return text
        return ""

    def _equal(self, key: str, one: Any, other: Any, tolerance: float) -> bool:
        if one == other or not tolerance or not key.startswith(_MEASURED):
            return one == other
        if not (isinstance(one, float) and isinstance(other, float)):
            return False
        apart = abs(one - other) / max(abs(other), 1e-9)
        if not math.isfinite(apart) or apart > tolerance:
            return False
        self.largest = max(self.largest, apart)
        return True


def _was(key: str, one: Any, other: Any) -> str:
    return f"{key} is {_short(one)}, in the uninterrupted run {_short(other)}"


def _short(value: Any) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _of_step(wanted: StageRecord, key: str, value: Any) -> str:
    """That a value belongs to another step, if it does."""
    for step, line in wanted.steps.items():
        if line[key] == value:
            return f", that of step {step}"
    return ""


def _paths(one: Any, other: Any, *path: str) -> list[tuple[str, ...]]:
    """The paths of all leaves of two JSON trees."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [leaf for key in keys for leaf in _paths(one.get(key), other.get(key), *path, key)]
    return [path]


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path[1:]:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
