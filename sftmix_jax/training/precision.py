"""In which dtypes the training state is kept; what is kept in bfloat16 is rounded at random.

Rounded to the nearest, a bfloat16 weight never moves by less than a 256th of itself, and Adam's second moment stops
following its gradients (b2 = 0.999 changes it by a thousandth a step). Rounded up or down with the right odds both move
as they would in float32 on average.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from sftmix_jax.machine.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Precision:
    params: str
    moments: str
    gradients: str

    def stored(self, params: Any) -> Any:
        """Abstract parameters in the dtype that they are kept in, with their shardings."""
        return in_dtype(params, self.params)


PRECISIONS = {
    "float32": Precision("float32", "float32", "float32"),  # 12 bytes a parameter, and 4 for its gradient
    "bfloat16_moments": Precision("float32", "bfloat16", "bfloat16"),  # 8 and 2
    "bfloat16": Precision("bfloat16", "bfloat16", "bfloat16"),  # 6 and 2
}


def find(name: str) -> Precision:
    """`optimizer.state` by name. Raises UserError."""
    if name not in PRECISIONS:
        raise UserError(f"optimizer.state: '{name}'; {did_you_mean(name, PRECISIONS)}")
    return PRECISIONS[name]


def in_dtype(abstract: Any, dtype: str) -> Any:
    """Abstract arrays in another dtype, with their shardings."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding), abstract)


def cast(tree: Any, dtype: str) -> Any:
    """Every array in this dtype, to the nearest."""
    return jax.tree.map(lambda x: x.astype(dtype), tree)


@jax.jit
def are_finite(tree: Any) -> Array:
    """True if no number of these arrays is NaN or infinite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def map_moments(
    function: Callable[[Any, Any], Any], opt_state: optax.OptState, params: Any, others: Callable[[Any], Any]
) -> optax.OptState:
    """`function(leaf, parameter)` of what the optimizer keeps of each parameter, `others(leaf)` of all else.

    A leaf belongs to a parameter if its path ends with the parameter's. Its shape may be another one: Adafactor keeps
    sums over rows and columns.
    """
    by_path = dict(jax.tree_util.tree_leaves_with_path(params))

    def one(path: Any, leaf: Any) -> Any:
        owner = next((by_path[path[i:]] for i in range(len(path)) if path[i:] in by_path), None)
        return others(leaf) if owner is None else function(leaf, owner)

    return jax.tree_util.tree_map_with_path(one, opt_state)


def cast_moments(params: Any, opt_state: optax.OptState, dtype: str) -> optax.OptState:
    """What the optimizer keeps of each parameter in this dtype, to the nearest; counters as they are."""
    return map_moments(
        lambda x, _: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, opt_state, params, lambda x: x
    )


def narrow(tree: Any, dtype: str, key: Array) -> Any:
    """Float32 arrays as they are kept: in bfloat16 rounded at random."""
    if dtype == "float32":
        return tree
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [round_at_random(x, k) for x, k in zip(leaves, keys, strict=True)])


def narrow_moments(params: Any, opt_state: optax.OptState, dtype: str, key: Array) -> optax.OptState:
    """`narrow` for what the optimizer keeps of each parameter."""
    if dtype == "float32":
        return opt_state
    keys = iter(jax.random.split(key, len(jax.tree.leaves(opt_state))))
    return map_moments(
        lambda x, _: round_at_random(x, next(keys)) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        opt_state,
        params,
        lambda x: x,
    )


def round_at_random(x: Array, key: Array) -> Array:
    """Float32 → one of the two nearest bfloat16, the nearer one the likelier, so that the mean is x."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    raised = bits + jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)  # carries into the upper half: up
    kept = jax.lax.bitcast_convert_type(raised & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), kept, x).astype(jnp.bfloat16)


def step_key(opt_state: optax.OptState) -> Array:
    """A key that depends on the number of the step alone, so that a resumed run rounds as the whole one."""
    count = optax.tree_utils.tree_get_all_with_path(opt_state, "count")[0][1]
    return jax.random.fold_in(jax.random.key(0), count)
