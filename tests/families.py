"""Tiny models of every family, as config.json of transformers states them, and what transformers computes with them.

python tests/families.py    stores their logits in tests/reference/families.npz; needs torch
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

REFERENCE = Path(__file__).parent / "reference" / "families.npz"
EVERY_FOURTH = slice(3, None, 4)  # the positions whose logits are stored
TOKENS = np.random.default_rng(1).integers(0, 61, (2, 80))
_SLIDING, _FULL = "sliding_attention", "full_attention"
_BASE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
_OWN_HEADS = {"head_dim": 16}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
_GEMMA = {
    **_OWN_HEADS,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 24,
    "sliding_window": 12,
    "hidden_activation": "gelu_pytorch_tanh",
}
_LONG = {"type": "longrope", "short_factor": [1.0, 1.5, 2.5], "long_factor": [2.0, 3.0, 4.0]}

# name → config.json; a name begins with its model_type
CASES: dict[str, dict[str, Any]] = {
    "llama": {**_BASE, "rope_theta": 5e5},
    "llama-linear": {**_BASE, "rope_scaling": {"rope_type": "linear", "factor": 4.0}, "tie_word_embeddings": True},
    "llama-yarn": {**_BASE, **_OWN_HEADS, "rope_scaling": _YARN},
    "mistral": {**_BASE, **_OWN_HEADS, "sliding_window": None},
    "mistral-window": {**_BASE, "sliding_window": 12},
    "qwen2": {**_BASE, "rope_theta": 1e6},
    "qwen2-window": {**_BASE, "use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1},
    "qwen3": {**_BASE, **_OWN_HEADS, "tie_word_embeddings": True},
    "gemma2": {**_BASE, **_GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {
        **_BASE,
        **_GEMMA,
        "num_hidden_layers": 5,
        "layer_types": [_SLIDING, _SLIDING, _FULL, _SLIDING, _SLIDING],
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "olmo2": {**_BASE, "rope_theta": 5e5},
    "olmo3": {**_BASE, "num_hidden_layers": 4, "sliding_window": 12, "rope_scaling": _YARN},
    "smollm3": {**_BASE, "num_hidden_layers": 4, "tie_word_embeddings": True},
    "granite": {
        **_BASE,
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.3,
        "residual_multiplier": 0.4,
        "logits_scaling": 2.0,
    },
    "phi3": {**_BASE, "sliding_window": 12},
    "phi3-longrope": {
        **_BASE,
        "max_position_embeddings": 512,
        "original_max_position_embeddings": 128,
        "rope_scaling": _LONG,
        "partial_rotary_factor": 0.75,
    },
    "glm4": {**_BASE, **_OWN_HEADS},
    "seed_oss": {**_BASE, **_OWN_HEADS},
    "exaone4": {**_BASE, "num_hidden_layers": 4, "sliding_window": 12, "sliding_window_pattern": 4},
    "exaone4-full": {**_BASE, "sliding_window": None, "layer_types": [_FULL] * 3},
}


def config_json(case: str) -> dict[str, Any]:
    """The config.json of a case, special tokens included."""
    return {"model_type": case.partition("-")[0], **CASES[case], "pad_token_id": None}


def transformers_model(folder: Path) -> Any:
    """A model folder as transformers loads it, in float32, with attention written out."""
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()


def transformers_logits(model: Any, tokens: np.ndarray) -> np.ndarray:
    """float32 [B, T, V]."""
    import torch

    with torch.no_grad():
        return model(torch.tensor(tokens), use_cache=False).logits.numpy()


def store() -> None:
    """Writes the logits of every case, made by transformers with its own config class of the case's config.json."""
    import tempfile

    from conftest import random_model, save_model

    from sftmix_jax.models import hf_config

    stored = {}
    for case in CASES:
        config = hf_config.parse(config_json(case), case)
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder), config, random_model(config))
            (Path(folder) / "config.json").write_text(json.dumps(config_json(case)))  # not what this package writes
            stored[case] = transformers_logits(transformers_model(Path(folder)), TOKENS)[:, EVERY_FOURTH]
    np.savez_compressed(REFERENCE, **stored)


if __name__ == "__main__":
    sys.path.insert(0, os.fspath(Path(__file__).parent))
    store()
