"""GLM-4, dense: biases of queries, keys and values, norms before and after, neighbours rotated in half of a head."""

import dataclasses
from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.fields import Fields

_THEIRS = {
    "attention_post_norm": "post_self_attn_layernorm",
    "feed_forward_post_norm": "post_mlp_layernorm",
    "gate": "mlp.gate_up_proj",
    "up": "mlp.gate_up_proj",
}
NAMES = {name: f"model.layers.{{}}.{stored}.weight" for name, stored in _THEIRS.items()}


def read(fields: Fields) -> Architecture:
    """Interleaving is part of the family, no field."""
    fields.only("hidden_act", "silu")
    rope = dataclasses.replace(hf_rope.read(fields, part=0.5), interleaved=True)
    return Architecture(
        **sizes(fields, "glm4", head_dim=128, kv_heads=2),
        pattern=(LayerKind(rope),),
        norms="both",
        qkv_bias=fields.flag("attention_bias", True),
    )


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json; the part is always stated, as its default is not 1."""
    rope = a.pattern[0].rope or Rope()
    stated = {"partial_rotary_factor": rope.part, "hidden_act": "silu", "attention_bias": a.qkv_bias}
    return {**hf_rope.write(rope), **stated}


FAMILY = Family("glm4", "Glm4ForCausalLM", read, write, NAMES)
