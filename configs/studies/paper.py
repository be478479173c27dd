"""The whole paper: RQ1 to RQ4 and the ablation.

Command      python -m sftmix_jax.study --config studies/paper.py:tiny --workdir DIR  (7b, 13b, 33b; size=7b,seeds=3)
Cost         python -m sftmix_jax.study --config studies/paper.py:7b --list
"""

from pathlib import Path

from sftmix_jax.experiment import paper
from sftmix_jax.studies.study import Axis, Study, joined, read, seed_numbers


def get_config(size: str = "tiny", seeds: int = 0) -> Study:
    parts = ("rq1", "rq2", "rq3", "rq4", "ablation")
    count = len(seed_numbers(size, seeds, toy=3))
    studies = [read(f"{Path(__file__).with_name(f'{part}.py')}:size={size},seeds={count}") for part in parts]
    axes = (Axis("k", order=("0", *reversed(paper.PARTS))), Axis("strategy"), Axis("source", order=paper.DOMAINS))
    return joined("paper", "How do abilities depend on the composition of the data?", studies, axes)
