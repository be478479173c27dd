"""Ablation: is the conflict due to code and mathematics inside the general data?

Experiments  all three sources together at the same k (as in rq2.py), the general one without the conversations that are
             tagged code or math; the tagger is `Source.tagger`, by default data/tagger.py
Command      python -m sftmix_jax.study --config studies/ablation.py:7b --workdir DIR
Paper, 7b    at k = 1: 49.05, 17.68, 5.80 without them, 47.53, 14.63, 5.76 with them. The toy's conversations hold
             neither code nor mathematics, so on it nothing is left out.
"""

from sftmix_jax.experiment import paper, strategies
from sftmix_jax.studies.study import Axis, Run, Study, fraction, grid, seed_numbers


def get_config(size: str = "tiny", seeds: int = 0) -> Study:
    runs = []
    for point in grid(seed=seed_numbers(size, seeds, toy=3), k=paper.PARTS):
        seed, k = point["seed"], point["k"]
        stages = strategies.multitask(paper.pattern(size), paper.shares(size, k=fraction(k)))
        name = f"untagged-{k.replace('/', '_')}-{size}-s{seed}"
        experiment = paper.experiment(name, size, stages, seed)
        general = experiment.domains["general"]
        general.without = "code,math"
        general.expected_rows = 63_000 if general.expected_rows else 0
        runs.append(Run(experiment, {"strategy": "mixed", "size": size, "without": "code,math", **point}))
    axes = (Axis("k", scale="log"),)
    return Study("ablation", "Is the conflict due to code and mathematics inside the general data?", runs, axes=axes)
