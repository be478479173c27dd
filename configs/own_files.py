"""DMT on your own files: mathematics and code first, then general with a replay of k of them.

Command:  python -m sftmix_jax.train --config own_files.py --workdir DIR \\
            --config.domains.math.path=FILE --config.domains.code.path=FILE --config.domains.general.path=FILE \\
            --config.model.init=hf:DIR
          another k: --config own_files.py:k=1/16 (1/256 needs files of at least 256 rows; of 200 rows, 1/200)
Formats:  messages, ShareGPT, Alpaca, prompt/completion, question/answer, query/response; JSONL, JSON, Parquet.
Look first: the same line with sftmix_jax.audit instead of sftmix_jax.train.
"""

from fractions import Fraction

from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment import paper, strategies
from sftmix_jax.experiment.config import Experiment, Stage
from sftmix_jax.training.optimizer import OptimizerConfig


def get_config(k: Fraction = Fraction(1, 256)) -> Experiment:
    pattern = Stage(epochs=3, batch=BatchConfig(batch_size=16), optimizer=OptimizerConfig(learning_rate=2e-5))
    specialised = {"code": paper.ALL, "math": paper.ALL}
    return Experiment(
        name="own_files",
        domains={"math": Source(), "code": Source(), "general": Source()},
        stages=strategies.dmt(pattern, specialised, {"general": paper.ALL}, float(k)),
    )
