# %% [markdown]
# # Own data in ten minutes
#
# Three small files become a trained model. Every cell runs on two CPU cores with the bundled
# model; for a model of your own set `ModelConfig(init="hf:MODEL")`.

# %%
import json
from pathlib import Path

import pandas as pd

import sftmix_jax as sm
from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment import strategies
from sftmix_jax.experiment.config import Experiment, Stage
from sftmix_jax.training.optimizer import OptimizerConfig

# %% [markdown]
# ## The files
#
# A domain is a file, or several. Formats are recognised by their columns; three of them are
# written here. In practice these are files that you have.

# %%
rows = {
    "math.jsonl": [
        {"question": f"What is {a} + {b}?", "answer": f"{a} + {b} = {a + b}\n#### {a + b}"}
        for a in range(2, 14)
        for b in range(2, 14)
    ],
    "code.jsonl": [
        {"instruction": f"Write a function that adds {n}.", "input": "", "output": f"def add(x):\n    return x + {n}"}
        for n in range(48)
    ],
    "chat.jsonl": [
        {"messages": [{"role": "user", "content": hello}, {"role": "assistant", "content": f"{hello} How can I help?"}]}
        for hello in ("Hello.", "Good morning.", "Good evening.", "Hi there.", "Welcome.", "Good day.")
        for _ in range(8)
    ],
}
for name, every in rows.items():
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in every))

# %% [markdown]
# ## The experiment
#
# Mathematics and code come first, then conversation with a quarter of both replayed (DMT).
# `validation_rows` are kept out of training; their loss is measured at the end of each stage.

# %%
domains = {name: Source(f"{name}.jsonl", validation_rows=8) for name in ("math", "code", "chat")}
pattern = Stage(epochs=6, batch=BatchConfig(batch_size=4, seq_len=128), optimizer=OptimizerConfig(learning_rate=1e-3))
everything = Share(fraction=1.0)
stages = strategies.dmt(pattern, {"math": everything, "code": everything}, {"chat": everything}, k=1 / 4)
experiment = Experiment("mine", domains, stages)

# %% [markdown]
# The same as a file: `python -m sftmix_jax.init_data --data math.jsonl,code.jsonl,chat.jsonl
# --out mine.py` reads the rows and writes the config. Before a long training, `python -m
# sftmix_jax.audit --config mine.py` shows what is trained on, row by row.
#
# ## Train
#
# A stage that is finished is not trained again. An interrupted one continues at its last
# checkpoint.

# %%
folders = sm.train(experiment, "runs/mine")
[Path(folder).name.rpartition("-")[0] for folder in folders]

# %% [markdown]
# ## What became of the rows
#
# `done.json` accounts for each row of a domain, and has the validation losses.

# %%
done = [json.loads(Path(folder, "done.json").read_text()) for folder in folders]
pd.DataFrame({name: done[0]["rows"][name] for name in done[0]["rows"]}).loc[["stored", "used", "of them truncated"]]

# %%
pd.DataFrame([each["validation_loss"] for each in done], index=list(stages)).round(3)

# %% [markdown]
# ## Losses over the steps

# %%
metrics = [json.loads(line) for line in Path(folders[0], "metrics.jsonl").read_text().splitlines()]
losses = pd.DataFrame(metrics).set_index("step")[["loss/math", "loss/code"]].dropna()
axes = losses.plot(xlabel="step", ylabel="loss", title="first stage", style=".-", figsize=(6, 3))

# %% [markdown]
# ## Ask it

# %%
sampler = sm.Sampler(workdir="runs/mine")
sampler.ask(["Good evening.", "What is 3 + 4?"], max_new_tokens=24)

# %% [markdown]
# `python -m sftmix_jax.export --workdir runs/mine --out exported` writes a folder that
# transformers and vLLM load, and `python -m sftmix_jax.report --workdir runs/mine` a page of the
# run. Next: [Your data](../data.md).
