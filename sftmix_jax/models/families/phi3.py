"""Phi-3 and Phi-4-mini: LLaMA with fused weights, part of a head rotated, and a rotation of its own for long texts.

Texts of up to `original_max_position_embeddings` tokens are read. In longer ones transformers takes other divisors, so
that a text that grows beyond must be read again; that is not done here.
"""

import math
from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.fields import Fields

_ORIGINAL = "original_max_position_embeddings"
_FUSED = {"q": "self_attn.qkv", "k": "self_attn.qkv", "v": "self_attn.qkv", "gate": "mlp.gate_up", "up": "mlp.gate_up"}
NAMES = {name: f"model.layers.{{}}.{stored}_proj.weight" for name, stored in _FUSED.items()}


def read(fields: Fields) -> Architecture:
    """`rope_type` su and yarn are earlier names of longrope in this family."""
    fields.only("hidden_act", "silu")
    own = sizes(fields, "phi3", head_dim=0, kv_heads=0)
    window, original = fields.window("sliding_window"), fields.size(_ORIGINAL, 4096)
    stretched = fields.object("rope_scaling") or fields.object("rope_parameters")
    if stretched.get("rope_type", stretched.get("type", "default")) == "default":
        rope = hf_rope.read(fields, part=1.0)
    else:
        rope = _longrope(fields, stretched, original, own["max_length"], own["head_dim"])
        own["max_length"] = min(own["max_length"], original)
    return Architecture(**own, pattern=(LayerKind(rope, window),))


def _longrope(outer: Fields, record: dict[str, Any], original: int, length: int, head_dim: int) -> Rope:
    fields, kind = Fields(record, f"{outer.where}: rope scaling"), record.get("rope_type", record.get("type"))
    if kind not in ("longrope", "su", "yarn"):
        raise fields.error("rope_type", kind, "longrope in this family")
    fields.skip("rope_type", "type", _ORIGINAL)
    theta, part = fields.number("rope_theta", outer.number("rope_theta", 1e4)), "partial_rotary_factor"
    portion = fields.number(part, outer.number(part, 1.0))
    pairs, factor = int(head_dim * portion) // 2, fields.number("factor", length / original)
    derived = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    magnitude = fields.number("attention_factor", derived)
    short, long = fields.numbers("short_factor", pairs), fields.numbers("long_factor", pairs)
    if left := fields.left():
        raise fields.error(left[0], record[left[0]], "absent in this family")
    return Rope(
        theta, "longrope", factor, original, short_factors=short, long_factors=long, part=portion, magnitude=magnitude
    )


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json."""
    rope = a.pattern[0].rope or Rope()
    lengths = (
        {}
        if rope.kind == "default"
        else {
            _ORIGINAL: rope.original_length,
            "max_position_embeddings": round(rope.original_length * rope.factor),
        }
    )
    return {**hf_rope.write(rope), **lengths, "sliding_window": a.pattern[0].window or None, "hidden_act": "silu"}


FAMILY = Family("phi3", "Phi3ForCausalLM", read, write, NAMES)
