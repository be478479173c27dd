"""What a run says of itself: a line of metrics a step, and a progress line for people."""

import dataclasses
import json
import operator
import os
import time
from typing import Any

from etils import epath

from sftmix_jax.machine import files, terminal
from sftmix_jax.machine.ranges import Flag, Integer, Text, setting
from sftmix_jax.training.trackers import Trackers

_PROJECT = Text(
    r"[^/\\#?%:\s]([^/\\#?%:]{0,126}[^/\\#?%:\s])?|",
    "must be at most 128 characters without / \\ # ? % :, with none but inner spaces",
)

FIRST = 10  # steps at the start of a stage that have a line each: losses fall fastest there
_REPLACE = 30.0  # seconds between replacements of a metrics.jsonl in an object store


@dataclasses.dataclass
class LoggingConfig:
    """What is logged while a stage trains, and where to."""

    every: int = setting(10, Integer(at_least=1), "steps between lines of metrics.jsonl, after the first ten")
    validation_every: int = setting(
        0, Integer(at_least=0), "steps between validation losses; 0: only at the end of the stage"
    )
    batch_hashes: bool = setting(
        False, Flag(), "also log a hash of each batch, read back from the devices; steps then do not overlap"
    )
    tensorboard: bool = setting(False, Flag(), "also write TensorBoard events (the extra `tensorboard`)")
    wandb: str = setting("", _PROJECT, "also log to this Weights & Biases project (the extra `wandb`)")


class MetricsFile:
    """metrics.jsonl, and the trackers beside it."""

    def __init__(self, folder: epath.Path, start: int, trackers: Trackers | None = None, *, every: int):
        """Keeps what an earlier run wrote up to step `start`, and reports lines that are damaged or missing.

        Later lines belong to a run that was cut off and will be written again, as will the validation losses of step
        `start`, which are measured after its checkpoint.
        """
        self._file = folder / "metrics.jsonl"
        self._lines = _kept(self._file, start, every)
        files.replace(self._file, _joined(self._lines))
        # Object stores cannot append: there the file is replaced as a whole, now and then and before a checkpoint.
        self._stream = None if files.is_remote(self._file) else self._file.open("a")
        self._replaced = time.monotonic()
        self._trackers = trackers
        if trackers:
            trackers.begin(start, [record for record in map(json.loads, self._lines) if record["step"] == start])

    def write(self, record: dict[str, Any]) -> None:
        self._lines.append(json.dumps(record))
        if self._stream:
            self._stream.write(self._lines[-1] + "\n")
            self._stream.flush()
        elif time.monotonic() - self._replaced > _REPLACE:
            self.sync()
        if self._trackers:
            self._trackers.log(record)

    def sync(self) -> None:
        """Returns once every line is on the storage, as it must be before a checkpoint that covers its step."""
        if self._stream:
            os.fsync(self._stream.fileno())
        else:
            files.replace(self._file, _joined(self._lines))
            self._replaced = time.monotonic()

    def close(self) -> None:
        if self._stream:
            self._stream.close()


def _joined(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _kept(file: epath.Path, start: int, every: int) -> list[str]:
    """The lines of an earlier run that count up to step `start`, in order, one per step and kind."""
    text = file.read_bytes().decode(errors="replace") if file.is_file() else ""
    lines = text.split("\n")
    kept: dict[tuple[int, bool], str] = {}
    damaged: list[int] = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            step, is_validation = record["step"], "loss" not in record
            kind = (operator.index(step), is_validation)
        except (ValueError, TypeError, KeyError, RecursionError):
            if line and number < len(lines):  # what follows the last line end was being written
                damaged.append(number)
            continue
        if step < start or (step == start and not is_validation):
            kept[kind] = line
    wanted = range(every, start + 1, every)
    missing = [step for step in wanted if (step, False) not in kept]
    if damaged:
        listed = ", ".join(map(str, damaged[:5])) + (" …" if len(damaged) > 5 else "")
        terminal.err(f"{file}: left out what cannot be read (line {listed})")
    if missing:
        terminal.err(
            f"{file}: of {len(wanted)} steps up to {start} at logging.every={every}, {len(missing)} have no line (the "
            f"first is {missing[0]}): they were lost, or logging.every was another",
        )
    return [kept[kind] for kind in sorted(kept)]


class Progress:
    """One line on a terminal, drawn anew; elsewhere a line every 15 seconds."""

    EVERY = 15.0  # seconds

    def __init__(self, stage: str, steps: int):
        self._stage, self._steps = stage, steps
        self._last, self._tokens = -self.EVERY, 0
        self._first: tuple[int, float] | None = None  # the first step of this run, which compiles, and when it ended
        self._line = terminal.Line()

    def update(self, step: int, tokens: int, losses: dict[str, float]) -> None:
        """`tokens` were trained on in this step; `losses` by domain."""
        now, is_last, speed = time.monotonic(), step == self._steps, ""
        if self._first is None:
            self._first = (step, now)
        else:
            self._tokens += tokens
            seconds = max(now - self._first[1], 1e-9)
            left = seconds / (step - self._first[0]) * (self._steps - step)
            speed = f"{duration(left)} left  {self._tokens / seconds:,.0f} tokens/s  "
        loss = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        text = f"{self._stage} {step}/{self._steps}  {speed}loss: {loss}"
        if self._line.is_live:
            self._line.show(text, now=is_last)
        elif is_last or now - self._last >= self.EVERY:
            self._last = now
            terminal.err(text)

    def close(self) -> None:
        self._line.end()


def duration(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
