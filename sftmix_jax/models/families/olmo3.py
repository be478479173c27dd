"""OLMo 3: OLMo 2 with a window in three of four layers; only the fourth's rotation is stretched."""

from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope, shortest_period
from sftmix_jax.models.families.family import Family
from sftmix_jax.models.families.olmo2 import options
from sftmix_jax.models.fields import Fields, layer_types


def read(fields: Fields) -> Architecture:
    """Every fourth layer without a window, unless `layer_types` says otherwise."""
    own, layers = options(fields, "olmo3"), fields.size("num_hidden_layers")
    full, local = hf_rope.read_by_type(fields, full=5e5, sliding=5e5)
    window = fields.size("sliding_window", 4096)
    sliding = fields.sliding(layers, [(i + 1) % 4 != 0 for i in range(layers)])
    kinds = [LayerKind(local, window) if each else LayerKind(full) for each in sliding]
    return Architecture(**own, pattern=shortest_period(kinds))


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json."""
    windows = [a.kind(i).window for i in range(a.num_layers)]
    full = next((kind.rope for kind in a.pattern if not kind.window), None) or Rope(5e5)
    local = next((kind.rope for kind in a.pattern if kind.window), None) or Rope(5e5)
    return {
        **hf_rope.write_by_type(full, local),
        "hidden_act": "silu",
        "attention_bias": False,
        "sliding_window": max(windows) or None,
        "layer_types": layer_types([bool(window) for window in windows]),
    }


FAMILY = Family("olmo3", "Olmo3ForCausalLM", read, write)
