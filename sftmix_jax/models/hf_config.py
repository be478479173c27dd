"""config.json of a Hugging Face LLaMA, read and written."""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from sftmix_jax.errors import UserError
from sftmix_jax.models.attention import RopeScaling
from sftmix_jax.models.llama import LlamaConfig


def read(folder: epath.Path) -> LlamaConfig:
    """The architecture that a model folder states."""
    file = folder / "config.json"
    if not file.exists():
        raise UserError(f"{folder}: no config.json; a model folder holds config.json and *.safetensors")
    try:
        return parse(json.loads(file.read_text()), str(file))
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: not JSON ({error})") from None


def parse(hf: dict[str, Any], where: str) -> LlamaConfig:
    """Read a config.json; whatever is not a plain LLaMA is an error that names the field."""
    architecture = (hf.get("architectures") or [hf.get("model_type", "?")])[0]
    if architecture not in ("LlamaForCausalLM", "LLaMAForCausalLM", "llama"):
        raise UserError(f"{where}: architecture {architecture} is not supported, only LlamaForCausalLM")
    for field, wanted in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if hf.get(field, wanted) != wanted:
            raise UserError(f"{where}: {field} is {hf[field]!r}; only {wanted!r} is supported")
    try:
        heads = hf["num_attention_heads"]
        # transformers 5 writes rope_parameters; earlier versions rope_theta and rope_scaling
        rope = hf.get("rope_parameters") or {}
        scaling = hf.get("rope_scaling") or rope
        return LlamaConfig(
            vocab_size=hf["vocab_size"],
            hidden_size=hf["hidden_size"],
            intermediate_size=hf["intermediate_size"],
            num_layers=hf["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=hf.get("num_key_value_heads") or heads,
            head_dim=hf.get("head_dim") or hf["hidden_size"] // heads,
            max_length=hf.get("max_position_embeddings", 2048),
            rope_theta=float(hf.get("rope_theta") or rope.get("rope_theta") or 10_000.0),
            rope_scaling=_scaling(scaling, where),
            norm_eps=hf.get("rms_norm_eps", 1e-6),
            tied=bool(hf.get("tie_word_embeddings", False)),
        )
    except KeyError as error:
        raise UserError(f"{where}: the field {error} is missing") from None


def _scaling(scaling: dict[str, Any], where: str) -> RopeScaling | None:
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise UserError(f"{where}: rope scaling '{kind}' is not supported, only llama3")
    return RopeScaling(
        float(scaling["factor"]),
        float(scaling["low_freq_factor"]),
        float(scaling["high_freq_factor"]),
        int(scaling["original_max_position_embeddings"]),
    )


def fields(config: LlamaConfig, bos_id: int | None, eos_id: int | None, dtype: str) -> dict[str, Any]:
    """The config.json that transformers reads."""
    scaling = config.rope_scaling
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_length,
        "rope_theta": config.rope_theta,
        "rope_scaling": None
        if scaling is None
        else {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position_embeddings,
        },
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "torch_dtype": dtype,
    }
