"""When to kill a run, and what a kill has hit, by what is seen on disk."""

from __future__ import annotations

import dataclasses
import operator
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from sftmix_jax.resuming import records

WHERE = ("in a save", "in a step", "between stages", "at the start")
_POLL = 0.01  # seconds between looks
_UNFINISHED = "orbax-checkpoint-tmp"  # in the name of a folder that Orbax has not committed


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long the parts of an uninterrupted run took, in seconds, and how many steps it has."""

    start_up: float  # to the first step
    step: float
    save: float
    total: float
    steps: int  # of all stages


@dataclasses.dataclass(frozen=True)
class Seen:
    """Where a run stands. `trained`: steps of the experiment that are behind it."""

    stage: str
    step: int  # last one reported
    trained: int
    moving: bool  # whether a step was reported since the watch began
    saving: bool


class Watch:
    """Looks at the folders of a run from its start on; what earlier attempts have left is told apart."""

    def __init__(self, workdir: Path):
        self._workdir = workdir
        self._ids: dict[str, str] = {}
        stages = self._stages()
        self._first = {name: saved(folder) + 1 for name, folder in stages.items()}
        self._finished = {name for name, folder in stages.items() if _is_done(folder)}
        self._old = {name: _changed(folder / "metrics.jsonl") for name, folder in stages.items()}
        self._left = {path for folder in stages.values() for path in _unfinished(folder)}

    def trained(self) -> dict[str, int]:
        """The stages that this attempt has trained so far, each with the first step."""
        return {name: self._first.get(name, 1) for name, folder in self._stages().items() if self._moves(name, folder)}

    def look(self) -> Seen:
        """What is on disk now."""
        before = 0
        stage, step, moving, saving = "", 0, False, False
        for name, folder in self._stages().items():
            moving |= self._moves(name, folder)
            if _is_done(folder) or self._moves(name, folder):
                here = max((line["step"] for line in records.lines(folder / "metrics.jsonl")), default=0)
            else:
                here = self._first.get(name, 1) - 1  # where a resume goes on
            unfinished = _unfinished(folder)
            self._left -= {path for path in self._left if path.parent.parent == folder} - unfinished
            saving |= bool(unfinished - self._left)
            stage, step = name, here
            if not _is_done(folder):
                return Seen(stage, step, before + here, moving, saving)
            before += here
        return Seen(stage, step, before, moving, saving)

    def _stages(self) -> dict[str, Path]:
        """The folders of the run's stages, in the order of training, as soon as it has named them."""
        self._ids = self._ids or records.stages(self._workdir)
        return {name: self._workdir / "stages" / f"{name}-{id}" for name, id in self._ids.items()}

    def _moves(self, name: str, folder: Path) -> bool:
        """Whether this attempt has written into the stage's metrics."""
        return name not in self._finished and _changed(folder / "metrics.jsonl") != self._old.get(name, 0)


def saved(stage: Path) -> int:
    """The step of the newest finished checkpoint of a stage, or 0."""
    steps = (path for path in _listed(stage / "checkpoints") if path.name.isdigit())
    return max((int(path.name) for path in steps if (path / "manifest.json").exists()), default=0)


def wait_for(
    watch: Watch, where: str, position: float, pace: Pace, rng: random.Random, has_ended: Callable[[], bool]
) -> None:
    """Until the moment to kill at, or until the run has ended.

    `where`: in a save, at a random time after it was first seen, behind `position` steps of the experiment; in a step,
    at a random time after that position; or at the start, at a random time before the first step.
    """
    begin = time.monotonic()
    if where == "at the start":
        delay = rng.uniform(0, pace.start_up)
    else:
        while not has_ended():
            seen = watch.look()
            if seen.moving and seen.trained >= position and (where == "in a step" or seen.saving):
                break
            time.sleep(_POLL)
        begin = time.monotonic()
        delay = rng.uniform(0, 2 * pace.step if where == "in a step" else pace.save)
    while not has_ended() and time.monotonic() - begin < delay:
        time.sleep(min(_POLL, delay))


def measure(watch: Watch, has_ended: Callable[[], bool]) -> Pace:
    """Watch a run until it has ended."""
    begin = time.monotonic()
    moved = 0.0
    saves: list[float] = []
    lines: list[float] = []  # when each step was reported
    since: float | None = None
    while not has_ended():
        seen, now = watch.look(), time.monotonic() - begin
        if seen.moving and not moved:
            moved = now
        if seen.trained > len(lines):
            lines += [now] * (seen.trained - len(lines))
        if seen.saving and since is None:
            since = now
        if not seen.saving and since is not None:
            saves.append(now - since)
            since = None
        time.sleep(_POLL)
    total, trained = time.monotonic() - begin, watch.look().trained
    step = statistics.median(map(operator.sub, lines[1:], lines)) if lines[1:] else 0.0
    return Pace(moved, step, statistics.median(saves or [0.0]), total, trained)


def hit(watch: Watch) -> tuple[str, str, int]:
    """What a kill has hit: one of WHERE, the stage, and its last reported step."""
    seen = watch.look()
    if seen.saving:
        return "in a save", seen.stage, seen.step
    if not seen.moving:
        return "at the start", seen.stage, seen.step
    return "in a step" if seen.step else "between stages", seen.stage, seen.step


def _is_done(stage: Path) -> bool:
    return (stage / "done.json").exists()


def _unfinished(stage: Path) -> set[Path]:
    """Checkpoints that are being saved, or that a save has left."""
    return {
        path
        for path in _listed(stage / "checkpoints")
        if _UNFINISHED in path.name or (path.name.isdigit() and not (path / "manifest.json").exists())
    }


def _changed(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
