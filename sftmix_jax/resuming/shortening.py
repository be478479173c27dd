"""A shortened copy of an experiment: fewer steps of the same mixture, more checkpoints."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from sftmix_jax.experiment.config import Experiment
from sftmix_jax.experiment.stages import Resolved

_EVERY = 3  # steps between checkpoints, unless the experiment saves more often

_FILE = '''"""{spec}, shortened to compare runs that are killed and resumed. To train it by hand:

python -m sftmix_jax.train --config {file} --workdir DIR
"""

from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment.config import Experiment
from sftmix_jax.resuming.shortening import Length, shortened


def get_config() -> Experiment:
    config, _ = experiment.parse({arguments!r})
    return shortened(config, {lengths!r})
'''


@dataclasses.dataclass(frozen=True)
class Length:
    """How long a stage of a copy is: `steps` of the `whole`."""

    steps: int
    whole: int


def measure(experiment: Experiment, steps: int) -> dict[str, Length]:
    """The length of each stage in a copy of at most `steps` steps per stage. Raises UserError for what cannot be read.

    A copy packs the first rows of the experiment's order, as many as its steps hold. Packing places rows by their
    lengths among all that are packed together, so the batches of a longer plan hold these rows in other places.
    """
    resolved, lengths = Resolved(experiment), {}
    for each in resolved.chain():
        plan, _ = resolved.plan(each.stage)
        whole = each.stage.steps or plan.num_steps
        lengths[each.name] = Length(min(steps, whole), whole)
    return lengths


def shortened(experiment: Experiment, lengths: Mapping[str, Length]) -> Experiment:
    """The copy: same mixture, batch, mesh, model, optimizer and dtypes; every step logged, no evaluation or trackers.

    The learning rate schedule spans the shortened stage.
    """
    experiment = copy.deepcopy(experiment)
    for name, length in lengths.items():
        experiment.stages[name].steps = length.steps
    experiment.checkpoints.every = min(experiment.checkpoints.every, _EVERY)
    logging = experiment.logging
    logging.every, logging.batch_hashes, logging.tensorboard, logging.wandb = 1, True, False, ""
    if logging.validation_every:  # measured within stages too: once between checkpoints, once beside one
        logging.validation_every = 2
    experiment.evaluation.tasks = ()
    return experiment


def write(file: Path, arguments: Sequence[str], spec: str, lengths: Mapping[str, Length]) -> None:
    """A config file for the copy; `arguments` name the experiment as on the command line."""
    file.write_text(_FILE.format(spec=spec, file=file, arguments=list(arguments), lengths=dict(lengths)))
