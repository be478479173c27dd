"""An experiment trained without interruption, on other process counts, and killed and resumed; all compared."""

from __future__ import annotations

import dataclasses
import math
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from sftmix_jax.machine import terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.resuming import kills, records
from sftmix_jax.resuming.kills import Pace, Watch
from sftmix_jax.resuming.records import Comparison, Difference, StageRecord
from sftmix_jax.resuming.runs import Failure, Launch, Layout, Run, train

_KILLS_PER_RUN = 10
_START_UPS = 0.25  # of the kills that are not in saves: at the start
_PATIENCE = 300.0  # seconds, and ten times the uninterrupted run's: then a resumed run hangs
# Other process counts may take sums in another order. Relative, for losses and gradient norms.
_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill, and what it hit."""

    where: str  # one of kills.WHERE
    stage: str
    step: int
    layout: Layout
    only: int | None  # the one process that was killed, or None: all

    def __str__(self) -> str:
        who = "" if self.layout.processes == 1 else f", {self.layout.processes} processes"
        who += "" if self.only is None else f", process {self.only} alone"
        return f"{self.where}" + (f" ({self.stage}, step {self.step}{who})" if self.stage else "")


@dataclasses.dataclass
class Findings:
    """What a check has found; `difference` is None while all is equal."""

    reference: dict[str, StageRecord]
    pace: Pace
    kills: list[Kill] = dataclasses.field(default_factory=list)
    runs: int = 0  # that were killed and resumed
    lines: int = 0  # steps compared; one that was trained twice counts twice
    exact: list[Layout] = dataclasses.field(default_factory=list)  # layouts of the killed runs, equal bit for bit
    rounded: dict[Layout, float] = dataclasses.field(default_factory=dict)  # others, with the largest difference
    difference: Difference | None = None
    where: str = ""  # the run and the attempt that differ
    log: Path | None = None
    repeatable: bool = True  # whether two uninterrupted runs are equal; tried only after a difference

    def hits(self) -> Counter[str]:
        return Counter(kill.where for kill in self.kills)


@dataclasses.dataclass(frozen=True)
class _Attempt:
    """One start of the training command, after its end."""

    kill: Kill | None
    failure: Failure | None  # unless it was killed
    hangs: bool
    trained: dict[str, int]  # stages, each from which step
    log: Path


class Check:
    """One check in `folder`; `say` hears what is done as it is done."""

    def __init__(
        self,
        config: Path,
        folder: Path,
        layouts: Sequence[Layout],
        kills: int,
        *,
        seed: int = 0,
        keep: bool = False,
        launch: Launch = train,
        say: Callable[[str], None] = terminal.out,
    ):
        """`config`: the shortened experiment. `keep`: folders of finished runs stay. `launch`: starts the training."""
        self._config, self._folder, self._layouts, self._wanted = config, folder, layouts, kills
        self._random, self._keep, self._launch, self._say = random.Random(seed), keep, launch, say

    def run(self) -> Findings:
        """Raises UserError if the uninterrupted run fails."""
        first, *others = self._layouts
        self._say(f"uninterrupted run, {first}")
        found = Findings(*self._uninterrupted("uninterrupted", first), exact=[first])
        comparison = Comparison(found.reference)
        pace = found.pace
        self._say(f"  {pace.steps} steps in {duration(pace.total)}, {duration(pace.start_up)} to the first")
        self._say(f"  about {duration(self._remaining(pace))} to come")
        for layout in others:
            self._compare_layout(found, comparison, layout)
        while len(found.kills) < self._wanted and not found.difference:
            self._kill_and_resume(found, comparison, min(self._wanted - len(found.kills), _KILLS_PER_RUN))
        found.lines = comparison.lines
        if found.difference and found.difference.measured:
            self._say("uninterrupted run once more: is it equal to the first?")
            again, _ = self._uninterrupted("uninterrupted-again", first)
            found.repeatable = Comparison(found.reference).whole(again) is None
        return found

    def _remaining(self, pace: Pace) -> float:
        """Seconds that the rest will take, by the pace of the uninterrupted run."""
        whole = len(self._layouts) - 1 + math.ceil(self._wanted / _KILLS_PER_RUN)
        return whole * pace.total + self._wanted * pace.start_up

    def _uninterrupted(self, name: str, layout: Layout) -> tuple[dict[str, StageRecord], Pace]:
        workdir = self._folder / name
        watch, run = Watch(workdir), self._start(workdir, layout, name)
        try:
            pace = kills.measure(watch, run.has_ended)
        finally:
            run.end()
        if failure := run.failure():
            raise UserError(f"the uninterrupted run failed. {failure}")
        found = records.read(workdir)
        self._discard(workdir)
        return found, pace

    def _compare_layout(self, found: Findings, comparison: Comparison, layout: Layout) -> None:
        """Train once more, uninterrupted, on another process count; one that is equal bit for bit is killed on too."""
        if found.difference:
            return
        self._say(f"uninterrupted run, {layout}")
        name = f"uninterrupted-{layout.processes}-processes"
        again, _ = self._uninterrupted(name, layout)
        difference = comparison.whole(again)
        if difference is None:
            self._say("  equal bit for bit")
            found.exact.append(layout)
            return
        loose = Comparison(found.reference)
        if worse := loose.whole(again, _TOLERANCE):
            found.difference, found.where, found.log = worse, f"uninterrupted run, {layout}", self._log(name)
            return
        self._say(f"  batches and ledger are equal, losses to within {loose.largest:.0e}")
        found.rounded[layout] = loose.largest

    def _kill_and_resume(self, found: Findings, comparison: Comparison, count: int) -> None:
        """Train once more, killed `count` times on the way and resumed on the next of the process counts each time."""
        found.runs += 1
        name = f"killed-{found.runs}"
        workdir = self._folder / name
        self._say(f"killed run {found.runs}, {count} kill{'s' * (count > 1)}")
        # Spread over the run, so that it is resumed from many checkpoints and in every stage.
        positions = [found.pace.steps * (i + self._random.random()) / count for i in range(count)]
        for number in range(1, 100 * count):
            layout = found.exact[(number - 1) % len(found.exact)]
            position = positions.pop(0) if positions else None
            attempt = self._attempt(found, workdir, layout, position, f"{name}-{number}")
            so_far = records.read(workdir)
            difference = comparison.attempt(so_far, attempt.trained)
            if attempt.kill:
                found.kills.append(attempt.kill)
                self._say(f"  kill {len(found.kills)} of {self._wanted}: {attempt.kill}")
                if not difference:
                    continue
            elif attempt.failure:
                difference = difference or Difference("", 0, f"the resumed run failed. {attempt.failure}")
            elif attempt.hangs:
                difference = difference or Difference("", 0, "the resumed run did not end")
            if difference := difference or comparison.whole(so_far):
                found.difference, found.log = difference, attempt.log
                found.where = f"killed run {found.runs}, start {number}"
            else:
                self._say("  finished: equal")
                self._discard(workdir)
            return

    def _attempt(self, found: Findings, workdir: Path, layout: Layout, position: float | None, name: str) -> _Attempt:
        """Start the training command, and kill it behind `position` steps of the experiment, or not at all."""
        watch, run = Watch(workdir), self._start(workdir, layout, name)
        deadline = time.monotonic() + _PATIENCE + 10 * found.pace.total
        kill, hangs = None, False

        def is_over() -> bool:
            return run.has_ended() or time.monotonic() > deadline

        try:
            if position is not None:
                kills.wait_for(watch, self._next_target(found), position, found.pace, self._random, is_over)
                one = self._random.randrange(layout.processes) if self._random.random() < 0.5 else None
                only = None if layout.processes == 1 else one
                if not is_over() and run.kill(range(layout.processes) if only is None else [only]):
                    kill = Kill(*kills.hit(watch), layout, only)
            while not is_over():
                time.sleep(0.05)
            hangs = not run.has_ended()
        finally:
            run.end()
        failure = None if kill or hangs else run.failure()
        return _Attempt(kill, failure, hangs, watch.trained(), run.logs[0])

    def _next_target(self, found: Findings) -> str:
        """Half of the kills hit saves: one that has missed is made up for by the next."""
        if 2 * found.hits()["in a save"] <= len(found.kills):
            return "in a save"
        return "at the start" if self._random.random() < _START_UPS else "in a step"

    def _start(self, workdir: Path, layout: Layout, name: str) -> Run:
        arguments = [f"--config={self._config}", f"--workdir={workdir}"]
        return Run(self._launch, arguments, layout, self._log(name))

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _discard(self, workdir: Path) -> None:
        if not self._keep:
            shutil.rmtree(workdir)


def duration(seconds: float) -> str:
    """Seconds for people: `41 s`, `3 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
