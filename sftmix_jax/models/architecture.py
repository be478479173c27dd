"""What config.json of a checkpoint fixes of a dense decoder: its sizes, and its options as data.

Letters: D hidden size, N query heads, K key/value heads, H head size, F feed-forward size, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary positions of a layer. Fields behind `kind` belong to the kinds that their comments name."""

    theta: float = 10_000.0
    kind: str = "default"  # default, linear, llama3, yarn or longrope
    factor: float = 1.0  # all kinds but default: how many times longer the context becomes
    original_length: int = 0  # llama3, yarn, longrope: tokens of the context before it was stretched
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn: turns over the original context from which a frequency is kept
    beta_slow: float = 1.0  # yarn: turns up to which a frequency is divided by `factor`
    truncate: bool = True  # yarn: bounds between the two are whole pairs
    short_factors: tuple[float, ...] = ()  # longrope: divisors of each frequency, up to `original_length` tokens
    long_factors: tuple[float, ...] = ()  # longrope: beyond; kept for the export
    magnitude: float = 1.0  # yarn, longrope: factor of cosine and sine
    part: float = 1.0  # of a head that is rotated, from its front
    interleaved: bool = False  # neighbours are pairs, not halves


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """What may differ between the layers of one model."""

    rope: Rope | None = Rope()  # None: no positions
    window: int = 0  # tokens that a token attends to, itself included; 0: all before it


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A dense decoder. With every option at its default it is LLaMA."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_length: int
    norm_eps: float = 1e-5
    tied: bool = False  # the output projection is the embedding
    family: str = "llama"  # model_type of config.json: names there, nothing of the computation
    pattern: tuple[LayerKind, ...] = (LayerKind(),)  # layer i is of kind i modulo its length
    qkv_bias: bool = False
    qk_norm: str = ""  # RMS norm of queries and keys before the rotation: "", head (each), or all (heads together)
    norms: str = "before"  # a block, after it (before it is added), or both
    norm_plus_one: bool = False  # norms multiply with 1 + their weight
    activation: str = "silu"  # of the gate: silu or gelu_tanh
    embedding_scale: float = 1.0
    query_scale: float | None = None  # of scores; None: 1/√H
    residual_scale: float = 1.0  # of what a block adds
    logit_scale: float = 1.0
    score_cap: float = 0.0  # attention scores go through cap · tanh(x / cap); 0: they do not
    logit_cap: float = 0.0  # logits likewise

    @property
    def init_std(self) -> float:
        """Of fresh weights: 1/√D, near the published 0.02 at D = 2500. With 0.02 at D = 128 attention starts flat,
        and a tiny model takes far longer to learn to copy."""
        return self.hidden_size**-0.5

    def kind(self, layer: int) -> LayerKind:
        """The kind of a layer, counted from 0."""
        return self.pattern[layer % len(self.pattern)]


@dataclasses.dataclass(frozen=True)
class Lora:
    """Low-rank adapters (LoRA, Hu et al. 2021): a product x W becomes x W + alpha / rank · (x A) B."""

    rank: int
    alpha: float
    targets: tuple[str, ...]  # linear weights of a layer, by their name in the parameter table

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapted(Architecture):
    """A decoder with adapters beside some of its linear weights."""

    lora: Lora


def adapted(architecture: Architecture, lora: Lora | None) -> Architecture:
    """The architecture with these adapters; unchanged for None."""
    return architecture if lora is None else Adapted(**vars(architecture), lora=lora)


def shortest_period(kinds: Sequence[LayerKind]) -> tuple[LayerKind, ...]:
    """The shortest beginning of a list of layers that gives it all when repeated."""
    return next(
        tuple(kinds[:n]) for n in range(1, len(kinds) + 1) if all(kinds[i] == kinds[i % n] for i in range(len(kinds)))
    )


def from_record(record: Mapping[str, Any]) -> Architecture:
    """An architecture from its JSON form, as stage.json holds it."""

    def kind(stored: Mapping[str, Any]) -> LayerKind:
        rope = stored["rope"]
        if rope is not None:
            lists: dict[str, Any] = {name: tuple(rope[name]) for name in ("short_factors", "long_factors")}
            rope = Rope(**{**rope, **lists})
        return LayerKind(rope, stored["window"])

    return Architecture(**{**record, "pattern": tuple(map(kind, record["pattern"]))})
