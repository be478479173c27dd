"""Seed-OSS: LLaMA with biases of queries, keys and values, and a head size of its own."""

from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.fields import Fields


def read(fields: Fields) -> Architecture:
    """`attention_bias` is of queries, keys and values alone."""
    fields.only("hidden_act", "silu")
    for name in ("attention_out_bias", "mlp_bias"):
        fields.only(name, False)
    own = sizes(fields, "seed_oss", head_dim=128, kv_heads=8)
    return Architecture(**own, pattern=(LayerKind(hf_rope.read(fields)),), qkv_bias=fields.flag("attention_bias", True))


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json."""
    fixed = {"hidden_act": "silu", "attention_out_bias": False, "mlp_bias": False}
    return {**hf_rope.write(a.pattern[0].rope or Rope()), **fixed, "attention_bias": a.qkv_bias}


FAMILY = Family("seed_oss", "SeedOssForCausalLM", read, write)
