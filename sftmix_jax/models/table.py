"""Every parameter of a decoder, once: shape, logical axes, start, and its name in a Hugging Face checkpoint.

Abstract arrays, shardings, import, export and counts are derived from it. Letters: see `architecture`; L layers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from sftmix_jax.models.architecture import Adapted, Architecture, Lora


@dataclasses.dataclass(frozen=True)
class Param:
    """A parameter; of a layer's, what one layer has of it."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]  # a logical name for each axis
    stored: str  # its Hugging Face name, {} for the layer; parameters that share one lie in it one after the other
    start: str = "normal"  # of a fresh model: normal, ones, zeros, or fan_in: uniform within ±1/√inputs
    inputs: int = 0  # leading axes that are multiplied with the input; 0: no linear weight
    in_layer: bool = True

    @property
    def path(self) -> tuple[str, ...]:
        """Where it stands in the tree of parameters."""
        return ("layers", self.name) if self.in_layer else (self.name,)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


# The linear weights of a layer, by name, with the number of leading axes that are multiplied with the input.
LINEAR = {"q": 1, "k": 1, "v": 1, "o": 2, "gate": 1, "up": 1, "down": 1}
# The parameters of a layer's feed-forward block; its others belong to attention.
FEED_FORWARD = frozenset({"feed_forward_norm", "gate", "up", "down", "feed_forward_post_norm"})


def parameters(a: Architecture, names: Mapping[str, str] | None = None) -> tuple[Param, ...]:
    """The parameters of an architecture, in the order in which fresh ones are drawn.

    `names`: Hugging Face names of a family that differ from LLaMA's.
    """
    names = names or {}
    D, N, K, H = a.hidden_size, a.num_heads, a.num_kv_heads, a.head_dim
    F, V = a.intermediate_size, a.vocab_size
    neutral = "zeros" if a.norm_plus_one else "ones"

    def outer(
        name: str, shape: tuple[int, ...], axes: tuple[str, ...], stored: str, start: str = "normal", inputs: int = 0
    ) -> Param:
        return Param(name, shape, axes, names.get(name, stored), start, inputs, in_layer=False)

    def linear(name: str, shape: tuple[int, ...], axes: tuple[str, ...], stored: str) -> Param:
        return Param(name, shape, axes, names.get(name, f"model.layers.{{}}.{stored}.weight"), inputs=LINEAR[name])

    def norm(name: str, stored: str, size: int = D, axis: str = "norm") -> Param:
        return Param(name, (size,), (axis,), names.get(name, f"model.layers.{{}}.{stored}.weight"), neutral)

    def bias(name: str, stored: str, size: int, axis: str) -> Param:
        return Param(name, (size,), (axis,), names.get(name, f"model.layers.{{}}.{stored}.bias"), "zeros")

    before, after = a.norms in ("before", "both"), a.norms in ("after", "both")
    together = a.qk_norm == "all"
    found = [
        outer("embed", (V, D), ("vocab", "embed"), "model.embed_tokens.weight"),
        before and norm("attention_norm", "input_layernorm"),
        linear("q", (D, N, H), ("embed", "heads", "head"), "self_attn.q_proj"),
        linear("k", (D, K, H), ("embed", "kv_heads", "head"), "self_attn.k_proj"),
        linear("v", (D, K, H), ("embed", "kv_heads", "head"), "self_attn.v_proj"),
        a.qkv_bias and bias("q_bias", "self_attn.q_proj", N * H, "heads"),
        a.qkv_bias and bias("k_bias", "self_attn.k_proj", K * H, "kv_heads"),
        a.qkv_bias and bias("v_bias", "self_attn.v_proj", K * H, "kv_heads"),
        bool(a.qk_norm) and norm("q_norm", "self_attn.q_norm", *((N * H, "heads") if together else (H, "head"))),
        bool(a.qk_norm) and norm("k_norm", "self_attn.k_norm", *((K * H, "kv_heads") if together else (H, "head"))),
        linear("o", (N, H, D), ("heads", "head", "embed"), "self_attn.o_proj"),
        after and norm("attention_post_norm", "post_attention_layernorm"),
        before and norm("feed_forward_norm", "post_attention_layernorm"),
        linear("gate", (D, F), ("embed", "feed_forward"), "mlp.gate_proj"),
        linear("up", (D, F), ("embed", "feed_forward"), "mlp.up_proj"),
        linear("down", (F, D), ("feed_forward", "embed"), "mlp.down_proj"),
        after and norm("feed_forward_post_norm", "post_feedforward_layernorm"),
        outer("norm", (D,), ("norm",), "model.norm.weight", neutral),
        not a.tied and outer("head", (D, V), ("embed", "vocab"), "lm_head.weight", inputs=1),
    ]
    weights = [param for param in found if param]
    lora = a.lora if isinstance(a, Adapted) else None
    return (*weights, *(adapter for param in weights if lora for adapter in adapters(param, lora)))


def adapters(param: Param, lora: Lora) -> tuple[Param, ...]:
    """A and B of a weight that is a target; no parameters for another one.

    A starts as PEFT draws it (uniform, Kaiming with a = √5), B at 0, so that an adapter starts as no change.
    """
    if param.name not in lora.targets:
        return ()
    at = param.inputs
    a, b = adapter_names(param.name)
    return (
        Param(a, (*param.shape[:at], lora.rank), (*param.axes[:at], "rank"), "", "fan_in", inputs=at),
        Param(b, (lora.rank, *param.shape[at:]), ("rank", *param.axes[at:]), "", "zeros", inputs=1),
    )


def adapter_names(name: str) -> tuple[str, str]:
    """What A and B of a weight are called."""
    return f"{name}_lora_a", f"{name}_lora_b"


def inputs_of(name: str) -> int:
    """Leading axes that a linear weight of a layer, or an adapter of one, has for its input."""
    weight, _, side = name.partition("_lora_")
    return 1 if side == "b" else LINEAR[weight]


def num_params(a: Architecture) -> int:
    """How many parameters the model has."""
    return sum(param.size * (a.num_layers if param.in_layer else 1) for param in parameters(a))


def matmul_params(a: Architecture) -> int:
    """Parameters that every token is multiplied with: linear weights, the output projection among them."""
    linear = sum(param.size * (a.num_layers if param.in_layer else 1) for param in parameters(a) if param.inputs)
    return linear + (a.vocab_size * a.hidden_size if a.tied else 0)
