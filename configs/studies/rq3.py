"""RQ3: is it the amount of an ability's own data that counts, or its ratio to the rest?

Experiments  all in one stage: (a) all specialised data, general at k; (b) specialised at k, all general;
             (c) specialised at k, general at 1/64; k = 1, 1/4, 1/16, 1/64 and 1/256
Command      python -m sftmix_jax.study --config studies/rq3.py:tiny --workdir DIR  (7b, 13b, 33b; size=7b,seeds=3)
Paper, 7b    the amount counts, the ratio hardly
"""

from sftmix_jax.experiment import paper, strategies
from sftmix_jax.studies.study import Axis, Run, Study, fraction, grid, seed_numbers

SETUPS = {"a": ("1", "k"), "b": ("k", "1"), "c": ("k", "1/64")}  # parts of the specialised and of the general data


def get_config(size: str = "tiny", seeds: int = 0) -> Study:
    runs = []
    for point in grid(seed=seed_numbers(size, seeds, toy=3), setup=tuple(SETUPS), k=paper.PARTS):
        seed, setup, k = point["seed"], point["setup"], point["k"]
        own, other = (fraction(k if part == "k" else part) for part in SETUPS[setup])
        shares = paper.shares(size, paper.SPECIALISED, own) | paper.shares(size, ("general",), other)
        name = f"ratio_{setup}-{k.replace('/', '_')}-{size}-s{seed}"
        stages = strategies.multitask(paper.pattern(size), shares)
        labels = {"strategy": "mixed", "size": size, "specialised_k": own, "general_k": other, **point}
        runs.append(Run(paper.experiment(name, size, stages, seed), labels))
    axes = (Axis("k", scale="log"), Axis("setup", order=tuple(SETUPS)))
    return Study("rq3", "Is it the amount of an ability's own data that counts, or its ratio?", runs, axes=axes)
