"""OLMo 2: norms behind the blocks, and queries and keys normed over all heads together."""

from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.fields import Fields


def options(fields: Fields, family: str) -> dict[str, Any]:
    """What OLMo 2 and 3 share, as arguments of Architecture."""
    fields.only("hidden_act", "silu")
    fields.only("attention_bias", False)
    fields.only("clip_qkv", None)
    return {**sizes(fields, family, head_dim=0, kv_heads=0), "norms": "after", "qk_norm": "all"}


def read(fields: Fields) -> Architecture:
    """One kind of layer."""
    return Architecture(**options(fields, "olmo2"), pattern=(LayerKind(hf_rope.read(fields)),))


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json."""
    return {**hf_rope.write(a.pattern[0].rope or Rope()), "hidden_act": "silu", "attention_bias": False}


def _olmo2(layers: int, hidden: int, feed_forward: int, heads: int) -> Architecture:
    return Architecture(
        100_352,
        hidden,
        feed_forward,
        layers,
        heads,
        heads,
        128,
        4096,
        norm_eps=1e-6,
        family="olmo2",
        pattern=(LayerKind(Rope(5e5)),),
        norms="after",
        qk_norm="all",
    )


PRESETS = {
    "olmo2-1b": _olmo2(16, 2048, 8192, 16),
    "olmo2-7b": _olmo2(32, 4096, 11_008, 32),
    "olmo2-13b": _olmo2(40, 5120, 13_824, 40),
}
PUBLISHED = {
    "allenai/OLMo-2-0425-1B": "olmo2-1b",
    "allenai/OLMo-2-1124-7B": "olmo2-7b",
    "allenai/OLMo-2-1124-13B": "olmo2-13b",
}
FAMILY = Family("olmo2", "Olmo2ForCausalLM", read, write, presets=PRESETS, published=PUBLISHED)
