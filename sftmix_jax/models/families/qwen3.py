"""Qwen3, dense: each head of queries and keys is normed; head size of its own."""

from typing import Any

from sftmix_jax.models.architecture import Architecture, LayerKind, Rope
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.families.qwen2 import read_pattern, write_pattern
from sftmix_jax.models.fields import Fields


def read(fields: Fields) -> Architecture:
    """Windows as in Qwen2."""
    fields.only("hidden_act", "silu")
    fields.only("attention_bias", False)
    own = sizes(fields, "qwen3", head_dim=128, kv_heads=32)
    return Architecture(**own, pattern=read_pattern(fields, own["num_layers"]), qk_norm="head")


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json."""
    return {**write_pattern(a), "attention_bias": False}


def _qwen3(layers: int, hidden: int, feed_forward: int, heads: int, *, tied: bool = False) -> Architecture:
    return Architecture(
        151_936,
        hidden,
        feed_forward,
        layers,
        heads,
        8,
        128,
        40_960,
        norm_eps=1e-6,
        tied=tied,
        family="qwen3",
        pattern=(LayerKind(Rope(1e6)),),
        qk_norm="head",
    )


PRESETS = {
    "qwen3-0.6b": _qwen3(28, 1024, 3072, 16, tied=True),
    "qwen3-1.7b": _qwen3(28, 2048, 6144, 16, tied=True),
    "qwen3-4b": _qwen3(36, 2560, 9728, 32, tied=True),
    "qwen3-8b": _qwen3(36, 4096, 12_288, 32),
    "qwen3-14b": _qwen3(40, 5120, 17_408, 40),
    "qwen3-32b": _qwen3(64, 5120, 25_600, 64),
}
PUBLISHED = {f"Qwen/Qwen3-{size}": f"qwen3-{size.lower()}" for size in ("0.6B", "1.7B", "4B", "8B", "14B", "32B")}
FAMILY = Family("qwen3", "Qwen3ForCausalLM", read, write, presets=PRESETS, published=PUBLISHED)
