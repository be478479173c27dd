"""One stage's training: from a position to the end, saving on the way."""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from etils import epath

from sftmix_jax.data import loader
from sftmix_jax.data.loader import LoaderConfig, Plan
from sftmix_jax.machine import processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Integer, setting
from sftmix_jax.models.decoder import Params
from sftmix_jax.parallel import sharding
from sftmix_jax.training import precision
from sftmix_jax.training.batch_hash import batch_hash
from sftmix_jax.training.checkpoints import Checkpoints
from sftmix_jax.training.metrics import FIRST, LoggingConfig, MetricsFile, Progress
from sftmix_jax.training.step import StepMetrics, Trainer, TrainState
from sftmix_jax.training.trackers import Trackers


@dataclasses.dataclass
class CheckpointConfig:
    """When checkpoints are saved, and how many are kept."""

    every: int = setting(500, Integer(at_least=1), "steps between checkpoints; the last step is always saved")
    keep: int = setting(1, Integer(at_least=1), "the newest checkpoints that are kept, this many")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What of a config the loop reads; nothing of it is part of a stage's identity."""

    checkpoints: CheckpointConfig
    logging: LoggingConfig
    loading: LoaderConfig


@dataclasses.dataclass(frozen=True)
class Job:
    """A stage to train: what it is fed with, how long, and where its files go."""

    name: str
    stage_id: str
    folder: epath.Path
    plan: Plan
    validation: Plan | None
    steps: int
    rates: np.ndarray  # float32 [steps]: the learning rate of each step


class Stopped(Exception):
    """The run was asked to stop; its state is saved. `code` is the exit code."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


@contextmanager
def stop_requests() -> Iterator[Callable[[int], int | None]]:
    """SIGTERM and Ctrl-C become an exit code to ask for between steps: 143 and 130.

    Where there are many processes they must stop after the same step: jax catches SIGTERM itself and agrees on one.
    """
    asked: list[int] = []
    signals = {signal.SIGTERM: 143, signal.SIGINT: 130}

    def note(number: int, _: Any) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C does not wait for the save
        asked.append(signals[signal.Signals(number)])

    if processes.are_many():
        yield lambda step: 143 if processes.asked_to_stop(step) else None
        return
    if threading.current_thread() is not threading.main_thread():  # only the main one may handle signals
        yield lambda step: None
        return
    before = {number: signal.signal(number, note) for number in signals}
    try:
        yield lambda step: asked[0] if asked else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclasses.dataclass(frozen=True)
class Outcome:
    state: TrainState
    seconds: float  # of training, over all runs that it took
    validation_loss: dict[str, float]  # loss by domain at the end


class _Clock:
    """Seconds of training, over all runs that it took."""

    def __init__(self, before: float):
        self._begin = time.monotonic() - before

    def seconds(self) -> float:
        return time.monotonic() - self._begin


class _Reporter:
    """Says of each step what it measured: on the screen, and in metrics.jsonl."""

    def __init__(self, job: Job, first: int, clock: _Clock, every: int, trackers: Trackers | None):
        self._job, self._clock, self._every = job, clock, every
        self._metrics = MetricsFile(job.folder, first, trackers, every=every) if processes.is_first() else None
        self._progress = Progress(job.name, job.steps)

    def step(self, step: int, measured: StepMetrics, fed: str) -> None:
        """Waits for the step. Raises UserError if its loss or its gradient is not a number."""
        sums = jax.device_get(measured.sums)
        names = enumerate(self._job.plan.names)
        losses = {name: float(sums.loss[i] / sums.weight[i]) for i, name in names if sums.weight[i]}
        tokens = self._job.plan.tokens(step - 1)
        self._progress.update(step, tokens, losses)
        total, grad_norm = float(sums.loss.sum()), float(measured.grad_norm)
        for what, value in (("loss", total), ("gradient's norm", grad_norm)):
            if not np.isfinite(value):
                raise _diverged(self._job.folder, f"the {what} of step {step} is {value}")
        if step > FIRST and step % self._every and step != self._job.steps:
            return
        weight = float(sums.weight.sum())
        self._write(
            {
                "step": step,
                "loss": total / weight if weight else 0.0,
                **{f"loss/{domain}": loss for domain, loss in losses.items()},
                "grad_norm": grad_norm,
                "learning_rate": float(self._job.rates[step - 1]),
                "trained_tokens": self._job.plan.trained_tokens(step - 1),
                "tokens": tokens,
                "seconds": round(self._clock.seconds(), 3),
                **({"batch": fed} if fed else {}),
            }
        )

    def validation(self, step: int, losses: dict[str, float]) -> None:
        self._write({"step": step, **{f"validation_loss/{domain}": loss for domain, loss in losses.items()}})

    def _write(self, record: dict[str, Any]) -> None:
        if self._metrics:
            self._metrics.write(record)

    def sync(self) -> None:
        """Returns once what was reported is on the storage."""
        if self._metrics:
            self._metrics.sync()

    def close(self) -> None:
        self._progress.close()
        if self._metrics:
            self._metrics.close()


def _diverged(folder: epath.Path, what: str) -> UserError:
    return UserError(
        f"{folder}: {what}. The checkpoint before it is kept; lower optimizer.learning_rate or set optimizer.clip_norm"
    )


def train(
    job: Job,
    trainer: Trainer,
    settings: Settings,
    *,
    start: Callable[[], TrainState],
    frozen: Callable[[], Params | None],
    check_lease: Callable[[], None],
    trackers: Trackers | None = None,
) -> Outcome:
    """Train one stage to its last step, from its newest sound checkpoint if it has one.

    `start` makes the first state, without the `frozen` parameters. `check_lease` raises where another process has
    taken the stage over; it is called before each save. Raises Stopped after a SIGTERM or Ctrl-C, once everything is
    saved, and UserError if the checkpoint is of other data.
    """
    plan, steps, logging = job.plan, job.steps, settings.logging
    saves = Checkpoints(job.folder / "checkpoints", settings.checkpoints.keep, stage=job.stage_id)
    state, position = saves.restore(trainer.abstract) or (start(), {"step": 0, "seconds": 0.0})
    state = state._replace(frozen=frozen())
    first, clock = position["step"], _Clock(position["seconds"])
    if first:
        _check_ledger(job, first, position["ledger"])
    part = loader.process_part(plan.batch_config.batch_size, jax.process_index(), jax.process_count())
    reporter = _Reporter(job, first, clock, logging.every, trackers)

    def save(step: int) -> None:
        check_lease()
        if not precision.are_finite(state.params):
            raise _diverged(job.folder, f"the parameters after step {step} are not all finite")
        reporter.sync()  # a checkpoint's steps are all in metrics.jsonl
        saves.save(step, state, {"seconds": clock.seconds(), "ledger": plan.ledger(step)})

    def validation_losses(step: int) -> dict[str, float]:
        if job.validation is None:
            return {}
        losses = evaluate(trainer, state, job.validation)
        reporter.validation(step, losses)
        return losses

    def measured_at(step: int) -> bool:
        return bool(logging.validation_every) and step % logging.validation_every == 0 and 0 < step < steps

    waiting: list[tuple[int, StepMetrics, str]] = []

    def report() -> None:
        while waiting:
            reporter.step(*waiting.pop())

    try:
        if measured_at(first):
            validation_losses(first)
        with stop_requests() as stop_asked:
            for step, batch in enumerate(loader.batches(plan, settings.loading, first, steps, part), first + 1):
                on_device = sharding.put_batch(trainer.mesh, batch, plan.batch_config.batch_size)
                fed = batch_hash(on_device) if logging.batch_hashes else ""
                state, measured = trainer.train_step(state, on_device, job.rates[step - 1])
                report()  # of the step before, while the device works on this one
                waiting.append((step, measured, fed))
                code = stop_asked(step)
                saving = code is not None or step == steps or step % settings.checkpoints.every == 0
                if saving or measured_at(step):
                    report()
                if saving:
                    save(step)
                if code is not None:
                    saves.wait()
                    raise Stopped(code)
                if measured_at(step):
                    validation_losses(step)
            final = validation_losses(steps)
            saves.wait()
        check_lease()
        reporter.sync()
        return Outcome(state, clock.seconds(), final)
    finally:
        reporter.close()
        saves.close()


def _check_ledger(job: Job, first: int, ledger: Any) -> None:
    """Refuse a checkpoint of other rows than are planned; else say where the run goes on."""
    if ledger != job.plan.ledger(first):
        raise UserError(
            f"{job.folder}: its checkpoint after step {first:,} was trained on other rows than this version of "
            f"sftmix_jax plans ({ledger}, not {job.plan.ledger(first)}). Going on would repeat some and lose others: "
            "finish the stage with the version that began it, or delete the folder to train it anew"
        )
    if processes.is_first():
        terminal.err(f"  goes on after step {first:,} of {job.steps:,}")


def evaluate(trainer: Trainer, state: TrainState, plan: Plan) -> dict[str, float]:
    """Mean loss of each domain over all batches of a plan."""
    rows = plan.batch_config.batch_size
    part = loader.process_part(rows, jax.process_index(), jax.process_count())
    loss = np.zeros(len(plan.names))
    weight = np.zeros(len(plan.names))
    for step in range(plan.num_steps):
        batch = sharding.put_batch(trainer.mesh, plan.batch(step, part), rows)
        sums = jax.device_get(trainer.eval_step(state, batch))
        loss, weight = loss + sums.loss, weight + sums.weight
    return {name: float(loss[i] / weight[i]) for i, name in enumerate(plan.names) if weight[i]}
