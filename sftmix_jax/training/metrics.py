"""What a run says of itself: a line of metrics a step, and a progress line for people."""

import dataclasses
import json
import os
import sys
import time
from typing import Any, TextIO

from etils import epath

from sftmix_jax.errors import UserError


@dataclasses.dataclass
class LoggingConfig:
    every: int = 10  # steps between lines of metrics.jsonl
    held_out_every: int = 0  # steps between held-out losses; 0: at the end of the stage alone
    batch_hashes: bool = False  # also a hash of each batch, read back from the devices; steps then do not overlap
    tensorboard: bool = False  # also write TensorBoard events (the extra 'tensorboard')
    wandb: str = ""  # also log to this Weights & Biases project (the extra 'wandb')


class MetricsFile:
    """metrics.jsonl, and the trackers asked for beside it."""

    def __init__(self, folder: epath.Path, config: LoggingConfig, start: int):
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
        self._trackers = _trackers(folder, config)

    def write(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()
        for tracker in self._trackers:
            tracker(record)

    def close(self) -> None:
        self._stream.close()


def _trackers(folder: epath.Path, config: LoggingConfig) -> list[Any]:
    trackers = []
    if config.tensorboard:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UserError("logging.tensorboard needs tensorboardX: pip install 'sftmix-jax[tensorboard]'") from None
        writer = SummaryWriter(os.fspath(folder / "tensorboard"))

        def to_tensorboard(record: dict[str, Any]) -> None:
            for key, value in record.items():
                if isinstance(value, float):
                    writer.add_scalar(key, value, record["step"])

        trackers.append(to_tensorboard)
    if config.wandb:
        try:
            import wandb
        except ImportError:
            raise UserError("logging.wandb needs wandb: pip install 'sftmix-jax[wandb]'") from None
        run = wandb.init(project=config.wandb, name=folder.name, id=folder.name, resume="allow")
        trackers.append(lambda record: run.log(record, step=record["step"]))
    return trackers


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
