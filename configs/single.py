"""Single: one source alone, all of it or the part k.

Question: how does an ability grow with its own data?
Command:  python -m sftmix_jax.train --config single.py:math,size=7b --workdir DIR      (math, code, general)
          a part: --config single.py:math,size=7b,k=1/16
Paper, own ability at k = 1, 1/4, 1/16, 1/64, 1/256 (GSM8K %, HumanEval %, MT-Bench):
      7b   math 49.10 43.37 35.90 22.71 12.70 · code 18.40 11.58 12.19 9.14 5.48 · general 5.88 5.85 5.61 5.11 4.00
      13b  math 51.40 48.59 43.00 27.40 18.40 · code 18.40 13.41 12.80 12.20 10.36 · general 6.13 6.03 5.66 5.24 2.95
      33b  math 57.91 56.10 54.60 44.60 29.21 · code 26.82 25.61 21.95 18.59 14.02 · general 6.63 6.66 6.17 5.99 2.30
"""

from fractions import Fraction

from sftmix_jax.experiment import paper, strategies
from sftmix_jax.experiment.config import Experiment
from sftmix_jax.machine.errors import UserError, did_you_mean


def get_config(domain: str = "math", size: str = "7b", k: Fraction = Fraction(1)) -> Experiment:
    if domain not in paper.DOMAINS:
        raise UserError(f"single.py:{domain}: no such domain; {did_you_mean(domain, paper.DOMAINS)}")
    name = f"{domain}_only" + ("" if k == 1 else f"_{str(k).replace('/', '_')}")
    stages = strategies.single(paper.pattern(size), domain, paper.share(size, domain, float(k)))
    return paper.experiment(name, size, stages)
