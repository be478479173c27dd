"""The whole paper: RQ1 to RQ4 and the ablation.

Command      python -m sftmix_jax.study --config studies/paper.py:tiny --workdir DIR  (7b, 13b, 33b; 7b,3 for 3 seeds)
Cost         python -m sftmix_jax.study --config studies/paper.py:7b --list
"""

from pathlib import Path

from sftmix_jax.studies.study import Study, arguments, joined, read


def get_config(argument: str = "tiny") -> Study:
    size, seeds = arguments(argument, seeds=3 if argument.startswith("tiny") else 1)
    parts = ("rq1", "rq2", "rq3", "rq4", "ablation")
    studies = [read(f"{Path(__file__).with_name(f'{part}.py')}:{size},{len(seeds)}") for part in parts]
    return joined("paper", "How do abilities depend on the composition of the data?", studies)
