"""A shortened copy of an experiment: fewer steps of the same batches, more checkpoints."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from sftmix_jax.experiment import Experiment
from sftmix_jax.stages import Resolved

_EVERY = 3  # steps between checkpoints, unless the experiment saves more often

_FILE = '''"""{spec}, shortened to compare runs that are killed and resumed. To train it by hand:

python -m sftmix_jax.train --config {file} --workdir DIR
"""

from sftmix_jax import experiment
from sftmix_jax.experiment import Experiment
from sftmix_jax.resuming.shortening import Length, shortened


def get_config() -> Experiment:
    config, _ = experiment.parse({arguments!r})
    return shortened(config, {lengths!r})
'''


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a stage is: `steps` of the `whole`, drawn from the data of `budget` tokens where shares are weights."""

    steps: int
    whole: int
    budget: int  # 0: the stage has its own, or takes its shares by rows


def measure(experiment: Experiment, steps: int) -> dict[str, Length]:
    """The length of each stage in a copy of at most `steps` steps per stage. Raises UserError for what cannot be read.

    A copy never goes further through its data than the experiment does: its batches are the experiment's first ones.
    """
    resolved, lengths = Resolved(experiment), {}
    for each in resolved.chain():
        plan, _ = resolved.plan(each.stage)
        whole = each.stage.steps or plan.num_steps
        by_weight = any(share.weight is not None for share in each.stage.mixture.values())
        # Without a budget of its own, a stage by weight draws as much as its steps hold.
        budget = whole * each.stage.batch.rows * each.stage.batch.length if by_weight and not each.stage.budget else 0
        lengths[each.name] = Length(min(steps, whole), whole, budget)
    return lengths


def shortened(experiment: Experiment, lengths: Mapping[str, Length]) -> Experiment:
    """The copy: same data plan, batch, mesh, model, optimizer and dtypes; every step logged, no evaluation or trackers.

    The learning rate schedule spans the shortened stage.
    """
    experiment = copy.deepcopy(experiment)
    for name, length in lengths.items():
        stage = experiment.stages[name]
        stage.steps = length.steps
        if length.budget:
            stage.budget, stage.unit = length.budget, "tokens"
    experiment.checkpoints.every = min(experiment.checkpoints.every, _EVERY)
    logging = experiment.logging
    logging.every, logging.batch_hashes, logging.tensorboard, logging.wandb = 1, True, False, ""
    if logging.held_out_every:  # measured within stages too: once between checkpoints, once beside one
        logging.held_out_every = 2
    experiment.evaluation.tasks = ()
    return experiment


def write(file: Path, arguments: Sequence[str], spec: str, lengths: Mapping[str, Length]) -> None:
    """A config file for the copy; `arguments` name the experiment as on the command line."""
    file.write_text(_FILE.format(spec=spec, file=file, arguments=list(arguments), lengths=dict(lengths)))
