"""The process counts that a check compares, all with the same number of devices."""

from __future__ import annotations

import math
import os

from sftmix_jax.data import loader
from sftmix_jax.experiment.config import Experiment
from sftmix_jax.machine import host_memory
from sftmix_jax.machine.errors import UserError
from sftmix_jax.resuming.runs import Layout, cpu_devices


def find_layouts(processes: str, config: Experiment) -> list[Layout]:
    """The process counts asked for, all with the same number of devices. Raises UserError."""
    counts = processes.split(",")
    if not all(count.isdecimal() and int(count) > 0 for count in counts):
        raise UserError(f"--processes {processes}: give numbers of processes from 1 on, as in --processes 1,2")
    if len(set(map(int, counts))) < len(counts):
        raise UserError(f"--processes {processes}: give each number of processes once, as in --processes 1,2")
    numbers = [int(count) for count in counts]
    if numbers == [1]:
        return [Layout(1)]
    if host_memory.has_accelerator() and os.environ.get("JAX_PLATFORMS") != "cpu":
        raise UserError(
            f"--processes {processes}: several processes on one machine are tried on CPU devices only. Set "
            "JAX_PLATFORMS=cpu, or leave --processes out to check one process on the accelerator"
        )
    for name, stage in config.stages.items():
        for count in numbers:
            try:
                loader.process_part(stage.batch.batch_size, 0, count)
            except UserError as error:
                raise UserError(f"--processes {processes}: config.stages.{name}: {error}") from None
    # The same mesh for all: sums over devices are then taken alike, and the results are equal bit for bit.
    devices = math.lcm(cpu_devices(os.environ), *numbers)
    return [Layout(count, devices // count) for count in numbers]
