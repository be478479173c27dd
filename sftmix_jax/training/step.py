"""One training step and one evaluation step: pure functions, sharded by jit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from sftmix_jax.machine import compilation
from sftmix_jax.models import decoder, quantized
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.compute import Compute
from sftmix_jax.models.decoder import Params
from sftmix_jax.parallel import sharding
from sftmix_jax.training import precision
from sftmix_jax.training.loss import LossSums, loss_sums
from sftmix_jax.training.precision import Precision
from sftmix_jax.training.trainable import EVERYTHING, Trainable

Batch: TypeAlias = dict[str, Array]


class TrainState(NamedTuple):
    params: Params  # those that are trained
    opt_state: optax.OptState
    frozen: Params | None = None  # the others


class StepMetrics(NamedTuple):
    sums: LossSums
    grad_norm: Array


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The compiled functions of a stage, and where their arrays live."""

    mesh: Mesh
    abstract: TrainState  # shapes, dtypes and shardings
    init_optimizer: Callable[[Params], optax.OptState]
    train_step: Callable[[TrainState, Batch, Any], tuple[TrainState, StepMetrics]]  # with the learning rate
    eval_step: Callable[[TrainState, Batch], LossSums]


def make_trainer(
    config: Architecture,
    compute: Compute,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    domains: int,
    grad_accum_steps: int,
    kept: Precision = precision.PRECISIONS["float32"],
    trainable: Trainable = EVERYTHING,
    frozen_dtype: str = "float32",
) -> Trainer:
    """Everything that a stage compiles; `kept` says in which dtypes its state lives between steps."""
    definition, whole, axes = decoder.build(config, compute)
    whole = sharding.with_shardings(whole, sharding.param_shardings(mesh, whole, axes))
    abstract_params, abstract_frozen = trainable.split(whole)
    abstract_params = kept.stored(abstract_params)
    abstract_frozen = quantized.abstract(abstract_frozen, frozen_dtype)
    replicated = sharding.sharding(mesh, ())

    def init_optimizer(params: Params) -> optax.OptState:
        # Optax takes the dtype of its own numbers (b2, eps) from the parameters: they stay float32.
        return precision.cast_moments(params, optimizer.init(precision.cast(params, "float32")), kept.moments)

    opt_state = jax.eval_shape(init_optimizer, abstract_params)
    # Moments live where their parameters live; counters, and sums over a parameter's rows and columns, everywhere.
    opt_shardings = precision.map_moments(
        lambda x, param: param.sharding if x.shape == param.shape else replicated,
        opt_state,
        abstract_params,
        lambda _: replicated,
    )
    abstract = TrainState(abstract_params, sharding.with_shardings(opt_state, opt_shardings), abstract_frozen)
    state_shardings = jax.tree.map(lambda x: x.sharding, abstract)
    batch_sharding = sharding.sharding(mesh, ("batch", None))

    def sums(params: Params, frozen: Params | None, batch: Batch) -> tuple[Array, LossSums]:
        return loss_sums(decoder.bind(definition, trainable.joined(params, frozen), mesh), batch, domains)

    def train_step(state: TrainState, batch: Batch, learning_rate: Array) -> tuple[TrainState, StepMetrics]:
        total = batch["loss_weights"].sum()
        total = jnp.where(total > 0, total, 1.0)
        differentiated = precision.cast(state.params, kept.gradients)
        grads, measured = _gradients(
            lambda params, batch: sums(params, state.frozen, batch), differentiated, batch, grad_accum_steps
        )
        # From here on all is float32, and narrowed again at the end.
        params = precision.cast(state.params, "float32")
        grads = jax.tree.map(lambda g: g / total, precision.cast(grads, "float32"))
        opt_state = precision.cast_moments(params, state.opt_state, "float32")
        opt_state = optax.tree_utils.tree_set(opt_state, learning_rate=learning_rate)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        for_params, for_moments = jax.random.split(precision.step_key(opt_state))
        params = precision.narrow(optax.apply_updates(params, updates), kept.params, for_params)
        opt_state = precision.narrow_moments(params, opt_state, kept.moments, for_moments)
        return TrainState(params, opt_state, state.frozen), StepMetrics(measured, optax.global_norm(grads))

    def eval_step(state: TrainState, batch: Batch) -> LossSums:
        def part(batch: Batch) -> LossSums:
            return sums(state.params, state.frozen, batch)[1]

        if grad_accum_steps == 1:
            return part(batch)
        every = jax.lax.map(part, jax.tree.map(lambda x: _in_parts(x, grad_accum_steps), batch))
        return jax.tree.map(lambda x: x.sum(axis=0), every)

    told = compilation.options(mesh.devices.flat[0].platform)
    return Trainer(
        mesh,
        abstract,
        jax.jit(init_optimizer, out_shardings=opt_shardings),
        jax.jit(
            train_step,
            in_shardings=(state_shardings, batch_sharding, replicated),
            out_shardings=(state_shardings, replicated),
            donate_argnums=0,
            compiler_options=told,
        ),
        jax.jit(
            eval_step,
            in_shardings=(state_shardings, batch_sharding),
            out_shardings=replicated,
            compiler_options=told,
        ),
    )


def _gradients(
    sums: Callable[[Params, Batch], tuple[Array, LossSums]], params: Params, batch: Batch, grad_accum_steps: int
) -> tuple[Params, LossSums]:
    """Gradients of the summed loss, and the sums themselves; the batch in `grad_accum_steps` parts, added up."""
    gradient = jax.grad(sums, has_aux=True)
    if grad_accum_steps == 1:
        return gradient(params, batch)

    def add(carry: Any, batch: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, carry, gradient(params, batch)), None

    parts = jax.tree.map(lambda x: _in_parts(x, grad_accum_steps), batch)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, batch))
    return jax.lax.scan(add, zeros, parts)[0]


def _in_parts(x: Array, count: int) -> Array:
    """[B, …] → [count, B / count, …]; a part has every `count`-th row, so that each device cuts its own rows."""
    return jnp.swapaxes(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 0, 1)
