"""How tokens are drawn from a model, with the ranges of each setting."""

from __future__ import annotations

import dataclasses

from sftmix_jax.machine.ranges import Integer, Number, setting

# 0 is greedy; smaller ones would divide float32 logits beyond what float32 holds.
TEMPERATURE = Number(at_least=0.001, at_most=100, also=(0,))
TOP_P = Number(above=0, at_most=1)


@dataclasses.dataclass
class SamplingConfig:
    """What a prompt's answers are drawn with."""

    max_new_tokens: int = setting(256, Integer(at_least=1), "tokens per answer, at most")
    temperature: float = setting(0.0, TEMPERATURE, "0: greedy")
    top_p: float = setting(1.0, TOP_P, "nucleus sampling: the likeliest tokens that together have this probability")
    num_samples: int = setting(1, Integer(at_least=1), "answers per prompt")
    seed: int = setting(0, Integer(at_least=0), "of the draws")
