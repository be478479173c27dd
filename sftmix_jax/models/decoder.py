"""A dense decoder in Flax NNX: layers stacked on a leading axis and scanned, every option read from `Architecture`.

Letters: B batch, T tokens, S cache length, L layers, D model, N query heads, K key/value heads,
H head size, F feed-forward, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from sftmix_jax.models import attention, kernels, quantized, table
from sftmix_jax.models import rope as rotary
from sftmix_jax.models.architecture import Adapted, Architecture, LayerKind
from sftmix_jax.models.attention import Cache, Scores
from sftmix_jax.models.compute import REMAT, Compute
from sftmix_jax.models.quantized import Quantized
from sftmix_jax.models.table import Param
from sftmix_jax.parallel import fsdp, sharding

Params: TypeAlias = dict[str, Any]  # nested names → arrays, as in a checkpoint
Tables: TypeAlias = tuple[Array, Array]  # cosine and sine of positions

# Up to so many layers are trained one by one: a loop copies what the backward pass keeps into stacks and out again,
# on a CPU a sixth of a step. Deeper models are a loop, so that compile time does not grow with depth.
UNROLLED_LAYERS = 8


def _param(rngs: nnx.Rngs, std: float, param: Param, layers: int = 0) -> nnx.Param:
    """A fresh parameter of the table, stacked over so many layers, with its logical axes."""
    shape = (layers, *param.shape) if layers else param.shape
    axes = ("layers", *param.axes) if layers else param.axes
    match param.start:
        case "normal":
            value = std * jax.random.normal(rngs.params(), shape, jnp.float32)
        case "ones":
            value = jnp.ones(shape)
        case "zeros":
            value = jnp.zeros(shape)
        case "fan_in":
            bound = math.prod(param.shape[: param.inputs]) ** -0.5
            value = jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)
        case _:
            raise ValueError(f"no start {param.start!r}")
    return nnx.Param(value, axes=axes, inputs=param.inputs)


def look_up(table: Array, tokens: Array) -> Array:
    """Embeddings of tokens: table [V, D], int32 [B, T] → [B, T, D]."""
    return table[tokens]


def rms_norm(x: Array, scale: Array, eps: float, *, plus_one: bool = False) -> Array:
    """Root-mean-square normalisation over the axes of `scale`, the last ones of x, computed in float32."""
    wide = x.astype(jnp.float32)
    axes = tuple(range(-scale.ndim, 0))
    wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=axes, keepdims=True) + eps)
    scale = scale.astype(jnp.float32)
    return (wide * (1 + scale if plus_one else scale)).astype(x.dtype)


def project(x: Array, param: nnx.Param, mesh: Mesh | None) -> Array:
    """x [B, T, *inputs] times one layer's weight [*inputs, *outputs], as one matrix product over all tokens.

    XLA's CPU backend differentiates the product with two batch axes 1.5 times slower. Over a mesh with fsdp, `x` lies
    split along its rows.
    """
    weight, axes = param.get_value(), param.get_metadata()["axes"][1:]
    B, T = x.shape[:2]
    rows = x.reshape(B * T, -1)
    if isinstance(weight, Quantized):
        product = quantized.product(rows, weight)
    elif mesh is None or mesh.shape["fsdp"] == 1 or "embed" not in axes:
        product = rows @ weight.astype(x.dtype).reshape(rows.shape[1], -1)
    else:
        product = fsdp.product(mesh, rows, weight, axes)
    return product.reshape(B, T, *weight.shape[param.get_metadata()["inputs"] :])


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}

# q, k, v → what attention read, and what the caller wants to keep of this layer (cache entries)
Mix: TypeAlias = Callable[[Array, Array, Array], tuple[Array, Any]]


class Layers(nnx.Module):
    """All decoder layers: each parameter carries a leading `layers` axis, cut before use."""

    def __init__(self, config: Architecture, rngs: nnx.Rngs):
        self.config = config
        for param in table.parameters(config):
            if param.in_layer:
                setattr(self, param.name, _param(rngs, config.init_std, param, config.num_layers))

    def __call__(
        self, x: Array, kind: LayerKind, rope: Tables | None, mix: Mix, mesh: Mesh | None
    ) -> tuple[Array, Any]:
        """One layer (parameters already cut) on x [B, T, D]."""

        def rotate(heads: Array) -> Array:
            return heads if kind.rope is None or rope is None else rotary.rotate(kind.rope, heads, rope)

        # Cast within the product, layer by layer, so that gradients reach the float32 parameters in float32.
        with jax.named_scope("attention"):
            h = self._norm(x, "attention_norm")
            q, k, v = (self._heads(h, name, mesh) for name in "qkv")
            context, kept = mix(rotate(q), rotate(k), v)
            x = x + self._added(self._project(context, "o", mesh), "attention_post_norm")
        with jax.named_scope("feed_forward"):
            h = self._norm(x, "feed_forward_norm")
            gate, up = (self._project(h, name, mesh) for name in ("gate", "up"))
            down = self._project(ACTIVATIONS[self.config.activation](gate) * up, "down", mesh)
            x = x + self._added(down, "feed_forward_post_norm")
        return x, kept

    def _project(self, x: Array, name: str, mesh: Mesh | None) -> Array:
        """x times the weight of this name, with its adapter where the table has one."""
        product = project(x, getattr(self, name), mesh)
        if not isinstance(self.config, Adapted) or name not in self.config.lora.targets:
            return product
        a, b = (getattr(self, adapter) for adapter in table.adapter_names(name))
        return product + project(project(x, a, mesh), b, mesh) * self.config.lora.scale

    def _heads(self, x: Array, name: str, mesh: Mesh | None) -> Array:
        """Queries, keys or values of x, [B, T, heads, H]; with their bias and norm where the table has one."""
        heads = self._project(x, name, mesh)
        if hasattr(self, f"{name}_bias"):
            heads = heads + getattr(self, f"{name}_bias")[...].astype(x.dtype).reshape(heads.shape[2:])
        if not hasattr(self, f"{name}_norm"):
            return heads
        shape = heads.shape[2:] if self.config.qk_norm == "all" else heads.shape[3:]
        return self._norm(heads, f"{name}_norm", shape)

    def _norm(self, x: Array, name: str, shape: tuple[int, ...] = (-1,)) -> Array:
        """x through the norm of this name, whose weight is of this shape; unchanged where the table has none."""
        if not hasattr(self, name):
            return x
        scale = getattr(self, name)[...].reshape(shape)
        return rms_norm(x, scale, self.config.norm_eps, plus_one=self.config.norm_plus_one)

    def _added(self, x: Array, norm: str) -> Array:
        """What a block adds to the residual stream."""
        x = self._norm(x, norm)
        return x if self.config.residual_scale == 1 else x * self.config.residual_scale


Body: TypeAlias = Callable[[Array, Any], tuple[Array, Any]]  # x, a layer's entries → x, what it keeps


def scan_periods(bodies: Sequence[Body], x: Array, entries: Any, layers: int, *, unroll: bool) -> tuple[Array, Any]:
    """`lax.scan` over layers [L, …] whose kinds repeat, `bodies` being one period; layers behind the last whole period
    come after the loop. → x, and what each layer kept, [L, …]."""
    period = len(bodies)
    if period == 1:
        return jax.lax.scan(bodies[0], x, entries, unroll=unroll)
    whole = layers // period * period

    def several(x: Array, cuts: Any) -> tuple[Array, Any]:
        kept = []
        for j, body in enumerate(bodies[: jax.tree.leaves(cuts)[0].shape[0]]):
            x, own = body(x, jax.tree.map(lambda cut, j=j: cut[j], cuts))
            kept.append(own)
        return x, jax.tree.map(lambda *own: jnp.stack(own), *kept)

    parts = []
    if whole:
        grouped = jax.tree.map(lambda a: a[:whole].reshape(whole // period, period, *a.shape[1:]), entries)
        x, kept = jax.lax.scan(several, x, grouped, unroll=unroll)
        parts.append(jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), kept))
    if whole < layers:
        x, kept = several(x, jax.tree.map(lambda a: a[whole:], entries))
        parts.append(kept)
    return x, jax.tree.map(lambda *own: jnp.concatenate(own), *parts)


def scores(config: Architecture, kind: LayerKind) -> Scores:
    """How a layer of this kind makes attention scores."""
    scale = config.head_dim**-0.5 if config.query_scale is None else config.query_scale
    return Scores(scale, config.score_cap, kind.window)


class Decoder(nnx.Module):
    """A dense decoder."""

    embed: nnx.Param
    norm: nnx.Param
    head: nnx.Param  # unless embeddings are tied

    def __init__(self, config: Architecture, compute: Compute, rngs: nnx.Rngs):
        self.config, self.compute = config, compute
        self.mesh: Mesh | None = None
        params = table.parameters(config)
        first_in_layer = next(i for i, param in enumerate(params) if param.in_layer)
        for param in params[:first_in_layer]:
            setattr(self, param.name, _param(rngs, config.init_std, param))
        self.layers = Layers(config, rngs)
        for param in params[first_in_layer:]:
            if not param.in_layer:
                setattr(self, param.name, _param(rngs, config.init_std, param))

    @property
    def head_param(self) -> Array:
        """The output projection as it is kept, [D, V]."""
        return self.embed[...].T if self.config.tied else self.head[...]

    def logits(self, hidden: Array) -> Array:
        """Hidden states [..., D] → float32 logits [..., V]."""
        with jax.named_scope("logits"):
            rows = hidden.reshape(-1, hidden.shape[-1])
            logits = jnp.dot(rows, self.head_param.astype(hidden.dtype), preferred_element_type=jnp.float32)
            if cap := self.config.logit_cap:
                logits = cap * jnp.tanh(logits / cap)
            return logits.reshape(*hidden.shape[:-1], -1)

    def _run(
        self,
        tokens: Array,
        positions: Array,
        mix: Callable[[LayerKind, Any], Mix],
        per_layer: Any,
        *,
        unroll: bool = False,
        weights_stay: bool = False,
    ) -> tuple[Array, Any]:
        """All layers over tokens; `mix(kind of a layer, its entry of per_layer)` attends.

        → hidden [B, T, D], ready for the output projection, and what each layer kept, [L, …].

        Over a mesh activations are split along the rows and weights are gathered for a layer. Where the activations
        are smaller (decoding), `weights_stay`: D is split as the weights' is, and products are summed over the mesh.
        """
        axes = (None, None, "embed") if weights_stay else ("batch", None, None)
        gathering = None if weights_stay else self.mesh

        def placed(x: Array) -> Array:
            if self.mesh is None:
                return x
            return jax.lax.with_sharding_constraint(x, sharding.sharding(self.mesh, axes))

        config = self.config
        tables = {
            rope: rotary.tables(rope, positions, config.head_dim)
            for rope in dict.fromkeys(kind.rope for kind in config.pattern)
            if rope
        }
        ropes = {kind: tables[kind.rope] if kind.rope else None for kind in config.pattern}
        x = look_up(self.embed[...], tokens).astype(self.compute.dtype)
        x = placed(x if config.embedding_scale == 1 else x * config.embedding_scale)
        layer_definition, stacked = nnx.split(self.layers)

        def body(kind: LayerKind, x: Array, cut: tuple[Any, Any]) -> tuple[Array, Any]:
            params, entry = cut
            x = checkpoint_name(placed(x), "layer input")
            x, kept = nnx.merge(layer_definition, params)(x, kind, ropes[kind], mix(kind, entry), gathering)
            return placed(x), kept

        policy = REMAT[self.compute.remat]
        bodies: list[Body] = [partial(body, kind) for kind in config.pattern]
        if policy is not None:
            bodies = [jax.checkpoint(body, policy=policy, prevent_cse=False) for body in bodies]
        x, kept = scan_periods(bodies, x, (stacked, per_layer), config.num_layers, unroll=unroll)
        x = rms_norm(x, self.norm[...], config.norm_eps, plus_one=config.norm_plus_one)
        return x if config.logit_scale == 1 else x * config.logit_scale, kept

    def _attend(self, kind: LayerKind, q: Array, k: Array, v: Array, segment_ids: Array) -> Array:
        if self.mesh is None:
            return attention.attend(q, k, v, segment_ids, scores(self.config, kind))
        return kernels.attend(self.compute.attention, self.mesh, q, k, v, segment_ids, scores(self.config, kind))

    def __call__(self, tokens: Array, segment_ids: Array, positions: Array) -> Array:
        """int32 [B, T] each → hidden states [B, T, D]; attention stays within a segment."""

        def mix(kind: LayerKind, _: None) -> Mix:
            return lambda q, k, v: (self._attend(kind, q, k, v, segment_ids), None)

        return self._run(tokens, positions, mix, None, unroll=self.config.num_layers <= UNROLLED_LAYERS)[0]

    def prefill(self, tokens: Array, lengths: Array) -> tuple[Array, tuple[Array, Array]]:
        """Read whole prompts: tokens [B, T], lengths [B] → hidden [B, T, D] and (k, v) [L, B, T, K, H]."""
        T = tokens.shape[1]
        segment_ids = (jnp.arange(T) < lengths[:, None]).astype(jnp.int32)
        positions = jnp.broadcast_to(jnp.arange(T), tokens.shape)

        def mix(kind: LayerKind, _: None) -> Mix:
            return lambda q, k, v: (self._attend(kind, q, k, v, segment_ids), (k, v))

        return self._run(tokens, positions, mix, None)

    def decode(self, tokens: Array, cache: Cache, lengths: Array) -> tuple[Array, tuple[Array, Array]]:
        """One token a row: tokens [B], a cache of all layers filled to lengths [B].

        → hidden [B, 1, D] and the new entries (k, v) [L, B, 1, K, H], for the caller to store.
        """

        def mix(kind: LayerKind, layer_cache: Cache) -> Mix:
            def attend(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, Array]]:
                return attention.attend_cached(q, k, v, layer_cache, lengths, scores(self.config, kind)), (k, v)

            return attend

        return self._run(tokens[:, None], lengths[:, None], mix, cache, weights_stay=True)


def build(config: Architecture, compute: Compute) -> tuple[nnx.GraphDef, Params, Params]:
    """The model without its numbers: its graph, abstract params, and the logical axes of each."""
    definition, state = nnx.split(nnx.eval_shape(lambda: Decoder(config, compute, nnx.Rngs(0))))
    axes = jax.tree.map(
        lambda param: param.get_metadata()["axes"], state, is_leaf=lambda x: isinstance(x, nnx.Variable)
    )
    return definition, nnx.to_pure_dict(state), nnx.to_pure_dict(axes)


def init(config: Architecture, compute: Compute, seed: int) -> Params:
    """Fresh float32 parameters."""
    return nnx.to_pure_dict(nnx.state(Decoder(config, compute, nnx.Rngs(seed))))


def drawing(config: Architecture, compute: Compute, seed: int, abstract: Params) -> Callable[[], Params]:
    """A compiled `init` with the dtypes and shardings of `abstract`: each device draws its own part of every weight."""

    def draw() -> Params:
        return jax.tree.map(lambda x, wanted: x.astype(wanted.dtype), init(config, compute, seed), abstract)

    return jax.jit(draw, out_shardings=jax.tree.map(lambda wanted: wanted.sharding, abstract))


def bind(definition: nnx.GraphDef, params: Params, mesh: Mesh | None = None) -> Decoder:
    """The model with these parameters, inside or outside of jit; over a mesh, rows stay where they are and attention is
    the kernel that was chosen."""
    model = nnx.merge(definition, nnx.State(params))
    model.mesh = mesh
    return model
