"""The paper's settings (Dong et al., ACL 2024), and their rehearsal on the toy, which configs and studies share.

Where the paper is silent: cosine to 0, AdamW without weight decay, clipping at 1, a fresh optimiser each
stage, length 2048. Its batch of 128 conversations is about 16 packed rows of mathematics and code, and
about 64 of conversation; `python -m sftmix_jax.audit` gives the exact number.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share, rows_of
from sftmix_jax.data.sources import Source
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.experiment.config import Experiment, ModelConfig, Stage
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.training.optimizer import OptimizerConfig

MODELS = {
    "tiny": "tiny",
    "7b": "hf:huggyllama/llama-7b",
    "13b": "hf:huggyllama/llama-13b",
    "33b": "hf:huggyllama/llama-30b",
    "65b": "hf:huggyllama/llama-65b",
    "llama2-7b": "hf:meta-llama/Llama-2-7b-hf",
    "llama3.1-8b": "hf:meta-llama/Llama-3.1-8B",
}
DOMAINS = ("code", "math", "general")
SPECIALISED = ("code", "math")
PARTS = ("1", "1/4", "1/16", "1/64", "1/256")  # of a source; the paper's k
ALL = Share(fraction=1.0)
# What the toy's full source is: enough to learn from, few enough that a study of it ends within a lunch.
TOY_ROWS = {"code": 512, "math": 832, "general": 1152}


def sources(size: str) -> dict[str, Source]:
    """The paper's three sources, or the toy's. Two of the paper's are plain files to fetch first:

    math     data/rft/u33b.jsonl of the GitHub repository OFA-Sys/gsm8k-ScRel (110,142 rows)
    general  ShareGPT_V3_unfiltered_cleaned_split.json of the hub's anon8231489123/ShareGPT_Vicuna_unfiltered
             (the paper's own filter to 86,060 rows is not public; rows without an answer are skipped)

    Their row counts are the paper's; tokens of a row are an assumption, for costs before the data is there.
    """
    if size == "tiny":
        return {name: Source(f"tiny:{name},rows={rows + 128}", validation_rows=64) for name, rows in TOY_ROWS.items()}
    general = "data/ShareGPT_V3_unfiltered_cleaned_split.json"
    code = "hf:sahil2801/CodeAlpaca-20k"
    return {
        "math": Source("data/u33b.jsonl", expected_rows=110_142, expected_tokens=250),
        "code": Source(code, bad_rows="skip", expected_rows=20_022, expected_tokens=150),
        "general": Source(general, bad_rows="skip", expected_rows=86_060, expected_tokens=1000),
    }


def share(size: str, domain: str, k: float = 1.0) -> Share:
    """The part k of a source."""
    return Share(count=rows_of(k, TOY_ROWS[domain])) if size == "tiny" else Share(fraction=k)


def shares(size: str, domains: Sequence[str] = DOMAINS, k: float = 1.0) -> dict[str, Share]:
    """The part k of each of some sources."""
    return {domain: share(size, domain, k) for domain in domains}


def pattern(size: str = "7b") -> Stage:
    """A stage as the paper trains it: 3 epochs, peak learning rate 2e-5, 3 % warm-up; the toy's: 1e-3."""
    if size == "tiny":
        batch = BatchConfig(batch_size=2, seq_len=160)
        return Stage(epochs=3, batch=batch, optimizer=OptimizerConfig(learning_rate=1e-3))
    return Stage(
        epochs=3,
        batch=BatchConfig(batch_size=16, seq_len=2048),
        optimizer=OptimizerConfig(learning_rate=2e-5, warmup=0.03, schedule="cosine"),
    )


def experiment(name: str, size: str, stages: Mapping[str, Stage], seed: int = 0) -> Experiment:
    """One of the paper's experiments on one of its models. Raises UserError for an unknown size."""
    if size not in MODELS:
        raise UserError(f"size '{size}': {did_you_mean(size, MODELS)}")
    own = copy.deepcopy(dict(stages))
    if size == "tiny":
        data = {"tiny_math": "tiny:100", "tiny_code": "tiny:75", "tiny_general": "tiny:75"}
        evaluation = EvaluationConfig(tasks=tuple(data), data=data)
    else:
        evaluation = EvaluationConfig(tasks=("gsm8k", "humaneval"))
        for stage in own.values():
            if "general" in stage.mixture:
                stage.batch.batch_size = 64
    return Experiment(
        name=name,
        domains=sources(size),
        stages=own,
        model=ModelConfig(init=MODELS[size]),
        template="chatml" if size == "tiny" else "vicuna_v1.1",
        seed=seed,
        evaluation=evaluation,
    )
