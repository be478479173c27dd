"""What chips can do and cost: a small table to edit.

Memory and rates are the makers' published ones, of one chip; prices are on-demand list prices in dollars a
chip-hour as they stood when this was written, and change: set your own.
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.errors import UserError, did_you_mean

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    memory: float  # bytes
    flops: float  # bfloat16, a second
    bandwidth: float  # of the memory, bytes a second
    links: float  # to the other chips of a slice, bytes a second, all links together, one way
    price: float  # dollars an hour
    devices: int = 1  # that JAX sees of it
    backend: str = "tpu"
    reserved: float = 0.5 * GIB  # bytes of a device that the runtime keeps for itself


CHIPS: dict[str, Chip] = {
    "v4": Chip(32 * GIB, 275e12, 1.228e12, 300e9, 3.22),
    "v5e": Chip(16 * GIB, 197e12, 0.819e12, 200e9, 1.20),
    "v5p": Chip(95 * GIB, 459e12, 2.765e12, 600e9, 4.20),
    "v6e": Chip(32 * GIB, 918e12, 1.640e12, 448e9, 2.70),
    "tpu7x": Chip(192 * GIB, 2307e12, 7.380e12, 1200e9, 12.00, devices=2),
    # Of a GPU JAX takes nine tenths (launch/gpu.sh).
    "a100": Chip(80e9, 312e12, 2.039e12, 300e9, 3.00, backend="gpu", reserved=8e9),
    "h100": Chip(80e9, 989e12, 3.350e12, 450e9, 5.00, backend="gpu", reserved=8e9),
    "h200": Chip(141e9, 989e12, 4.800e12, 450e9, 6.00, backend="gpu", reserved=14e9),
}


def find_chip(name: str) -> Chip:
    """Raises UserError for an unknown one."""
    if name not in CHIPS:
        raise UserError(f"no chip '{name}' in planning/chips.py; {did_you_mean(name, CHIPS)}")
    return CHIPS[name]


def usable(chip: Chip) -> float:
    """Bytes of one device that a program can have."""
    return chip.memory / chip.devices - chip.reserved
