"""Mixed sequential: (code ∪ math), then general. Its first stage is that of DMT, and is trained once.

Question: what does the general stage forget when nothing is replayed?
Command:  python -m sftmix_jax.train --config mixed_sequential.py:7b --workdir DIR      (also 13b, 33b, 65b)
Paper (GSM8K %, HumanEval %, MT-Bench):
          7b 32.60, 15.24, 6.02 · 13b 40.48, 18.30, 5.93 · 33b 44.24, 24.40, 6.43
"""

from sftmix_jax.experiment import paper, strategies
from sftmix_jax.experiment.config import Experiment


def get_config(size: str = "7b") -> Experiment:
    specialised, general = paper.shares(size, paper.SPECIALISED), paper.shares(size, ("general",))
    stages = strategies.mixed_sequential(paper.pattern(size), specialised, general)
    return paper.experiment("mixed_sequential", size, stages)
