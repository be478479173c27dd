"""Sequential: code, then math, then general.

Question: what does each stage forget of the ones before?
Command:  python -m sftmix_jax.train --config sequential.py:7b --workdir DIR      (also 13b, 33b, 65b)
Paper (GSM8K %, HumanEval %, MT-Bench):
          7b 31.39, 15.85, 5.72 · 13b 39.12, 20.12, 5.93 · 33b 47.27, 24.80, 6.73
"""

from sftmix_jax.experiment import paper, strategies
from sftmix_jax.experiment.config import Experiment


def get_config(size: str = "7b") -> Experiment:
    return paper.experiment("sequential", size, strategies.sequential(paper.pattern(size), paper.shares(size)))
