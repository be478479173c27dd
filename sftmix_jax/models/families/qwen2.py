"""Qwen2 and Qwen2.5: biases of queries, keys and values; a window in the last layers where it is asked for."""

from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope, shortest_period
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.fields import Fields, layer_types


def read_pattern(fields: Fields, layers: int) -> tuple[LayerKind, ...]:
    """One rotation; a window from layer `max_window_layers` on if `use_sliding_window`."""
    rope = hf_rope.read(fields)
    fields.skip("sliding_window", "max_window_layers")
    window = fields.size("sliding_window", 4096) if fields.flag("use_sliding_window", False) else 0
    first = fields.size("max_window_layers", 28) if window else layers
    sliding = fields.sliding(layers, [i >= first for i in range(layers)])
    if any(sliding) and not window:
        raise fields.error("layer_types", sliding, "full attention where use_sliding_window is false")
    return shortest_period([LayerKind(rope, window if each else 0) for each in sliding])


def write_pattern(a: Architecture) -> dict[str, Any]:
    """The inverse of `read_pattern`."""
    windows = [a.kind(i).window for i in range(a.num_layers)]
    return {
        **hf_rope.write(a.pattern[0].rope or Rope()),
        "use_sliding_window": any(windows),
        "sliding_window": max(windows) or None,
        "layer_types": layer_types([bool(each) for each in windows]),
        "max_window_layers": a.num_layers,
        "hidden_act": "silu",
    }


def read(fields: Fields) -> Architecture:
    """Biases are part of the family, no field."""
    fields.only("hidden_act", "silu")
    own = sizes(fields, "qwen2", head_dim=0, kv_heads=0)
    return Architecture(**own, pattern=read_pattern(fields, own["num_layers"]), qkv_bias=True)


def _2_5(layers: int, hidden: int, feed_forward: int, heads: int, kv_heads: int, vocab: int = 152_064) -> Architecture:
    return Architecture(
        vocab,
        hidden,
        feed_forward,
        layers,
        heads,
        kv_heads,
        hidden // heads,
        32_768,
        norm_eps=1e-6,
        tied=vocab == 151_936,
        family="qwen2",
        pattern=(LayerKind(Rope(1e6)),),
        qkv_bias=True,
    )


PRESETS = {
    "qwen2.5-0.5b": _2_5(24, 896, 4864, 14, 2, 151_936),
    "qwen2.5-1.5b": _2_5(28, 1536, 8960, 12, 2, 151_936),
    "qwen2.5-3b": _2_5(36, 2048, 11_008, 16, 2, 151_936),
    "qwen2.5-7b": _2_5(28, 3584, 18_944, 28, 4),
}
PUBLISHED = {f"Qwen/Qwen2.5-{size}": f"qwen2.5-{size.lower()}" for size in ("0.5B", "1.5B", "3B", "7B")}
FAMILY = Family("qwen2", "Qwen2ForCausalLM", read, write_pattern, presets=PRESETS, published=PUBLISHED)
