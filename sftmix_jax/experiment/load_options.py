"""How a model is loaded to be asked."""

from __future__ import annotations

import dataclasses

from sftmix_jax.machine.ranges import Choice, Integer, Text, setting
from sftmix_jax.models.dtypes import COMPUTE_DTYPES


@dataclasses.dataclass(frozen=True)
class Opening:
    """What a command line can say about how to open a model."""

    template: str = setting(
        "",
        Text(),
        "chat template; by default that of the stage, and for a model folder its own if it has one, else vicuna_v1.1",
    )
    dtype: str = setting("auto", Choice(COMPUTE_DTYPES), "of the computation; auto: bfloat16 but on CPUs")
    slots: int = setting(32, Integer(at_least=1), "prompts that are answered at the same time")
