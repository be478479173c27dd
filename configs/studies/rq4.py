"""RQ4: which strategy keeps mathematics and code, and what does the replay's k trade?

Experiments  multitask, sequential, mixed sequential (k = 0), and DMT at k = 1/256, 1/64, 1/16, 1/4, 1, for each seed
Command      python -m sftmix_jax.study --config studies/rq4.py:tiny --workdir DIR  (7b, 13b, 33b; size=7b,seeds=3)
Cost         python -m sftmix_jax.study --config studies/rq4.py:7b --list
Paper, 7b    GSM8K, HumanEval, MT-Bench: multitask 47.53, 14.63, 5.76 · sequential 31.39, 15.85, 5.72 ·
             mixed sequential 32.60, 15.24, 6.02 · DMT at 1/256 41.92, 17.68, 6.08
"""

from sftmix_jax.experiment import paper, strategies
from sftmix_jax.studies.study import Axis, Run, Study, fraction, seed_numbers

REPLAYS = ("0", "1/256", "1/64", "1/16", "1/4", "1")


def get_config(size: str = "tiny", seeds: int = 0) -> Study:
    pattern, specialised = paper.pattern(size), paper.shares(size, paper.SPECIALISED)
    general = paper.shares(size, ("general",))
    chains = {
        ("multitask", ""): strategies.multitask(pattern, paper.shares(size)),
        ("sequential", ""): strategies.sequential(pattern, paper.shares(size)),
    }
    for k in REPLAYS:
        strategy = "mixed_sequential" if k == "0" else "dmt"
        chains[strategy, k] = strategies.dmt(pattern, specialised, general, fraction(k))
    runs = []
    for seed in seed_numbers(size, seeds, toy=5):
        for (strategy, k), stages in chains.items():
            name = "-".join(part for part in (strategy, k.replace("/", "_"), f"{size}-s{seed}") if part)
            labels = {"strategy": strategy, "k": k, "size": size, "seed": seed}
            runs.append(Run(paper.experiment(name, size, stages, seed), labels))
    axes = (Axis("k", order=REPLAYS), Axis("strategy", default="multitask"))
    return Study("rq4", "Which strategy keeps mathematics and code, and what does the replay trade?", runs, axes=axes)
