"""How fast a training step could be at best, and about what it needs, by arithmetic: what a search sorts by.

A step takes at least as long as its operations at the chip's peak, as its bytes at the memory's bandwidth, and as what
it sends at the links'; these overlap, so the longest counts (Williams et al., 2009). The sums of tensor parallelism
do not: every product waits for the one before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from sftmix_jax.experiment.tuning import Tuning
from sftmix_jax.models import quantized, table
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.parallel import sharding
from sftmix_jax.planning import chips, flops
from sftmix_jax.planning.chips import Chip

_COMPUTE = 2  # bytes of a bfloat16 number
_STATE = 12  # of a parameter and its two moments in float32


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a step is laid out."""

    data: int
    fsdp: int
    tensor: int
    grad_accum_steps: int
    remat: str

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.tensor


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds a step at the chip's limits, and bytes a device."""

    compute: float
    memory: float
    links: float
    waiting: float  # for sums over the tensor axis
    needed: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.memory, self.links) + self.waiting

    @property
    def bound(self) -> str:
        """What the step waits for."""
        return max(("compute", "memory", "links"), key=lambda name: getattr(self, name))


def choices(config: Architecture, devices: int, rows: int) -> Iterator[Choice]:
    """Every layout of the rows over so many devices that divides heads and widths."""
    for tensor in _divisors(devices):
        if tensor > sharding.MOST_TENSOR or config.num_kv_heads % tensor or config.intermediate_size % tensor:
            continue
        for fsdp in _divisors(devices // tensor):
            data = devices // tensor // fsdp
            if rows % (data * fsdp) or config.hidden_size % fsdp:
                continue
            for grad_accum_steps in _divisors(rows // (data * fsdp)):
                for remat in ("none", "dots", "full"):
                    yield Choice(data, fsdp, tensor, grad_accum_steps, remat)


def estimate(how: Tuning, chip: Chip, choice: Choice, rows: int, length: int) -> Estimate:
    """A step of rows × length in bfloat16 with float32 state."""
    config, c, per_chip = how.base, choice, 1 / chip.devices
    tokens = rows * length / (c.data * c.fsdp)  # of a device's part
    microbatch = tokens / c.grad_accum_steps
    split = c.fsdp * c.tensor
    L, D, F = config.num_layers, config.hidden_size, config.intermediate_size
    heads = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim

    forward = flops.forward_per_token(config, length) / c.tensor
    again = {"none": 0.0, "dots": 0.05, "full": 1.0}[c.remat]  # of the forward pass: dots keeps all but attention
    learns = how.num_trained(multiplied=True) / table.matmul_params(config)  # a frozen weight has no gradient
    operations = tokens * forward * (2 + learns + again)

    passes = 3 + (c.remat == "full")  # that read the weights: forward, backward by both operands, and again
    params = table.num_params(config)
    weights = params * _COMPUTE / c.tensor
    activations = tokens * L * (12 * D + 2 * heads / c.tensor + 5 * F / c.tensor) * _COMPUTE * (passes - 1)
    trained = how.num_trained()
    update = trained / split * (2 * _STATE + 8)
    read = c.grad_accum_steps * weights * passes + activations + update

    ring = (c.fsdp - 1) / c.fsdp
    sharded = c.grad_accum_steps * weights * ring * (2 + learns)  # gathered forward and backward, gradients reduced
    sums = 4 + 2 * (c.remat == "full")  # over the tensor axis, a layer, of activations; each twice around the ring
    tensor = tokens * L * D * _COMPUTE * sums * 2 * (c.tensor - 1) / c.tensor
    replicas = c.grad_accum_steps * trained / split * _COMPUTE * 2 * (c.data - 1) / c.data

    kept = {
        "none": 14 * D + 2 * heads / c.tensor + 4 * F / c.tensor,
        "dots": 4 * D + heads / c.tensor + 2 * F / c.tensor,
        "full": D,
    }[c.remat]
    layer = params / L * _COMPUTE / c.tensor
    needed = (
        trained / split * (_STATE + 4 + _COMPUTE)  # state, gradients, and the weights as they are multiplied
        + (0 if how.is_full else params / split * quantized.bytes_per_weight(how.frozen_dtype))
        + microbatch * L * kept * _COMPUTE
        + 3 * layer
        + 2**30  # logits, and what is worked on
    )
    links = chip.links * per_chip
    return Estimate(
        operations / (chip.flops * per_chip),
        read / (chip.bandwidth * per_chip),
        (sharded + replicas) / links,
        tensor / links,
        needed,
    )


def promising(how: Tuning, chip: Chip, devices: int, rows: int, length: int) -> list[tuple[Choice, Estimate]]:
    """Choices that could fit, the fastest-looking first."""
    found = [(choice, estimate(how, chip, choice, rows, length)) for choice in choices(how.base, devices, rows)]
    # The arithmetic is rough: what is a fifth too large for it may still fit.
    possible = [each for each in found if each[1].needed <= 1.2 * chips.usable(chip)]
    return sorted(possible, key=lambda each: (round(each[1].seconds, 4), each[1].links + each[1].memory))


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
