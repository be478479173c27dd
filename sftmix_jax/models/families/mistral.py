"""Mistral: LLaMA, with a window in all layers of the first version."""

from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.fields import Fields


def read(fields: Fields) -> Architecture:
    """`sliding_window` of null: no window."""
    fields.only("hidden_act", "silu")
    window = fields.window("sliding_window", 4096)
    own = sizes(fields, "mistral", head_dim=0, kv_heads=8)
    return Architecture(**own, pattern=(LayerKind(hf_rope.read(fields), window),))


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json."""
    kind = a.pattern[0]
    return {**hf_rope.write(kind.rope or Rope()), "sliding_window": kind.window or None, "hidden_act": "silu"}


def _7b(vocab: int, kind: LayerKind) -> Architecture:
    return Architecture(vocab, 4096, 14_336, 32, 32, 8, 128, 32_768, family="mistral", pattern=(kind,))


PRESETS = {
    "mistral-7b-v0.1": _7b(32_000, LayerKind(Rope(1e4), 4096)),
    "mistral-7b-v0.3": _7b(32_768, LayerKind(Rope(1e6))),
}
PUBLISHED = {
    "mistralai/Mistral-7B-v0.1": "mistral-7b-v0.1",
    "mistralai/Mistral-7B-v0.3": "mistral-7b-v0.3",
    "mistralai/Mistral-7B-Instruct-v0.3": "mistral-7b-v0.3",
}
FAMILY = Family("mistral", "MistralForCausalLM", read, write, presets=PRESETS, published=PUBLISHED)
