"""Gemma 3, text: Gemma 2 without soft caps, with norms of queries and keys, and a rotation of its own for windows."""

from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope, shortest_period
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.families.gemma2 import NAMES, options, shared
from sftmix_jax.models.fields import Fields


def read(fields: Fields) -> Architecture:
    """Five layers with a window, then one without, unless the file says otherwise."""
    own, layers = sizes(fields, "gemma3_text", tied=True), fields.size("num_hidden_layers")
    full, local = hf_rope.read_by_type(fields, full=1e6, sliding=1e4, local_name="rope_local_base_freq")
    if fields.has("attn_logit_softcapping"):  # transformers reads the field and does not use it
        raise fields.error("attn_logit_softcapping", fields.number("attn_logit_softcapping"), "null in this family")
    every, window = fields.size("sliding_window_pattern", 6), fields.size("sliding_window", 4096)
    sliding = fields.sliding(layers, [(i + 1) % every != 0 for i in range(layers)])
    kinds = [LayerKind(local, window) if each else LayerKind(full) for each in sliding]
    cap = fields.cap("final_logit_softcapping")
    return Architecture(**own, **options(fields), pattern=shortest_period(kinds), qk_norm="head", logit_cap=cap)


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json."""
    full = next((kind.rope for kind in a.pattern if not kind.window), None) or Rope(1e6)
    local = next((kind.rope for kind in a.pattern if kind.window), None) or Rope(1e4)
    return {**shared(a), **hf_rope.write_by_type(full, local), "rope_local_base_freq": local.theta}


def _gemma3(layers: int, hidden: int, feed_forward: int) -> Architecture:
    return Architecture(
        262_144,
        hidden,
        feed_forward,
        layers,
        4,
        1,
        256,
        32_768,
        norm_eps=1e-6,
        tied=True,
        family="gemma3_text",
        pattern=(*[LayerKind(Rope(1e4), 512)] * 5, LayerKind(Rope(1e6))),
        qk_norm="head",
        norms="both",
        norm_plus_one=True,
        activation="gelu_tanh",
        embedding_scale=hidden**0.5,
        query_scale=256**-0.5,
    )


PRESETS = {"gemma3-270m": _gemma3(18, 640, 2048), "gemma3-1b": _gemma3(26, 1152, 6912)}
PUBLISHED = {
    "google/gemma-3-270m": "gemma3-270m",
    "google/gemma-3-270m-it": "gemma3-270m",
    "google/gemma-3-1b-pt": "gemma3-1b",
    "google/gemma-3-1b-it": "gemma3-1b",
}
FAMILY = Family("gemma3_text", "Gemma3ForCausalLM", read, write, NAMES, PRESETS, PUBLISHED)
