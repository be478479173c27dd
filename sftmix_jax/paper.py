"""The paper's settings (Dong et al., ACL 2024), which its configs share.

Where the paper is silent: cosine to 0, AdamW without weight decay, clipping at 1, a fresh optimiser each
stage, length 2048. Its batch of 128 conversations is about 16 packed rows of mathematics and code, and
about 64 of conversation; `python -m sftmix_jax.audit` gives the exact number.
"""

from __future__ import annotations

from collections.abc import Mapping

from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.errors import UserError, did_you_mean
from sftmix_jax.evaluation.runner import EvaluationConfig
from sftmix_jax.experiment import Experiment, ModelConfig, Stage
from sftmix_jax.training.optimizer import OptimizerConfig

MODELS = {
    "7b": "hf:huggyllama/llama-7b",
    "13b": "hf:huggyllama/llama-13b",
    "33b": "hf:huggyllama/llama-30b",
    "65b": "hf:huggyllama/llama-65b",
    "llama2-7b": "hf:meta-llama/Llama-2-7b-hf",
    "llama3.1-8b": "hf:meta-llama/Llama-3.1-8B",
}
ALL = Share(fraction=1.0)


def domains() -> dict[str, Source]:
    """The paper's three sources. Two are plain files to fetch first:

    math     data/rft/u33b.jsonl of the GitHub repository OFA-Sys/gsm8k-ScRel (110,142 rows)
    general  ShareGPT_V3_unfiltered_cleaned_split.json of the hub's anon8231489123/ShareGPT_Vicuna_unfiltered
             (the paper's own filter to 86,060 rows is not public; rows without an answer are skipped)
    """
    return {
        "math": Source("data/u33b.jsonl"),
        "code": Source("hf:sahil2801/CodeAlpaca-20k", bad_rows="skip"),
        "general": Source("data/ShareGPT_V3_unfiltered_cleaned_split.json", bad_rows="skip"),
    }


def pattern(rows: int = 16) -> Stage:
    """A stage as the paper trains it: 3 epochs, peak learning rate 2e-5, 3 % warm-up."""
    return Stage(
        epochs=3,
        batch=BatchConfig(rows=rows, length=2048),
        optimizer=OptimizerConfig(learning_rate=2e-5, warmup=0.03, schedule="cosine"),
    )


def experiment(name: str, size: str, stages: Mapping[str, Stage]) -> Experiment:
    """One of the paper's experiments on one of its models. Raises UserError for an unknown size."""
    if size not in MODELS:
        raise UserError(f"size '{size}': {did_you_mean(size, MODELS)}")
    stages = dict(stages)
    for stage in stages.values():
        if "general" in stage.mixture:
            stage.batch.rows = 64
    return Experiment(
        name=name,
        domains=domains(),
        stages=stages,
        model=ModelConfig(init=MODELS[size]),
        template="vicuna_v1.1",
        evaluation=EvaluationConfig(tasks=("gsm8k", "humaneval")),
    )
