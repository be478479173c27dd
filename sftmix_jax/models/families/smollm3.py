"""SmolLM3: no positions in every fourth layer."""

from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope, shortest_period
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.fields import Fields


def read(fields: Fields) -> Architecture:
    """`no_rope_layers` holds 1 for a layer that is rotated, 0 for one that is not."""
    fields.only("hidden_act", "silu")
    for name in ("attention_bias", "mlp_bias", "use_sliding_window"):
        fields.only(name, False)
    fields.skip("sliding_window", "max_window_layers", "layer_types")  # without use_sliding_window they mean nothing
    own, rope = sizes(fields, "smollm3", head_dim=0, kv_heads=4, tied=True), hf_rope.read(fields, theta=2e6)
    every = fields.size("no_rope_layer_interval", 4)
    default = [int((i + 1) % every != 0) for i in range(own["num_layers"])]
    rotated = fields.layers("no_rope_layers", own["num_layers"], default, (0, 1))
    return Architecture(**own, pattern=shortest_period([LayerKind(rope if each else None) for each in rotated]))


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json."""
    rope = next((kind.rope for kind in a.pattern if kind.rope), Rope())
    return {
        **hf_rope.write(rope),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "use_sliding_window": False,
        "no_rope_layers": [int(bool(a.kind(i).rope)) for i in range(a.num_layers)],
    }


_ROTATED = LayerKind(Rope(5e6))
PRESETS = {
    "smollm3-3b": Architecture(
        128_256,
        2048,
        11_008,
        36,
        16,
        4,
        128,
        65_536,
        norm_eps=1e-6,
        tied=True,
        family="smollm3",
        pattern=(_ROTATED, _ROTATED, _ROTATED, LayerKind(None)),
    )
}
PUBLISHED = {"HuggingFaceTB/SmolLM3-3B": "smollm3-3b", "HuggingFaceTB/SmolLM3-3B-Base": "smollm3-3b"}
FAMILY = Family("smollm3", "SmolLM3ForCausalLM", read, write, presets=PRESETS, published=PUBLISHED)
