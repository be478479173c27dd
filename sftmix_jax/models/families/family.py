"""What a family of models is: its config.json as an Architecture and back, its names, and published sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.fields import Fields


@dataclasses.dataclass(frozen=True)
class Family:
    """A `model_type` of transformers."""

    name: str  # model_type
    class_name: str  # in `architectures`
    read: Callable[[Fields], Architecture]
    write: Callable[[Architecture], dict[str, Any]]  # the fields behind those that all families share
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)  # our parameter → Hugging Face name
    presets: Mapping[str, Architecture] = dataclasses.field(default_factory=dict)
    published: Mapping[str, str] = dataclasses.field(default_factory=dict)  # hub id → preset


def sizes(
    fields: Fields,
    family: str,
    *,
    head_dim: int | None = None,
    kv_heads: int | None = None,
    max_length: int | None = None,
    eps: float | None = None,
    tied: bool = False,
) -> dict[str, Any]:
    """The sizes that every config.json states, as arguments of Architecture.

    Keyword arguments are what transformers takes for this family where a field is missing; None: it must be there.
    `head_dim` 0: hidden_size over heads; `kv_heads` 0: as many as heads.
    """
    heads, hidden = fields.size("num_attention_heads"), fields.size("hidden_size")
    return {
        "family": family,
        "vocab_size": fields.size("vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": fields.size("intermediate_size"),
        "num_layers": fields.size("num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": fields.size("num_key_value_heads", heads if kv_heads == 0 else kv_heads),
        "head_dim": fields.size("head_dim", hidden // heads or 1 if head_dim == 0 else head_dim),
        "max_length": fields.size("max_position_embeddings", max_length),
        "norm_eps": fields.number("rms_norm_eps", eps),
        "tied": fields.flag("tie_word_embeddings", tied),
    }


def shared_fields(a: Architecture) -> dict[str, Any]:
    """The inverse of `sizes`."""
    return {
        "model_type": a.family,
        "vocab_size": a.vocab_size,
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size,
        "num_hidden_layers": a.num_layers,
        "num_attention_heads": a.num_heads,
        "num_key_value_heads": a.num_kv_heads,
        "head_dim": a.head_dim,
        "max_position_embeddings": a.max_length,
        "rms_norm_eps": a.norm_eps,
        "tie_word_embeddings": a.tied,
    }
