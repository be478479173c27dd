"""Conflict: what does it take for mixing to hurt, once there is plenty of data?

Experiments  each toy source alone, and all together, at k = 1 and 4 times what paper.py calls the toy's full source:
             amount. On another base, such as the smaller one of pretrain_tiny.py:micro: capacity. On rows and
             questions of the hard part alone: difficulty
Cost         40 experiments for five seeds, 11 to 25 minutes on two cores
Command      python -m sftmix_jax.study --config studies/conflict.py --workdir DIR
             conflict.py:base=MODEL_DIR,seeds=5 for five seeds on another base, …,hard=true on hard rows
Found        the runs suggest that it takes much data and little capacity together, with one base per capacity; on the
             bundled base five seeds tell nothing from 0, on hard rows either (docs/log/conflict.md)
Paper, 7b    at full data mathematics and code are 1.6 and 3.8 points lower mixed than alone, general 0.1 of 10
"""

from pathlib import Path

from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment import paper, strategies
from sftmix_jax.experiment.config import Experiment, Stage
from sftmix_jax.studies.study import Axis, Run, Study, grid

AMOUNTS = (1, 4)
QUESTIONS = 200  # of each ability: what is looked for is a few points


def get_config(base: str = "tiny", seeds: int = 3, hard: bool = False) -> Study:
    part = ",hard=true" if hard else ""
    size, pattern = Path(base).name, paper.pattern("tiny")

    def run(name: str, stages: dict[str, Stage], labels: dict[str, str | int]) -> Run:
        return Run(_experiment(name, base, part, stages, labels), labels)

    runs = []
    for point in grid(seed=range(seeds), k=AMOUNTS):
        shares = {name: Share(count=rows * point["k"]) for name, rows in paper.TOY_ROWS.items()}
        labels = {"size": size, "k": str(point["k"]), "seed": point["seed"]}
        for source, share in shares.items():
            stages = strategies.single(pattern, source, share)
            runs.append(run(f"{source}_only", stages, {"strategy": "single", "source": source, **labels}))
        runs.append(run("multitask", strategies.multitask(pattern, shares), {"strategy": "mixed", **labels}))
    axes = (Axis("k", order=tuple(map(str, AMOUNTS))), Axis("strategy"), Axis("source"))
    return Study("conflict", "What does it take for mixing to hurt?", runs, axes=axes)


def _experiment(name: str, base: str, part: str, stages: dict[str, Stage], labels: dict[str, str | int]) -> Experiment:
    experiment = paper.experiment(
        f"{name}-{labels['k']}-{labels['size']}-s{labels['seed']}", "tiny", stages, int(labels["seed"])
    )
    for domain, rows in paper.TOY_ROWS.items():
        count = rows * int(labels["k"]) + 128
        experiment.domains[domain] = Source(f"tiny:{domain},rows={count}{part}", validation_rows=64)
        experiment.evaluation.data[f"tiny_{domain}"] = f"tiny:{QUESTIONS}{part}"
    experiment.model.init = base if base == "tiny" else f"hf:{base}"
    return experiment
