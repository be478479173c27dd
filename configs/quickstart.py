"""DMT on the bundled tiny model and toy domains: the paper on a laptop.

Question: does a small replay of the specialised data keep mathematics and code through the general stage?
Command:  make quickstart
          (python -m sftmix_jax.train --config quickstart.py[:mixed_sequential] --workdir runs/quickstart)
Cost:     see README; two CPU cores, no network.
"""

from sftmix_jax import strategies
from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.evaluation.runner import EvaluationConfig
from sftmix_jax.experiment import Experiment, Stage
from sftmix_jax.training.optimizer import OptimizerConfig


def get_config(strategy: str = "dmt") -> Experiment:
    pattern = Stage(
        epochs=2,
        batch=BatchConfig(rows=8, length=160),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )
    specialised = {"code": Share(count=1024), "math": Share(count=1536)}
    general = {"general": Share(count=2048)}
    if strategy == "mixed_sequential":
        stages = strategies.mixed_sequential(pattern, specialised, general)
    else:
        stages = strategies.dmt(pattern, specialised, general, k=1 / 16)
    return Experiment(
        name=strategy,
        domains={name: Source(f"tiny:{name}", held_out=64) for name in ("math", "code", "general")},
        stages=stages,
        template="chatml",
        evaluation=EvaluationConfig(tasks=("tiny_math", "tiny_code", "tiny_general")),
    )
