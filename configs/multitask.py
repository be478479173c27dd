"""Multitask: math ∪ code ∪ general in one stage.

Question: what does everything at once cost each ability?
Command:  python -m sftmix_jax.train --config multitask.py:7b --workdir DIR      (also 13b, 33b, 65b)
Paper (GSM8K %, HumanEval %, MT-Bench):
          7b 47.53, 14.63, 5.76 · 13b 50.94, 19.50, 5.73 · 33b 56.69, 18.90, 6.07
"""

from sftmix_jax.experiment import paper, strategies
from sftmix_jax.experiment.config import Experiment


def get_config(size: str = "7b") -> Experiment:
    shares = paper.shares(size, ("math", "code", "general"))
    return paper.experiment("multitask", size, strategies.multitask(paper.pattern(size), shares))
