"""What a run says of itself: a line of metrics a step, and a progress line for people."""

import dataclasses
import json
import sys
import time
from typing import Any, TextIO

from etils import epath

from sftmix_jax.ranges import Flag, Integer, Text, setting
from sftmix_jax.training.trackers import Trackers

_PROJECT = Text(r"[^/\\#?%:\s]([^/\\#?%:]{0,126}[^/\\#?%:\s])?|",
                "must be at most 128 characters without / \\ # ? % :, with none but inner spaces")  # fmt: skip


@dataclasses.dataclass
class LoggingConfig:
    every: int = setting(10, Integer(at_least=1))  # steps between lines of metrics.jsonl
    # steps between held-out losses; 0: at the end of the stage alone
    held_out_every: int = setting(0, Integer(at_least=0))
    tensorboard: bool = setting(False, Flag())  # also write TensorBoard events (the extra 'tensorboard')
    wandb: str = setting("", _PROJECT)  # also log to this Weights & Biases project (the extra 'wandb')


class MetricsFile:
    """metrics.jsonl, and the trackers beside it."""

    def __init__(self, folder: epath.Path, start: int, trackers: Trackers | None = None):
        """What comes after step `start` belongs to a run that was cut off, and will be written again: later lines, and
        the held-out losses of that step, which are measured after its checkpoint."""
        file = folder / "metrics.jsonl"
        kept = []
        if file.exists():
            for line in file.read_text().splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    break  # a half-written last line
                if record["step"] < start or (record["step"] == start and "loss" in record):
                    kept.append(line)
        file.write_text("".join(f"{line}\n" for line in kept))
        self._stream: TextIO = file.open("a")
        self._trackers = trackers
        if trackers:
            trackers.begin(start, [record for record in map(json.loads, kept) if record["step"] == start])

    def write(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()
        if self._trackers:
            self._trackers.log(record)

    def close(self) -> None:
        self._stream.close()


class Progress:
    """One line on a terminal, drawn over and over; elsewhere a line now and then."""

    def __init__(self, stage: str, steps: int, start: int):
        self._stage, self._steps, self._start = stage, steps, start
        self._begin, self._last, self._tokens = time.monotonic(), 0.0, 0
        self._live = sys.stderr.isatty()
        self._every = 0.2 if self._live else 15.0

    def update(self, step: int, tokens: int, losses: dict[str, float]) -> None:
        """`tokens` were trained on in this step; `losses` by domain."""
        self._tokens += tokens
        now = time.monotonic()
        if step < self._steps and now - self._last < self._every:
            return
        self._last = now
        elapsed = max(now - self._begin, 1e-9)
        left = elapsed / max(step - self._start, 1) * (self._steps - step)
        loss = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        text = (
            f"{self._stage}  step {step}/{self._steps}  loss: {loss}  "
            f"{self._tokens / elapsed:,.0f} tokens/s  {_duration(left)} left"
        )
        if self._live:
            filled = round(20 * step / self._steps)
            sys.stderr.write(f"\r\033[K{'━' * filled}{'╌' * (20 - filled)} {text}")
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self._live:
            sys.stderr.write("\n")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
