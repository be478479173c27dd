# %% [markdown]
# # Reading a study with pandas
#
# A study leaves its scores as a table, its curves as `metrics.jsonl` and the whole report as
# `report.json`. This notebook runs a small study (two learning rates, two seeds) and reads all
# three.

# %%
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

import sftmix_jax as sm

RATES = """
from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.experiment.config import Experiment, Stage
from sftmix_jax.studies.study import Axis, Run, Study, grid
from sftmix_jax.training.optimizer import OptimizerConfig


def get_config() -> Study:
    batch, runs = BatchConfig(batch_size=4, seq_len=160), []
    for point in grid(rate=(1e-4, 2e-3), seed=(0, 1)):
        optimizer = OptimizerConfig(learning_rate=point["rate"])
        stage = Stage({"math": Share(count=512)}, epochs=1, batch=batch, optimizer=optimizer)
        experiment = Experiment(
            name=f"rate-{point['rate']:g}-s{point['seed']}",
            domains={"math": Source("tiny:math,rows=640", validation_rows=32)},
            stages={"math": stage},
            template="chatml",
            seed=point["seed"],
            evaluation=EvaluationConfig(tasks=("tiny_math",), limit=32),
        )
        runs.append(Run(experiment, point))
    axes = (Axis("rate", scale="log", default=1e-4),)
    return Study("rates", "Which learning rate suits the tiny model?", runs, axes=axes)
"""
with open("rates.py", "w") as file:
    file.write(RATES)

# %% [markdown]
# Studies run as a command, here on two workers. The same command continues a study that was
# interrupted.

# %%
command = "-m sftmix_jax.study --config rates.py --workdir runs/rates --workers 2"
assert subprocess.run([sys.executable, *command.split()], check=False, capture_output=True).returncode == 0

# %% [markdown]
# ## Scores
#
# `results` has a row per metric, task, stage and experiment, and a column per label. A task's
# main metric is `primary`; `is_last` is an experiment's last stage.

# %%
frame = sm.results("runs/rates")
final = frame[frame.primary & frame.is_last]
final[["experiment", "rate", "seed", "task", "metric", "value", "low", "high", "n"]]

# %%
final.pivot_table(index="rate", columns="task", values="value", aggfunc=["mean", "min", "max"])

# %% [markdown]
# `low` and `high` are the 95 % interval of one score over its questions. They say nothing about
# another seed; the report's intervals do, and stand in `report.json`.
#
# ## The report as data

# %%
report = json.loads(Path("runs/rates/report/report.json").read_text())
pd.DataFrame(
    [
        {**setting["labels"], "score": name, **{key: score[key] for key in ("value", "low", "high", "seeds")}}
        for setting in report["settings"]
        for name, score in setting["scores"].items()
    ]
)

# %% [markdown]
# What the report concludes, in its words:

# %%
answers = [answer for section in report["sections"] for part in section["parts"] for answer in part.get("answers", [])]
pd.DataFrame([{"score": a["outcome"], "best": a["setting"], "value": a["score"]} for a in answers])

# %%
for comparison in answers[0]["comparisons"]:
    print(f"{comparison['verdict']}: {comparison['words']}")

# %% [markdown]
# ## Curves
#
# Each stage has a `metrics.jsonl`: a line for each of the first ten steps, then every
# `logging.every` steps. `stages/NAME-ID` is found through the experiment's record.

# %%
curves = {}
for file in sorted(Path("runs/rates/experiments").glob("*.json")):
    for name, stage in json.loads(file.read_text())["stages"].items():
        lines = Path(f"runs/rates/stages/{name}-{stage}/metrics.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if "loss" in row]
        curves[file.stem] = pd.Series({row["step"]: row["loss"] for row in rows})
axes = pd.DataFrame(curves).plot(xlabel="step", ylabel="training loss", style=".-", figsize=(6, 3))

# %% [markdown]
# [Reports](../report.md) lists the fields of `report.json`.
