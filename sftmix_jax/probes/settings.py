"""What is looked at inside a stage."""

from __future__ import annotations

import dataclasses

from sftmix_jax.machine.ranges import Integer, setting


@dataclasses.dataclass
class ProbeConfig:
    """How many queries and batches a probe takes, and after which layer it looks."""

    queries: int = setting(100, Integer(at_least=1), "queries per domain")
    layer: int = setting(0, Integer(at_least=0), "the layer whose states are compared; 0: the middle one")
    batches: int = setting(4, Integer(at_least=1), "batches per domain for its gradient")
