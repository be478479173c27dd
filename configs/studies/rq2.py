"""RQ2: does mixing the sources help or hurt?

Experiments  all three sources together at the same k = 1, 1/4, 1/16, 1/64 and 1/256, beside each alone (rq1.py)
Command      python -m sftmix_jax.study --config studies/rq2.py:tiny --workdir DIR  (7b, 13b, 33b; size=7b,seeds=3)
Paper        mixing helps with little data and hurts with much; at 7b the two meet between 1/64 and 1/16
"""

from pathlib import Path

from sftmix_jax.experiment import paper, strategies
from sftmix_jax.studies.study import Axis, Run, Study, fraction, grid, joined, read, seed_numbers


def get_config(size: str = "tiny", seeds: int = 0) -> Study:
    runs = []
    for point in grid(seed=seed_numbers(size, seeds, toy=3), k=paper.PARTS):
        seed, k = point["seed"], point["k"]
        stages = strategies.multitask(paper.pattern(size), paper.shares(size, k=fraction(k)))
        name = f"multitask-{k.replace('/', '_')}-{size}-s{seed}"
        runs.append(Run(paper.experiment(name, size, stages, seed), {"strategy": "mixed", "size": size, **point}))
    mixed = Study("mixed", "", runs)
    axes = (Axis("k", scale="log"), Axis("strategy"), Axis("source", order=paper.DOMAINS))
    alone = read(f"{Path(__file__).with_name('rq1.py')}:size={size},seeds={seeds}")
    return joined("rq2", "Does mixing the sources help or hurt?", (mixed, alone), axes)
