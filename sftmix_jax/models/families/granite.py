"""Granite 3 and 4, dense: LLaMA with a scalar each for embeddings, scores, what blocks add, and logits."""

from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.fields import Fields


def read(fields: Fields) -> Architecture:
    """Logits are divided by `logits_scaling`."""
    fields.only("hidden_act", "silu")
    for name in ("attention_bias", "mlp_bias"):
        fields.only(name, False)
    return Architecture(
        **sizes(fields, "granite", head_dim=0, kv_heads=0),
        pattern=(LayerKind(hf_rope.read(fields)),),
        embedding_scale=fields.number("embedding_multiplier", 1.0),
        query_scale=fields.number("attention_multiplier", 1.0),
        residual_scale=fields.number("residual_multiplier", 1.0),
        logit_scale=1 / fields.number("logits_scaling", 1.0),
    )


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json."""
    return {
        **hf_rope.write(a.pattern[0].rope or Rope()),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "embedding_multiplier": a.embedding_scale,
        "attention_multiplier": a.query_scale or a.head_dim**-0.5,
        "residual_multiplier": a.residual_scale,
        "logits_scaling": 1 / a.logit_scale,
    }


def _3_3(hidden: int, feed_forward: int, query_scale: float, logits: float) -> Architecture:
    return Architecture(
        49_159,
        hidden,
        feed_forward,
        40,
        32,
        8,
        hidden // 32,
        131_072,
        tied=True,
        family="granite",
        pattern=(LayerKind(Rope(1e7)),),
        embedding_scale=12.0,
        query_scale=query_scale,
        residual_scale=0.22,
        logit_scale=1 / logits,
    )


PRESETS = {"granite3.3-2b": _3_3(2048, 8192, 1 / 64, 8.0), "granite3.3-8b": _3_3(4096, 12_800, 1 / 128, 16.0)}
PUBLISHED = {
    f"ibm-granite/granite-3.3-{size}-{kind}": f"granite3.3-{size}"
    for size in ("2b", "8b")
    for kind in ("base", "instruct")
}
FAMILY = Family("granite", "GraniteForCausalLM", read, write, presets=PRESETS, published=PUBLISHED)
