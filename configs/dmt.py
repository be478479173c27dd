"""DMT, dual-stage mixed fine-tuning: (code ∪ math), then general with a replay of k of (code ∪ math).

Question: does a small replay keep mathematics and code, at no cost to conversation?
Command:  python -m sftmix_jax.train --config dmt.py:7b --workdir DIR      (also 13b, 33b, 65b)
          another k: --config dmt.py:size=7b,k=1/16 (also tiny, the rehearsal on the toy)
Paper, k = 1/256 (GSM8K %, HumanEval %, MT-Bench):
          7b 41.92, 17.68, 6.08 · 13b 46.47, 19.50, 6.03 · 33b 56.36, 25.00, 6.73
Paper, 7b by k: 0 → 32.60, 15.24, 6.02 · 1/64 → 42.53, 15.85, 6.01 · 1/16 → 43.30, 15.24, 5.78
          1/4 → 48.37, 13.41, 5.69 · 1 → 45.79, 14.02, 5.63
"""

from fractions import Fraction

from sftmix_jax.experiment import paper, strategies
from sftmix_jax.experiment.config import Experiment

K = Fraction(1, 256)  # the paper's


def get_config(size: str = "7b", k: Fraction = K) -> Experiment:
    specialised, general = paper.shares(size, paper.SPECIALISED), paper.shares(size, ("general",))
    stages = strategies.dmt(paper.pattern(size), specialised, general, float(k))
    return paper.experiment("dmt" if k == K else f"dmt_{str(k).replace('/', '_')}", size, stages)
