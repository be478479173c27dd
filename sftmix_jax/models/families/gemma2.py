"""Gemma 2: norms before and after each block that multiply with 1 + w, soft caps, a window in every other layer."""

from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope, shortest_period
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.fields import Fields, layer_types

NAMES = {"feed_forward_norm": "model.layers.{}.pre_feedforward_layernorm.weight"}


def options(fields: Fields) -> dict[str, Any]:
    """What Gemma 2 and 3 share, as arguments of Architecture."""
    fields.only("hidden_activation", "gelu_pytorch_tanh")
    fields.only("hidden_act", "gelu_pytorch_tanh")  # in files of earlier versions, beside the other
    for name in ("attention_bias", "use_bidirectional_attention"):
        fields.only(name, False)
    return {
        "norms": "both",
        "norm_plus_one": True,
        "activation": "gelu_tanh",
        "embedding_scale": fields.size("hidden_size") ** 0.5,
        "query_scale": fields.number("query_pre_attn_scalar", 256.0) ** -0.5,
    }


def shared(a: Architecture) -> dict[str, Any]:
    """The inverse of `options`, and the layers' windows."""
    windows = [a.kind(i).window for i in range(a.num_layers)]
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "use_bidirectional_attention": False,
        "query_pre_attn_scalar": round((a.query_scale or a.head_dim**-0.5) ** -2),
        "final_logit_softcapping": a.logit_cap or None,
        "sliding_window": max(windows) or None,
        "layer_types": layer_types([bool(window) for window in windows]),
    }


def read(fields: Fields) -> Architecture:
    """Windows in even layers unless `layer_types` says otherwise."""
    own, rope, window = sizes(fields, "gemma2", tied=True), hf_rope.read(fields), fields.size("sliding_window", 4096)
    sliding = fields.sliding(own["num_layers"], [i % 2 == 0 for i in range(own["num_layers"])])
    kinds = [LayerKind(rope, window if each else 0) for each in sliding]
    scores, logits = fields.cap("attn_logit_softcapping", 50.0), fields.cap("final_logit_softcapping", 30.0)
    return Architecture(**own, **options(fields), pattern=shortest_period(kinds), score_cap=scores, logit_cap=logits)


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json."""
    rope = hf_rope.write(a.pattern[0].rope or Rope())
    return {**shared(a), **rope, "attn_logit_softcapping": a.score_cap or None}


FAMILY = Family("gemma2", "Gemma2ForCausalLM", read, write, NAMES)
