"""LLaMA 1, 2 and 3 in Flax NNX: layers stacked on a leading axis and scanned.

Letters: B batch, T tokens, S cache length, L layers, D model, N query heads, K key/value heads,
H head size, F feed-forward, V vocabulary.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from sftmix_jax.machine import ranges
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import Choice, setting
from sftmix_jax.models import attention, kernels
from sftmix_jax.models.attention import Cache, RopeScaling
from sftmix_jax.models.dtypes import COMPUTE_DTYPES
from sftmix_jax.parallel import fsdp, sharding

Params: TypeAlias = dict[str, Any]  # nested names → arrays, as in a checkpoint

# What the backward pass may keep of a layer's forward pass, by name.
REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
    # full, with what enters a layer kept in the host's memory: for rows so long that it would not fit
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["layer input"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}

# Up to so many layers are trained one by one: a loop copies what the backward pass keeps into stacks and out again,
# on a CPU a sixth of a step. Deeper models are a loop, so that compile time does not grow with depth.
UNROLLED_LAYERS = 8


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """The architecture: what config.json of a checkpoint fixes."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_length: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    tied: bool = False

    @property
    def init_std(self) -> float:
        """Of fresh weights: 1/√D, near the published 0.02 at D = 2500. With 0.02 at D = 128 attention starts flat,
        and a tiny model takes far longer to learn to copy."""
        return self.hidden_size**-0.5

    @property
    def num_params(self) -> int:
        """How many parameters the model has."""
        attention_size = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        layer = attention_size + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        return self.num_layers * layer + embeddings + self.hidden_size


@dataclasses.dataclass(frozen=True)
class Compute:
    """ComputeConfig with every choice made."""

    dtype: str
    remat: str
    attention: str = "plain"


@dataclasses.dataclass
class ComputeConfig:
    """How the model is run; none of it changes what it is."""

    dtype: str = setting(
        "auto",
        Choice(COMPUTE_DTYPES),
        "of activations and matrix products; auto: bfloat16 on TPU and GPU, float32 on CPU, whose bfloat16 is slower",
    )
    remat: str = setting(
        "auto", Choice(("auto", *REMAT)), "rematerialisation; auto: full from a billion parameters on, else none"
    )
    attention: str = setting(
        "auto",
        Choice(("auto", *kernels.NAMES)),
        "kernel in training: plain, splash (TPU), mosaic, cudnn or triton (GPU); auto: the backend's first that agrees "
        "with the plain path",
    )

    def resolved(self, config: LlamaConfig, backend: str) -> Compute:
        """The same with every `auto` decided: the one place where that happens. Raises UserError."""
        ranges.check(self, "model.compute")
        dtype = self.dtype if self.dtype != "auto" else "float32" if backend == "cpu" else "bfloat16"
        remat = self.remat if self.remat != "auto" else "full" if config.num_params > 1e9 else "none"
        kernel = self.attention if self.attention != "auto" else kernels.BY_BACKEND.get(backend, ("plain",))[0]
        return Compute(dtype, remat, kernel)


def _param(rngs: nnx.Rngs, std: float, shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param:
    """A normally distributed weight, with a logical name for each axis."""
    assert len(shape) == len(axes)
    return nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32), axes=axes)


def look_up(table: Array, tokens: Array) -> Array:
    """Embeddings of tokens: table [V, D], int32 [B, T] → [B, T, D]."""
    return table[tokens]


def rms_norm(x: Array, scale: Array, eps: float) -> Array:
    """Root-mean-square normalisation over the last axis, computed in float32."""
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return (wide * scale.astype(jnp.float32)).astype(x.dtype)


def project(spec: str, x: Array, param: nnx.Param, mesh: Mesh | None) -> Array:
    """`einsum(spec, x, param)` for x [B, T, …] and one layer's weight, as one matrix product over all tokens.

    XLA's CPU backend differentiates the product with two batch axes 1.5 times slower. Over a mesh with fsdp, `x` lies
    split along its rows.
    """
    weight = param[...]
    B, T = x.shape[:2]
    rows = x.reshape(B * T, -1)
    if mesh is None or mesh.shape["fsdp"] == 1:
        product = rows @ weight.astype(x.dtype).reshape(rows.shape[1], -1)
    else:
        product = fsdp.product(mesh, rows, weight, param.get_metadata()["axes"][1:])
    contracted = len(spec.partition(",")[0]) - 2
    return product.reshape(B, T, *weight.shape[contracted:])


# q, k, v → what attention read, and what the caller wants to keep of this layer (cache entries)
Mix: TypeAlias = Callable[[Array, Array, Array], tuple[Array, Any]]


class Layers(nnx.Module):
    """All decoder layers: each parameter carries a leading `layers` axis, cut before use."""

    def __init__(self, config: LlamaConfig, rngs: nnx.Rngs):
        c, L = config, config.num_layers
        D, N, K, H, F = c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim, c.intermediate_size
        self.norm_eps, std = c.norm_eps, c.init_std
        self.attention_norm = nnx.Param(jnp.ones((L, D)), axes=("layers", "norm"))
        self.q = _param(rngs, std, (L, D, N, H), ("layers", "embed", "heads", "head"))
        self.k = _param(rngs, std, (L, D, K, H), ("layers", "embed", "kv_heads", "head"))
        self.v = _param(rngs, std, (L, D, K, H), ("layers", "embed", "kv_heads", "head"))
        self.o = _param(rngs, std, (L, N, H, D), ("layers", "heads", "head", "embed"))
        self.feed_forward_norm = nnx.Param(jnp.ones((L, D)), axes=("layers", "norm"))
        self.gate = _param(rngs, std, (L, D, F), ("layers", "embed", "feed_forward"))
        self.up = _param(rngs, std, (L, D, F), ("layers", "embed", "feed_forward"))
        self.down = _param(rngs, std, (L, F, D), ("layers", "feed_forward", "embed"))

    def __call__(self, x: Array, rope: tuple[Array, Array], mix: Mix, mesh: Mesh | None) -> tuple[Array, Any]:
        """One layer (parameters already cut) on x [B, T, D]."""

        # Cast within the product, layer by layer, so that gradients reach the float32 parameters in float32.
        with jax.named_scope("attention"):
            h = rms_norm(x, self.attention_norm[...], self.norm_eps)
            q = project("btd,dnh->btnh", h, self.q, mesh)
            k = project("btd,dkh->btkh", h, self.k, mesh)
            v = project("btd,dkh->btkh", h, self.v, mesh)
            context, kept = mix(attention.rotate(q, rope), attention.rotate(k, rope), v)
            x = x + project("btnh,nhd->btd", context, self.o, mesh)
        with jax.named_scope("feed_forward"):
            h = rms_norm(x, self.feed_forward_norm[...], self.norm_eps)
            gate = project("btd,df->btf", h, self.gate, mesh)
            up = project("btd,df->btf", h, self.up, mesh)
            x = x + project("btf,fd->btd", jax.nn.silu(gate) * up, self.down, mesh)
        return x, kept


class Llama(nnx.Module):
    """A LLaMA decoder."""

    def __init__(self, config: LlamaConfig, compute: Compute, rngs: nnx.Rngs):
        self.config, self.compute = config, compute
        self.mesh: Mesh | None = None
        V, D, std = config.vocab_size, config.hidden_size, config.init_std
        self.embed = _param(rngs, std, (V, D), ("vocab", "embed"))
        self.layers = Layers(config, rngs)
        self.norm = nnx.Param(jnp.ones((D,)), axes=("norm",))
        if not config.tied:
            self.head = _param(rngs, std, (D, V), ("embed", "vocab"))

    @property
    def head_param(self) -> Array:
        """The output projection as it is kept, [D, V]."""
        return self.embed[...].T if self.config.tied else self.head[...]

    def logits(self, hidden: Array) -> Array:
        """Hidden states [..., D] → float32 logits [..., V]."""
        with jax.named_scope("logits"):
            rows = hidden.reshape(-1, hidden.shape[-1])
            logits = jnp.dot(rows, self.head_param.astype(hidden.dtype), preferred_element_type=jnp.float32)
            return logits.reshape(*hidden.shape[:-1], -1)

    def _run(
        self, tokens: Array, positions: Array, mix: Callable[[Any], Mix], per_layer: Any, *, unroll: bool = False,
        weights_stay: bool = False,
    ) -> tuple[Array, Any]:  # fmt: skip
        """All layers over tokens; `mix(layer's entry of per_layer)` attends. → hidden [B, T, D], kept [L, …].

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
        frequencies = attention.rope_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        rope = attention.rope_tables(positions, frequencies)
        x = placed(look_up(self.embed[...], tokens).astype(self.compute.dtype))
        layer_definition, stacked = nnx.split(self.layers)

        def body(x: Array, cut: tuple[Any, Any]) -> tuple[Array, Any]:
            params, entry = cut
            x = checkpoint_name(placed(x), "layer input")
            x, kept = nnx.merge(layer_definition, params)(x, rope, mix(entry), gathering)
            return placed(x), kept

        policy = REMAT[self.compute.remat]
        if policy is not None:
            body = jax.checkpoint(body, policy=policy, prevent_cse=False)
        x, kept = jax.lax.scan(body, x, (stacked, per_layer), unroll=unroll)
        return rms_norm(x, self.norm[...], config.norm_eps), kept

    def _attend(self, q: Array, k: Array, v: Array, segment_ids: Array) -> Array:
        if self.mesh is None:
            return attention.attend(q, k, v, segment_ids)
        return kernels.attend(self.compute.attention, self.mesh, q, k, v, segment_ids)

    def __call__(self, tokens: Array, segment_ids: Array, positions: Array) -> Array:
        """int32 [B, T] each → hidden states [B, T, D]; attention stays within a segment."""

        def mix(_: None) -> Mix:
            return lambda q, k, v: (self._attend(q, k, v, segment_ids), None)

        return self._run(tokens, positions, mix, None, unroll=self.config.num_layers <= UNROLLED_LAYERS)[0]

    def prefill(self, tokens: Array, lengths: Array) -> tuple[Array, tuple[Array, Array]]:
        """Read whole prompts: tokens [B, T], lengths [B] → hidden [B, T, D] and (k, v) [L, B, T, K, H]."""
        T = tokens.shape[1]
        segment_ids = (jnp.arange(T) < lengths[:, None]).astype(jnp.int32)
        positions = jnp.broadcast_to(jnp.arange(T), tokens.shape)

        def mix(_: None) -> Mix:
            return lambda q, k, v: (self._attend(q, k, v, segment_ids), (k, v))

        return self._run(tokens, positions, mix, None)

    def decode(self, tokens: Array, cache: Cache, lengths: Array) -> tuple[Array, tuple[Array, Array]]:
        """One token a row: tokens [B], a cache of all layers filled to lengths [B].

        → hidden [B, 1, D] and the new entries (k, v) [L, B, 1, K, H], for the caller to store.
        """

        def mix(layer_cache: Cache) -> Mix:
            def attend(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, Array]]:
                return attention.attend_cached(q, k, v, layer_cache, lengths), (k, v)

            return attend

        return self._run(tokens[:, None], lengths[:, None], mix, cache, weights_stay=True)


def build(config: LlamaConfig, compute: Compute) -> tuple[nnx.GraphDef, Params, Params]:
    """The model without its numbers: its graph, abstract params, and the logical axes of each."""
    definition, state = nnx.split(nnx.eval_shape(lambda: Llama(config, compute, nnx.Rngs(0))))
    axes = jax.tree.map(
        lambda param: param.get_metadata()["axes"], state, is_leaf=lambda x: isinstance(x, nnx.Variable)
    )
    return definition, nnx.to_pure_dict(state), nnx.to_pure_dict(axes)


def init(config: LlamaConfig, compute: Compute, seed: int) -> Params:
    """Fresh float32 parameters."""
    return nnx.to_pure_dict(nnx.state(Llama(config, compute, nnx.Rngs(seed))))


def drawing(config: LlamaConfig, compute: Compute, seed: int, abstract: Params) -> Callable[[], Params]:
    """A compiled `init` with the dtypes and shardings of `abstract`: each device draws its own part of every weight."""

    def draw() -> Params:
        return jax.tree.map(lambda x, wanted: x.astype(wanted.dtype), init(config, compute, seed), abstract)

    return jax.jit(draw, out_shardings=jax.tree.map(lambda wanted: wanted.sharding, abstract))


def bind(definition: nnx.GraphDef, params: Params, mesh: Mesh | None = None) -> Llama:
    """The model with these parameters, inside or outside of jit; over a mesh, rows stay where they are and attention is
    the kernel that was chosen."""
    model = nnx.merge(definition, nnx.State(params))
    model.mesh = mesh
    return model


def preset(name: str) -> LlamaConfig:
    """A published architecture by name."""
    if name not in PRESETS:
        raise UserError(f"no preset '{name}'; {did_you_mean(name, PRESETS)}")
    return PRESETS[name]


def _llama(
    layers: int,
    hidden: int,
    feed_forward: int,
    heads: int,
    kv_heads: int | None = None,
    *,
    vocab: int = 32_000,
    length: int = 2048,
    eps: float = 1e-6,
    **rest: Any,
) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=feed_forward,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads or heads,
        head_dim=hidden // heads,
        max_length=length,
        norm_eps=eps,
        **rest,
    )


_LLAMA3_ROPE = RopeScaling(32.0, 1.0, 4.0, 8192)

PRESETS: dict[str, LlamaConfig] = {
    "micro": LlamaConfig(1536, 64, 192, 4, 4, 4, 16, 512, tied=True),
    "tiny": LlamaConfig(1536, 128, 384, 4, 4, 4, 32, 512, tied=True),
    "7b": _llama(32, 4096, 11_008, 32),
    "13b": _llama(40, 5120, 13_824, 40),
    "33b": _llama(60, 6656, 17_920, 52),
    "65b": _llama(80, 8192, 22_016, 64, eps=1e-5),
    "llama2-7b": _llama(32, 4096, 11_008, 32, length=4096, eps=1e-5),
    "llama2-13b": _llama(40, 5120, 13_824, 40, length=4096, eps=1e-5),
    "llama2-70b": _llama(80, 8192, 28_672, 64, 8, length=4096, eps=1e-5),
    "llama3-8b": _llama(32, 4096, 14_336, 32, 8, vocab=128_256, length=8192, eps=1e-5, rope_theta=5e5),
    "llama3.2-1b": _llama(
        16,
        2048,
        8192,
        32,
        8,
        vocab=128_256,
        length=131_072,
        eps=1e-5,
        rope_theta=5e5,
        rope_scaling=_LLAMA3_ROPE,
        tied=True,
    ),
    "llama3.2-3b": _llama(
        28,
        3072,
        8192,
        24,
        8,
        vocab=128_256,
        length=131_072,
        eps=1e-5,
        rope_theta=5e5,
        rope_scaling=_LLAMA3_ROPE,
        tied=True,
    ),
}
