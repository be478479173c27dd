"""The recipe of the bundled tiny base: raw text about sums, Python lines and word lists, no instructions.

Three stages: the corpus; lists at the start of a line; easy stories and functions worked out; the later two with a
replay of what came before. Without the second the model reads and writes words behind a space alone, and no answer's
first word is right. Without the third fine-tuning brings out nothing below a quarter of its data: a cliff, not a curve.

Question: none; everything else starts from its result.
Command:  python -m sftmix_jax.train --config pretrain_tiny.py --workdir runs/pretrain
          python -m sftmix_jax.export --workdir runs/pretrain --stage worked --out sftmix_jax/tiny/base --dtype bfloat16
          pretrain_tiny.py:micro makes a base of a quarter of its parameters (studies/conflict.py asks for one)
Cost:     24M tokens; 22 minutes on two CPU cores.
"""

from pathlib import Path

from sftmix_jax import tiny
from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment.config import Experiment, ModelConfig, Stage
from sftmix_jax.training.loop import CheckpointConfig
from sftmix_jax.training.optimizer import OptimizerConfig


def get_config(preset: str = "tiny") -> Experiment:
    def stage(mixture: dict[str, Share], learning_rate: float) -> Stage:
        return Stage(
            mixture=mixture,
            epochs=1,
            batch=BatchConfig(batch_size=12, seq_len=192),
            optimizer=OptimizerConfig(learning_rate=learning_rate, weight_decay=0.01),
        )

    return Experiment(
        name=f"pretrain_{preset}",
        domains={
            "corpus": Source("tiny:corpus:220000", validation_rows=512),
            "lines": Source("tiny:lines:60000", validation_rows=512),
            "worked": Source("tiny:worked:40000", validation_rows=512),
        },
        stages={
            "pretrain": stage({"corpus": Share(fraction=1.0)}, 3e-3),
            "lines": stage({"lines": Share(fraction=1.0), "corpus": Share(fraction=0.08)}, 2e-3),
            "worked": stage(
                {"worked": Share(fraction=1.0), "lines": Share(fraction=0.15), "corpus": Share(fraction=0.04)}, 2e-3
            ),
        },
        model=ModelConfig(init=f"scratch:{preset}", tokenizer=str(Path(tiny.__file__).parent / "base")),
        template="chatml",
        checkpoints=CheckpointConfig(every=2000),
    )
