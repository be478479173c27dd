"""The recipe of the bundled tiny base: raw text about sums, Python lines and word lists, no instructions.

Question: none; everything else starts from its result.
Command:  python -m sftmix_jax.train --config pretrain_tiny.py --workdir runs/pretrain
          python -m sftmix_jax.export --workdir runs/pretrain --out sftmix_jax/tiny/base --dtype bfloat16
Cost:     about 5M tokens; 14 minutes on two CPU cores.
"""

from pathlib import Path

from sftmix_jax import tiny
from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment import Experiment, ModelConfig, Stage
from sftmix_jax.training.loop import CheckpointConfig
from sftmix_jax.training.optimizer import OptimizerConfig


def get_config() -> Experiment:
    stage = Stage(
        mixture={"corpus": Share(fraction=1.0)},
        epochs=1,
        batch=BatchConfig(rows=16, length=128),
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.01),
    )
    return Experiment(
        name="pretrain_tiny",
        domains={"corpus": Source("tiny:corpus:75000", held_out=512)},
        stages={"pretrain": stage},
        model=ModelConfig(init="scratch:tiny", tokenizer=str(Path(tiny.__file__).parent / "base")),
        template="chatml",
        checkpoints=CheckpointConfig(every=2000),
    )
