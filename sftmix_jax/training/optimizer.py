"""Any optax optimiser by name, with clipping, warm-up and decay."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import optax

from sftmix_jax.errors import UserError, did_you_mean
from sftmix_jax.ranges import AnyOf, Choice, Flag, Number, Table, Text, setting, within
from sftmix_jax.training.precision import PRECISIONS

SCHEDULES = ("cosine", "linear", "constant")
_OPTION = AnyOf((Number(), Flag()), "must be a finite number, True or False")


@dataclasses.dataclass
class OptimizerConfig:
    name: str = setting("adamw", Text())  # any optimiser of optax
    learning_rate: float = setting(2e-5, Number(above=0))  # at its peak
    schedule: str = setting("cosine", Choice(SCHEDULES))  # after the warm-up: cosine or linear to 0, or constant
    warmup: float = setting(0.03, Number(at_least=0))  # part of the steps, or from 1 on their number
    weight_decay: float = setting(0.0, Number(at_least=0))
    clip_norm: float = setting(1.0, Number(at_least=0))  # of the global gradient; 0: no clipping
    state: str = setting("float32", Choice(PRECISIONS))  # how parameters and moments are kept
    # further arguments, e.g. {"b2": 0.95}
    options: dict[str, float] = dataclasses.field(default_factory=dict, metadata=within(Table(_OPTION)))

    def relations(self, where: str) -> Iterator[str]:
        """Fields that do not fit together (sftmix_jax.ranges)."""
        if self.warmup >= 1 and self.warmup % 1:
            yield f"{where}.warmup: {self.warmup}; must be below 1 (a part of the steps) or a whole number of steps"


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step; reaches 0 after `steps`."""
    if config.schedule not in SCHEDULES:
        raise UserError(f"optimizer.schedule: '{config.schedule}'; {did_you_mean(config.schedule, SCHEDULES)}")
    peak = config.learning_rate
    warmup = min(int(config.warmup if config.warmup >= 1 else config.warmup * steps), steps - 1)
    rest = max(steps - warmup, 1)
    decay = {
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "constant": optax.constant_schedule(peak),
    }[config.schedule]
    if warmup < 1:
        return decay
    # The first update already moves: the ramp starts at 1/warmup of the peak, not at 0.
    ramp = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([ramp, decay], [warmup])


def learning_rates(config: OptimizerConfig, steps: int) -> np.ndarray:
    """The learning rate of every step, float32 [steps]; on the host, so that no step waits for it."""
    rates = make_schedule(config, steps)(np.arange(steps))
    return np.broadcast_to(np.asarray(rates, np.float32), (steps,))


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The transformation from gradients to updates.

    The learning rate is a number in its state, which the training step sets: so stages of other lengths and peaks share
    one compiled step, and carried moments do not carry their schedule.
    """
    factory = getattr(optax, config.name, None)
    known = [name for name in dir(optax) if "learning_rate" in _arguments(getattr(optax, name))]
    if factory is None or config.name not in known:
        raise UserError(f"optimizer.name: optax has no optimiser '{config.name}'; {did_you_mean(config.name, known)}")
    options: dict[str, Any] = dict(config.options)
    if "weight_decay" in _arguments(factory):
        options["weight_decay"] = config.weight_decay
    elif config.weight_decay:
        raise UserError(f"optimizer.weight_decay: {config.name} takes none; use adamw or set it to 0")
    for name in options:
        if name not in _arguments(factory):
            raise UserError(f"optimizer.options: {config.name} has no argument '{name}'; "
                            f"{did_you_mean(name, _arguments(factory))}")  # fmt: skip
    optimizer = optax.inject_hyperparams(factory, static_args=tuple(options))(config.learning_rate, **options)
    if config.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    return optimizer


def _arguments(function: Any) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()
