"""What chips can do and cost: a small table to edit.

Memory and rates are of one chip. Those of the TPUs, the A100 of 80 GB, H100 and H200, and the rates of the L40S and
B200, are by the makers' pages in November 2026 (cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x;
nvidia.com/en-us/data-center/a100, h100, h200, hgx, l40s). Those of the RTX 4090, L4, A10G and A100 of 40 GB are as they
are commonly given; they were not compared with a page.

Rates are those of dense products. The links of a TPU are all of its links together, one way: a page that gives both
directions is halved. A GPU's links are NVLink, one way, or PCIe 4.0 x16 (32 GB/s) where it has none. A GPU's memory is
what its driver reports (nvidia-smi). Prices are on-demand list prices in dollars per chip-hour, and change: set your
own. Those of TPUs, the A100 of 80 GB, H100 and H200 are of November 2026, that of the A10G of June 2026 (AWS g5.xlarge,
us-east-1); the others are rough figures of 2025. The names that JAX has for TPUs are those of its own tables
(jax/_src/pallas/mosaic/tpu_info.py); GPUs have the names of their driver.
"""

from __future__ import annotations

import dataclasses
import re

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
    kind: str  # what JAX calls its devices, a regular expression
    devices: int = 1  # that JAX sees of it
    backend: str = "tpu"
    reserved: float = 0.5 * GIB  # bytes of a device that the runtime keeps for itself


_MIB = 2**20


def _gpu(memory: int, flops: float, bandwidth: float, links: float, price: float, kind: str) -> Chip:
    """`memory` in MiB. Of a GPU JAX takes nine tenths (launch/gpu.sh)."""
    kind = rf"NVIDIA (GeForce )?({kind})\b(?!.* MIG ).*"  # a part of a card has no price of its own
    return Chip(memory * _MIB, flops, bandwidth, links, price, kind, backend="gpu", reserved=memory * _MIB / 10)


CHIPS: dict[str, Chip] = {
    "v4": Chip(32 * GIB, 275e12, 1.228e12, 300e9, 3.22, "TPU v4", reserved=1.25 * GIB),
    "v5e": Chip(16 * GIB, 197e12, 0.819e12, 200e9, 1.20, "TPU v5( lite|e)"),
    "v5p": Chip(95 * GIB, 459e12, 2.765e12, 600e9, 4.20, "TPU v5p?"),
    "v6e": Chip(32 * GIB, 918e12, 1.600e12, 400e9, 2.70, "TPU v6( lite|e)"),
    "tpu7x": Chip(192 * GIB, 2307e12, 7.380e12, 600e9, 12.00, "TPU7x", devices=2),
    "rtx4090": _gpu(24_564, 165e12, 1.008e12, 32e9, 0.69, "RTX 4090(?! D)"),
    "l4": _gpu(23_034, 121e12, 0.300e12, 32e9, 0.80, "L4"),
    "a10g": _gpu(23_028, 70e12, 0.600e12, 32e9, 1.01, "A10G"),
    "l40s": _gpu(46_068, 362e12, 0.864e12, 32e9, 1.86, "L40S"),
    "a100-40gb": _gpu(40_960, 312e12, 1.555e12, 300e9, 2.75, "A100.*40GB"),
    "a100": _gpu(81_920, 312e12, 2.039e12, 300e9, 3.00, "A100.*80GB"),
    "h100": _gpu(81_559, 989e12, 3.350e12, 450e9, 5.00, "H100"),
    "h200": _gpu(143_771, 989e12, 4.800e12, 450e9, 6.00, "H200"),
    "b200": _gpu(183_359, 2250e12, 8.000e12, 900e9, 14.24, "B200"),
}


def find_chip(name: str) -> Chip:
    """Raises UserError for an unknown one."""
    if name not in CHIPS:
        raise UserError(f"no chip '{name}' in planning/chips.py; {did_you_mean(name, CHIPS)}")
    return CHIPS[name]


def price_of(device_kind: str) -> float | None:
    """Dollars per hour of a device as JAX names it; None for one that the table does not have."""
    for chip in CHIPS.values():
        if re.fullmatch(chip.kind, device_kind):
            return chip.price / chip.devices
    return None


def usable(chip: Chip) -> float:
    """Bytes of one device that a program can have."""
    return chip.memory / chip.devices - chip.reserved
