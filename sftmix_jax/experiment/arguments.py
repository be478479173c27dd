"""The option of an experiment's config, which verbs declare without importing what configs are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sftmix_jax.machine import options

if TYPE_CHECKING:
    from sftmix_jax.experiment.config import Experiment


def read(arguments: options.Arguments) -> Experiment:
    """The checked experiment of `--config=FILE[:ARGUMENTS]` and `--config.FIELD=VALUE`. Raises UserError."""
    from sftmix_jax.experiment import config

    return config.read(arguments)


# The metadata of a field of a verb's Options that collects --config and --config.FIELD.
CONFIG = options.config_file(
    read,
    "the experiment: FILE.py[:NAME=VALUE,…]; --config.FIELD=VALUE sets a field; --help --config FILE.py lists the "
    "fields",
)
