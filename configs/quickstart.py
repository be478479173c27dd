"""DMT on the bundled tiny model and toy domains: the paper on a laptop.

Question: does a small replay of the specialised data keep mathematics and code through the general stage?
Command:  make quickstart
          then, for what happens without the replay, from the same first stage:
          python -m sftmix_jax.train --config quickstart.py:mixed_sequential --workdir runs/quickstart
Cost:     see README; two CPU cores, no network.
"""

from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.experiment import strategies
from sftmix_jax.experiment.config import Experiment, Stage
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.training.optimizer import OptimizerConfig

_ROWS = {"math": 4096, "code": 2048, "general": 9216}  # that are made; the stages take of them


def get_config(strategy: str = "dmt") -> Experiment:
    pattern = Stage(
        epochs=1,
        batch=BatchConfig(batch_size=4, seq_len=160),
        optimizer=OptimizerConfig(learning_rate=1.5e-3),
    )
    specialised = {"code": Share(count=1536), "math": Share(count=2560)}
    general = {"general": Share(count=8192)}
    chains = {
        "dmt": strategies.dmt(pattern, specialised, general, k=1 / 16),
        "mixed_sequential": strategies.mixed_sequential(pattern, specialised, general),
    }
    if strategy not in chains:
        raise UserError(f"quickstart.py:{strategy}: no such strategy; {did_you_mean(strategy, chains)}")
    return Experiment(
        name=strategy,
        domains={name: Source(f"tiny:{name}:{rows}", validation_rows=64) for name, rows in _ROWS.items()},
        stages=chains[strategy],
        template="chatml",
        evaluation=EvaluationConfig(tasks=("tiny_math", "tiny_code", "tiny_general")),
    )
