"""The package in Python: what the commands do, as functions that return what the commands print.

import sftmix_jax as sm

experiment = sm.load("dmt.py", "model.lora.rank=8", size="tiny")
sm.train(experiment, "runs/dmt")
frame = sm.results("runs/dmt")
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from sftmix_jax.data.messages import Message
from sftmix_jax.experiment import config as experiments
from sftmix_jax.experiment import measuring, runner
from sftmix_jax.experiment.config import Experiment
from sftmix_jax.experiment.evaluate_options import EvaluateOptions
from sftmix_jax.experiment.load_options import Opening
from sftmix_jax.experiment.opening import one_stage, open_model, open_stage
from sftmix_jax.machine import compilation, host_memory, processes, ranges
from sftmix_jax.machine.errors import UserError
from sftmix_jax.sampling.sampler import Request
from sftmix_jax.sampling.settings import SamplingConfig

if TYPE_CHECKING:
    import pandas as pd


def load(config: str, /, *changes: str, **arguments: Any) -> Experiment:
    """The experiment of a config file, with changes of its fields and arguments of its `get_config`.

    `load("dmt.py", "seed=1", size="7b")` is `--config dmt.py:size=7b --config.seed=1`. The file is looked for as it is,
    then among the package's configs. Raises UserError.
    """
    named = ",".join(f"{name}={value}" for name, value in arguments.items())
    spec = f"{config}:{named}" if named else config
    return experiments.read([f"--config={spec}", *(f"--config.{change}" for change in changes)])


def train(experiment: Experiment, workdir: str) -> list[str]:
    """Trains an experiment's stages, and scores each if its config asks for it; what is done is not done again.

    → the stages' folders. Raises UserError, and `training.loop.Stopped` after SIGTERM or Ctrl-C once all is saved.
    """
    experiment = experiments.separated(experiment)  # numbers of numpy and paths, as a config file may have them
    experiment.check()
    _prepare()
    return [str(folder) for folder in runner.run(experiment, epath.Path(os.path.expanduser(workdir)))]


def evaluate(workdir: str, tasks: Sequence[str], *, stage: str = "all", **options: Any) -> list[dict[str, Any]]:
    """Scores stages of a workdir on tasks → the score.json of each stage and task.

    `options`: further options of `python -m sftmix_jax.evaluate`, as `limit=50`. Raises UserError.
    """
    asked = EvaluateOptions(workdir=os.path.expanduser(workdir), tasks=tuple(tasks), stage=stage, **options)
    ranges.check(asked, "evaluate")
    asked.check()
    _prepare()
    return measuring.score_stages(asked, asked.config())


class Sampler:
    """A model that answers: a stage of a workdir, a model folder or a hub id."""

    def __init__(self, model: str = "", *, workdir: str = "", stage: str = "all", **opening: Any):
        """`model` or `workdir`; `stage`: a name or id, by default the experiment's last.

        `opening`: `template`, `dtype` and `slots` as of `python -m sftmix_jax.sample`. Raises UserError.
        """
        if bool(model) == bool(workdir):
            raise UserError("Sampler: name one model to ask: a model folder or hub id, or workdir=DIR")
        how = Opening(**opening)
        ranges.check(how, "Sampler")
        _prepare()
        folder = one_stage(epath.Path(os.path.expanduser(workdir)), stage) if workdir else None
        self.model = open_stage(folder, how) if folder else open_model(model, how)

    def ask(self, prompts: Sequence[str], **sampling: Any) -> list[list[str]]:
        """The answers to each prompt, `num_samples` of them.

        `sampling`: `max_new_tokens`, `temperature`, `top_p`, `num_samples` and `seed`. Raises BadRow for a prompt with
        the chat template's markers.
        """
        how = SamplingConfig(**sampling)
        ranges.check(how, "ask")
        requests = [
            Request(
                tuple(self.model.chat.prompt([Message("user", prompt)])),
                how.max_new_tokens,
                how.temperature,
                how.top_p,
                how.seed,
                sample,
            )
            for prompt in prompts
            for sample in range(how.num_samples)
        ]
        texts = [response.text for response in self.model.sampler.generate(requests)]
        return [texts[i : i + how.num_samples] for i in range(0, len(texts), how.num_samples)]


def results(workdir: str) -> pd.DataFrame:
    """Every score of a workdir: a row per metric, task, stage and experiment, a column per label of its studies.

    Raises UserError.
    """
    import pandas as pd

    from sftmix_jax.analysis.results import flat, labelled

    folder = epath.Path(os.path.expanduser(workdir))
    if not (folder / "stages").is_dir():
        raise UserError(f"{workdir}: no workdir (it has no stages/); train there first")
    return pd.DataFrame([flat(result) for result in measuring.comparable_of(folder, labelled(folder))])


def _prepare() -> None:
    """What every command sets up before it computes. Raises UserError for one of several processes of a launcher."""
    place = processes.find_place(os.environ)
    if place is not None and place.count > 1:
        raise UserError(
            f"this is process {place.index} of {place.count} (JAX_COORDINATOR_ADDRESS is set), and a call from Python "
            "runs in one; train with several by python -m sftmix_jax.train"
        )
    host_memory.keep_freed()
    compilation.set_up()
