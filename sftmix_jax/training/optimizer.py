"""Optax optimizers by name, with clipping, warm-up, decay of the learning rate and weight decay."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from sftmix_jax.data.mixture import rows_of
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import AnyOf, Choice, Flag, Integer, Number, Range, Table, Text, setting, within
from sftmix_jax.models import table
from sftmix_jax.training.precision import PRECISIONS

SCHEDULES = ("cosine", "linear", "constant")
_OPTION = AnyOf((Number(), Flag()), "must be a finite number, True or False")
# Gradient transformations that need nothing but gradients and parameters, and whose learning rate can be set each step.
OPTIMIZERS = (
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "amsgrad",
    "fromage",
    "lamb",
    "lars",
    "lion",
    "nadam",
    "nadamw",
    "novograd",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "radam",
    "rmsprop",
    "sgd",
    "sign_sgd",
    "signum",
    "sm3",
    "yogi",
    "acprop",
    "ademamix",
    "adopt",
    "cocob",
    "dadapt_adamw",
    "dog",
    "dowg",
    "madgrad",
    "muon",
    "prodigy",
    "simplified_ademamix",
)
# These find their rate from the distance to the first parameters, which they keep; the learning rate multiplies it.
RATE_FREE = ("cocob", "dadapt_adamw", "dog", "dowg", "prodigy")
_LEAST_FACTOR = (
    0.1  # with a usual learning rate their first steps are below float32's resolution, and so are all others
)
_NOT_OFFERED = {
    "lbfgs": "its line search evaluates the loss within an update",
    "polyak_sgd": "an update needs the value of the loss",
    "momo": "an update needs the value of the loss",
    "momo_adam": "an update needs the value of the loss",
    "sophia": "an update needs the loss function, for the Hessian's diagonal",
    "sam": "an update needs a second gradient",
    "dpsgd": "an update needs the gradient of each example",
    "noisy_sgd": "its updates depend on a random seed of their own",
    "rprop": "its learning rate is that of the first step alone",
    "galore": "its projections are made for matrices that are not stacked by layer",
    "optimistic_adam": "optax has replaced it; use optimistic_adam_v2",
    "schedule_free": "it evaluates other parameters than it trains",
    "schedule_free_adamw": "it evaluates other parameters than it trains",
    "schedule_free_sgd": "it evaluates other parameters than it trains",
}
# What the config sets by fields of its own, or the parameters decide.
_SET_ELSEWHERE = {
    "learning_rate": "set optimizer.learning_rate",
    "weight_decay": "set optimizer.weight_decay",
    "mask": "weight decay leaves norms and biases out",
    "weight_decay_mask": "weight decay leaves norms and biases out",
    "adam_weight_decay": "set optimizer.weight_decay, which decays the matrices of the layers",
    "adam_learning_rate": "set optimizer.learning_rate",
    "muon_weight_dimension_numbers": "the parameters decide it",
}


@dataclasses.dataclass
class OptimizerConfig:
    """The optimizer of a stage and its learning-rate schedule."""

    name: str = setting("adamw", Text(), f"one of {', '.join(OPTIMIZERS)}")
    learning_rate: float = setting(
        2e-5,
        # No optimizer here has a use for more than 10: of sgd on the smallest gradients, or as a factor of prodigy.
        Number(at_least=1e-12, at_most=100),
        "at its peak; a smaller one than the range allows changes no float32 parameter, a larger one diverges",
    )
    schedule: str = setting("cosine", Choice(SCHEDULES), "after the warm-up: cosine or linear to 0, or constant")
    warmup: float = setting(
        0.03, Number(at_least=0), "part of the steps, or from 1 on their number; at most all but the last step"
    )
    weight_decay: float = setting(
        0.0, Number(at_least=0, at_most=1000), "of matrices and embeddings; never of norms and biases"
    )
    clip_norm: float = setting(
        1.0, Number(at_least=1e-6, at_most=1e6, also=(0.0,)), "largest norm of the global gradient; 0: no clipping"
    )
    state: str = setting(
        "float32", Choice(PRECISIONS), "dtype of stored parameters and moments; bfloat16 uses stochastic rounding"
    )
    options: dict[str, float] = dataclasses.field(
        default_factory=dict, metadata=within(Table(_OPTION), 'further arguments of the optimizer, as {"b2": 0.95}')
    )

    def relations(self, where: str) -> Iterator[str]:
        """Fields that do not fit together (sftmix_jax.machine.ranges)."""
        if self.warmup >= 1 and self.warmup % 1:
            yield f"{where}.warmup: {self.warmup}; must be below 1 (a part of the steps) or a whole number of steps"


def warmup_steps(config: OptimizerConfig, steps: int) -> int:
    """The steps of the warm-up as the config asks for them; a stage has at most all but its last one."""
    return int(config.warmup) if config.warmup >= 1 else rows_of(config.warmup, steps)


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step; reaches 0 after `steps`."""
    if config.schedule not in SCHEDULES:
        raise UserError(f"optimizer.schedule: '{config.schedule}'; {did_you_mean(config.schedule, SCHEDULES)}")
    peak = config.learning_rate
    warmup = min(warmup_steps(config, steps), steps - 1)
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
    """The transformation from gradients to updates. Raises UserError.

    The learning rate is a number in its state, which the training step sets: so stages of other lengths and peaks share
    one compiled step, and carried moments do not carry their schedule.
    """
    factory = _factory(config.name)
    arguments = tuple(inspect.signature(factory).parameters)
    for name, value in config.options.items():
        if name in _SET_ELSEWHERE:
            raise UserError(f"optimizer.options: '{name}' is no option; {_SET_ELSEWHERE[name]}")
        if name not in arguments:
            raise UserError(
                f"optimizer.options: {config.name} has no argument '{name}'; {did_you_mean(name, arguments)}"
            )
        if rule := _option(name, inspect.signature(factory).parameters[name].default).broken(value):
            raise UserError(f"optimizer.options: {name}={value!r}; {rule}")
    if config.name in RATE_FREE and config.learning_rate < _LEAST_FACTOR:
        raise UserError(
            f"optimizer.learning_rate: {config.learning_rate:g}; {config.name} finds its own rate, and learning_rate "
            f"multiplies it: set it to 1, or at least {_LEAST_FACTOR}"
        )
    if config.name in RATE_FREE and config.state != "float32":
        raise UserError(
            f"optimizer.state: {config.name} measures the distance from the first parameters, which {config.state} "
            "would round; set it to float32"
        )
    options: dict[str, Any] = dict(config.options)
    mask = next((name for name in ("mask", "weight_decay_mask") if name in arguments), None)
    if mask:
        options[mask] = decayed
    if "weight_decay" in arguments:
        options["weight_decay"] = config.weight_decay
    if config.weight_decay and not (mask and "weight_decay" in arguments):
        raise UserError(
            f"optimizer.weight_decay: {config.name} takes none that leaves norms and biases out; use adamw or set it "
            "to 0"
        )
    if config.name == "muon":
        options["muon_weight_dimension_numbers"] = _matrices
    # All but the learning rate are Python numbers: optax takes some of them for sizes and switches.
    static = tuple(name for name in arguments if name != "learning_rate")
    optimizer = optax.inject_hyperparams(factory, static_args=static)(learning_rate=config.learning_rate, **options)
    if config.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    return optimizer


def _option(name: str, default: Any) -> Range:
    """What an argument of optax may be, told by its default and its name."""
    if isinstance(default, bool):
        return Flag()
    if isinstance(default, int):
        return Integer(at_least=0)
    if not isinstance(default, float | None) or name.endswith("dtype"):
        return Text(pattern=r"(?!)", rule="must be left out: only numbers, True and False can be set here")
    if re.fullmatch(r"(adam_)?b(eta)?\d|decay|decay_rate|momentum|rho", name):
        return Number(at_least=0, below=1)  # of a moving average
    if name == "eps" and default:
        return Number(at_least=1e-30, at_most=1)  # it keeps a zero gradient from being divided by zero
    return Number(at_least=0)


def _factory(name: str) -> Any:
    if name in _NOT_OFFERED:
        raise UserError(f"optimizer.name: {name} cannot be used here: {_NOT_OFFERED[name]}")
    if name not in OPTIMIZERS:
        raise UserError(f"optimizer.name: no optimizer '{name}'; {did_you_mean(name, OPTIMIZERS)}")
    return getattr(optax, name, None) or getattr(optax.contrib, name)


def decayed(params: Any) -> Any:
    """True for the parameters that weight decay applies to: matrices and embeddings, not norm scales and biases.

    These are the parameters that transformers' Trainer decays (get_decay_parameter_names).
    """
    return jax.tree_util.tree_map_with_path(lambda path, x: x.ndim - _stacked(path) >= 2, params)


def _matrices(params: Any) -> Any:
    """Each matrix of a layer as muon takes it, None for what it leaves to AdamW: norms, embeddings, the head."""

    def one(path: Any, x: Any) -> optax.contrib.MuonDimensionNumbers | None:
        if not _stacked(path) or x.ndim < 3:
            return None
        contracted = 1 + table.inputs_of(path[-1].key)  # behind the axis of layers
        return optax.contrib.MuonDimensionNumbers(tuple(range(1, contracted)), tuple(range(contracted, x.ndim)))

    return jax.tree_util.tree_map_with_path(one, params)


def _stacked(path: Any) -> bool:
    """True for a parameter of the decoder layers, whose first axis is the layer."""
    return any(getattr(key, "key", None) == "layers" for key in path)


def check(config: OptimizerConfig, steps: int) -> None:
    """Raise UserError for an optimizer, an option or a schedule that training could not use."""
    make_schedule(config, steps)
    optimizer = make_optimizer(config)
    params = {"layers": {"up": jax.ShapeDtypeStruct((2, 4, 8), jnp.float32)}}
    try:
        jax.eval_shape(lambda params: optimizer.update(params, optimizer.init(params), params), params)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer.options: {config.name} refuses {config.options}: {error}") from None
    if config.options and (fault := _fault(config)):
        raise UserError(f"optimizer.options: {fault} with {config.options}; change them, or leave them out")


_TRIED = 4  # updates: the first one of some optimizers changes nothing
_LEAST_UPDATE = 1e-12  # of the learning rate; rate-free optimizers begin with 1e-6


def _fault(config: OptimizerConfig) -> str:
    """What is wrong with the first updates of a small matrix; empty where they change it."""
    optimizer = make_optimizer(config)
    rng = np.random.default_rng(0)
    params = {"layers": {"up": rng.normal(0, 0.02, (2, 4, 8)).astype(np.float32)}}
    gradients = jax.tree.map(lambda x: rng.normal(0, 0.1, (_TRIED, *x.shape)).astype(np.float32), params)

    def step(carried: Any, gradient: Any) -> Any:
        params, state = carried
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), optax.tree.norm(updates)

    with jax.default_device(jax.local_devices()[0]):
        norms = jax.jit(lambda params: jax.lax.scan(step, (params, optimizer.init(params)), gradients)[1])(params)
    if not np.isfinite(norms).all():
        return f"the updates of {config.name} are not finite"
    if norms.max() < _LEAST_UPDATE * config.learning_rate:
        return f"the updates of {config.name} change nothing"
    return ""
