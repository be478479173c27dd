"""EXAONE 4: norms behind the blocks, heads of queries and keys normed, no positions in layers without a window."""

from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope, shortest_period
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.fields import Fields, layer_types


def read(fields: Fields) -> Architecture:
    """Without `sliding_window` all layers see everything and are rotated."""
    fields.only("hidden_act", "silu")
    own, rope = sizes(fields, "exaone4", head_dim=0), hf_rope.read(fields)
    layers, window = own["num_layers"], fields.window("sliding_window", 4096)
    fields.skip("sliding_window_pattern")  # layer_types says the same, and is what transformers obeys
    if window and not fields.has("layer_types"):
        every = fields.size("sliding_window_pattern", 4)
        sliding = [(i + 1) % every != 0 for i in range(layers)]
    else:
        sliding = fields.sliding(layers, [False] * layers)
    if any(sliding) and not window:
        raise fields.error("sliding_window", None, "a size where layer_types has sliding_attention")
    far = LayerKind(None if window else rope)
    return Architecture(
        **own,
        pattern=shortest_period([LayerKind(rope, window) if each else far for each in sliding]),
        norms="after",
        qk_norm="head",
    )


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json."""
    windows = [a.kind(i).window for i in range(a.num_layers)]
    rope = next((kind.rope for kind in a.pattern if kind.rope), Rope())
    return {
        **hf_rope.write(rope),
        "hidden_act": "silu",
        "sliding_window": max(windows) or None,
        "layer_types": layer_types([bool(window) for window in windows]),
    }


FAMILY = Family("exaone4", "Exaone4ForCausalLM", read, write)
