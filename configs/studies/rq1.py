"""RQ1: how does each ability grow with its own data?

Experiments  math, code and general alone, each at k = 1, 1/4, 1/16, 1/64 and 1/256 of its source, for each seed
Command      python -m sftmix_jax.study --config studies/rq1.py:tiny --workdir DIR  (7b, 13b, 33b; size=7b,seeds=3)
Paper        mathematics and code keep rising, general flattens near a thousand rows; single.py has its numbers
"""

from sftmix_jax.experiment import paper, strategies
from sftmix_jax.studies.study import Axis, Run, Study, fraction, grid, seed_numbers


def get_config(size: str = "tiny", seeds: int = 0) -> Study:
    runs = []
    for point in grid(seed=seed_numbers(size, seeds, toy=3), source=paper.DOMAINS, k=paper.PARTS):
        seed, source, k = point["seed"], point["source"], point["k"]
        stages = strategies.single(paper.pattern(size), source, paper.share(size, source, fraction(k)))
        name = f"{source}_only-{k.replace('/', '_')}-{size}-s{seed}"
        runs.append(Run(paper.experiment(name, size, stages, seed), {"strategy": "single", "size": size, **point}))
    axes = (Axis("k", scale="log", default="1"), Axis("source", order=paper.DOMAINS))
    return Study("rq1", "How does each ability grow with its own data?", runs, axes=axes)
