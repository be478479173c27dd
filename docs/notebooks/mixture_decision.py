# %% [markdown]
# # A mixture decision, from start to end
#
# The question: a model is trained on mathematics, then on conversation. How much of the
# mathematics should be replayed in the second stage? The steps are those of a real decision; the
# bundled model and few questions make them quick.

# %%
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

import sftmix_jax as sm

# %% [markdown]
# ## 1. Write the question down
#
# A study is a question, its experiments, and the axes along which they are compared. The value
# that is used today is the `default`: the report compares the best one with it. Both values share
# their first stage, which is trained once per seed.

# %%
Path("replay.py").write_text("""
from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.experiment import strategies
from sftmix_jax.experiment.config import Experiment, Stage
from sftmix_jax.studies.study import Axis, Run, Study, fraction, grid
from sftmix_jax.training.optimizer import OptimizerConfig


def get_config() -> Study:
    batch, optimizer = BatchConfig(batch_size=4, seq_len=160), OptimizerConfig(learning_rate=1.5e-3)
    pattern, runs = Stage(epochs=1, batch=batch, optimizer=optimizer), []
    for point in grid(k=("0", "1/4"), seed=(0, 1)):
        math, general = {"math": Share(count=384)}, {"general": Share(count=384)}
        experiment = Experiment(
            name=f"k-{point['k'].replace('/', '_')}-s{point['seed']}",
            domains={name: Source(f"tiny:{name},rows=448", validation_rows=32) for name in ("math", "general")},
            stages=strategies.dmt(pattern, math, general, fraction(point["k"])),
            template="chatml",
            seed=point["seed"],
            evaluation=EvaluationConfig(tasks=("tiny_math", "tiny_general"), limit=24),
        )
        runs.append(Run(experiment, point))
    axes = (Axis("k", order=("0", "1/4"), default="0"),)
    return Study("replay", "How much mathematics does the second stage need?", runs, axes=axes)
""")


def study(*options: str) -> str:
    """What `python -m sftmix_jax.study --config replay.py …` prints."""
    command = [sys.executable, "-m", "sftmix_jax.study", "--config", "replay.py", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# %% [markdown]
# ## 2. What does it cost, and what can it tell?
#
# Before anything is trained, `--list` prints the stages, and which difference the planned seeds
# and questions detect. If that is larger than a difference that would matter to you, plan more
# seeds or questions now. The two seeds of this page tell little.

# %%
print(study("--list"))

# %% [markdown]
# ## 3. Run it

# %%
study("--workdir", "runs/replay", "--workers", "2")
frame = sm.results("runs/replay")
frame[frame.primary].pivot_table(index=["k", "stage"], columns=["task", "metric"], values="value").round(3)

# %% [markdown]
# Mathematics after the first stage is what there is to lose, and general ability what the second
# stage is for.
#
# ## 4. Differences, paired by seed
#
# Experiments of one seed share their first stage and their order of rows, so their difference is
# surer than either score.

# %%
final = frame[frame.primary & frame.is_last]
scores = final.pivot_table(index=["task", "seed"], columns="k", values="value")
(scores["1/4"] - scores["0"]).rename("1/4 minus 0").unstack().round(3)

# %% [markdown]
# ## 5. Decide
#
# The report gives each score's best setting with a verdict that accounts for seeds, questions and
# the number of comparisons. Where it says `cannot tell`, it names the difference that this study
# would have detected: the choice then rests on cost, or on more seeds.

# %%
report = json.loads(Path("runs/replay/report/report.json").read_text())
answers = [answer for section in report["sections"] for part in section["parts"] for answer in part.get("answers", [])]
verdicts = [
    {"score": a["outcome"], "best": a["setting"], "value": a["score"], "verdict": c["verdict"], "in words": c["words"]}
    for a in answers
    for c in a["comparisons"]
]
pd.set_option("display.max_colwidth", None)
pd.DataFrame(verdicts)

# %% [markdown]
# The page with figures is `runs/replay/report/index.html` ([Reports](../report.md)). The paper's
# own decision, over more values and five seeds: `make study`.
