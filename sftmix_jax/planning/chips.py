"""What chips can do and cost: a small table to edit.

Memory and rates are of one chip. Those of the TPUs, the A100 of 80 GB, H100 and H200, and the rates of the L40S and
B200, are by the makers' pages in November 2026 (cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x;
nvidia.com/en-us/data-center/a100, h100, h200, hgx, l40s). Those of the RTX 4090, L4, A10G and A100 of 40 GB are as they
are commonly given; they were not compared with a page.

Rates are those of dense products. The links of a TPU are all of its links together, one way: a page that gives both
directions is halved. A GPU's links are NVLink, one way, or PCIe 4.0 x16 (32 GB/s) where it has none. A GPU's memory is
what its driver reports (nvidia-smi). Prices are on-demand list prices in dollars per chip-hour, and change: set your
own. Those of TPUs, the A100 of 80 GB, H100 and H200 are of November 2026, that of the A10G of June 2026 (AWS g5.xlarge,
us-east-1); the others are rough figures of 2025.
"""

from __future__ import annotations

import dataclasses

from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.ranges import Number

GIB = 2**30
UTILISATION = Number(above=0, at_most=1)  # of a chip's peak FLOP/s


@dataclasses.dataclass(frozen=True)
class Chip:
    memory: float  # bytes
    flops: float  # bfloat16, per second
    bandwidth: float  # of the memory, bytes per second
    links: float  # to the other chips of a slice, bytes per second, all links together, one way
    price: float  # dollars per hour
    devices: int = 1  # that JAX sees of it
    backend: str = "tpu"
    reserved: float = 0.5 * GIB  # bytes of a device that the runtime keeps for itself


_MIB = 2**20


def _gpu(memory: int, flops: float, bandwidth: float, links: float, price: float) -> Chip:
    """`memory` in MiB. Of a GPU JAX takes nine tenths (launch/gpu.sh)."""
    return Chip(memory * _MIB, flops, bandwidth, links, price, backend="gpu", reserved=memory * _MIB / 10)


CHIPS: dict[str, Chip] = {
    "v4": Chip(32 * GIB, 275e12, 1.228e12, 300e9, 3.22, reserved=1.25 * GIB),
    "v5e": Chip(16 * GIB, 197e12, 0.819e12, 200e9, 1.20),
    "v5p": Chip(95 * GIB, 459e12, 2.765e12, 600e9, 4.20),
    "v6e": Chip(32 * GIB, 918e12, 1.600e12, 400e9, 2.70),
    "tpu7x": Chip(192 * GIB, 2307e12, 7.380e12, 600e9, 12.00, devices=2),
    "rtx4090": _gpu(24_564, 165e12, 1.008e12, 32e9, 0.69),
    "l4": _gpu(23_034, 121e12, 0.300e12, 32e9, 0.80),
    "a10g": _gpu(23_028, 70e12, 0.600e12, 32e9, 1.01),
    "l40s": _gpu(46_068, 362e12, 0.864e12, 32e9, 1.86),
    "a100-40gb": _gpu(40_960, 312e12, 1.555e12, 300e9, 2.75),
    "a100": _gpu(81_920, 312e12, 2.039e12, 300e9, 3.00),
    "h100": _gpu(81_559, 989e12, 3.350e12, 450e9, 5.00),
    "h200": _gpu(143_771, 989e12, 4.800e12, 450e9, 6.00),
    "b200": _gpu(183_359, 2250e12, 8.000e12, 900e9, 14.24),
}


def find_chip(name: str) -> Chip:
    """Raises UserError for an unknown one."""
    if name not in CHIPS:
        raise UserError(f"no chip '{name}' in planning/chips.py; {did_you_mean(name, CHIPS)}")
    return CHIPS[name]


def usable(chip: Chip) -> float:
    """Bytes of one device that a program can have."""
    return chip.memory / chip.devices - chip.reserved
