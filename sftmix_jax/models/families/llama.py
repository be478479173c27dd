"""LLaMA 1, 2 and 3, and what took its architecture: SmolLM2, TinyLlama, Yi, DeepSeek's dense models."""

from typing import Any

from sftmix_jax.models import hf_rope
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope
from sftmix_jax.models.families.family import Family, sizes
from sftmix_jax.models.fields import Fields


def read(fields: Fields) -> Architecture:
    """LLaMA has no options but its rotation."""
    fields.only("hidden_act", "silu")
    for name in ("attention_bias", "mlp_bias", "rope_interleaved"):
        fields.only(name, False)
    own = sizes(fields, "llama", head_dim=0, kv_heads=0, max_length=2048, eps=1e-6)
    return Architecture(**own, pattern=(LayerKind(hf_rope.read(fields)),))


def write(a: Architecture) -> dict[str, Any]:
    """Fields of config.json."""
    fixed = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
    return {**hf_rope.write(a.pattern[0].rope or Rope()), **fixed}


_PLAIN = Rope()


def _llama(
    layers: int,
    hidden: int,
    feed_forward: int,
    heads: int,
    kv_heads: int | None = None,
    *,
    vocab: int = 32_000,
    length: int = 2048,
    eps: float = 1e-6,
    tied: bool = False,
    rope: Rope = _PLAIN,
) -> Architecture:
    return Architecture(
        vocab,
        hidden,
        feed_forward,
        layers,
        heads,
        kv_heads or heads,
        hidden // heads,
        length,
        norm_eps=eps,
        tied=tied,
        pattern=(LayerKind(rope),),
    )


_3: dict[str, Any] = {"vocab": 128_256, "eps": 1e-5}
_3_2: dict[str, Any] = {**_3, "length": 131_072, "tied": True, "rope": Rope(5e5, "llama3", 32.0, 8192)}
_SMOL: dict[str, Any] = {"vocab": 49_152, "length": 8192, "eps": 1e-5, "tied": True, "rope": Rope(1e5)}
PRESETS = {
    "micro": Architecture(1536, 64, 192, 4, 4, 4, 16, 512, tied=True),
    "tiny": Architecture(1536, 128, 384, 4, 4, 4, 32, 512, tied=True),
    "7b": _llama(32, 4096, 11_008, 32),
    "13b": _llama(40, 5120, 13_824, 40),
    "33b": _llama(60, 6656, 17_920, 52),
    "65b": _llama(80, 8192, 22_016, 64, eps=1e-5),
    "llama2-7b": _llama(32, 4096, 11_008, 32, length=4096, eps=1e-5),
    "llama2-13b": _llama(40, 5120, 13_824, 40, length=4096, eps=1e-5),
    "llama2-70b": _llama(80, 8192, 28_672, 64, 8, length=4096, eps=1e-5),
    "llama3-8b": _llama(32, 4096, 14_336, 32, 8, length=8192, rope=Rope(5e5), **_3),
    "llama3.2-1b": _llama(16, 2048, 8192, 32, 8, **_3_2),
    "llama3.2-3b": _llama(28, 3072, 8192, 24, 8, **_3_2),
    "smollm2-135m": _llama(30, 576, 1536, 9, 3, **_SMOL),
    "smollm2-360m": _llama(32, 960, 2560, 15, 5, **_SMOL),
}
PUBLISHED = {
    "huggyllama/llama-7b": "7b",
    "huggyllama/llama-13b": "13b",
    "huggyllama/llama-30b": "33b",
    "huggyllama/llama-65b": "65b",
    "meta-llama/Llama-2-7b-hf": "llama2-7b",
    "meta-llama/Llama-2-13b-hf": "llama2-13b",
    "meta-llama/Llama-3.1-8B": "llama3-8b",
    "meta-llama/Llama-3.2-1B": "llama3.2-1b",
    "meta-llama/Llama-3.2-3B": "llama3.2-3b",
    "HuggingFaceTB/SmolLM2-135M": "smollm2-135m",
    "HuggingFaceTB/SmolLM2-360M": "smollm2-360m",
}
FAMILY = Family("llama", "LlamaForCausalLM", read, write, presets=PRESETS, published=PUBLISHED)
