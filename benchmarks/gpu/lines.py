"""The lines of the table, the most telling first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from benchmarks.gpu.attention import attention
from benchmarks.gpu.generation import decoding, sampling
from benchmarks.gpu.measuring import Line
from benchmarks.gpu.sizes import RANK, Size
from benchmarks.gpu.theirs import torch_generation, torch_training, trl_training
from benchmarks.gpu.training import profile, training


@dataclasses.dataclass(frozen=True)
class Entry:
    name: str
    measure: Callable[[], Line]
    expected: tuple[float, float] = (0, 0)  # tokens/s of the full sizes on an H100, from and to
    waits_for_memory: bool = False
    measured: str = ""  # what one H100 gave, where no tokens are counted
    needs: float = 0  # bytes, of the full sizes

    def expected_on(self, card: str) -> str:
        """The estimate for a card, if there is one."""
        if not ("H100" in card or "H200" in card):
            return ""
        if not self.expected[1]:
            return self.measured
        faster = 4.80 / 3.35 if "H200" in card and self.waits_for_memory else 1  # TB/s of their memories
        return "–".join(f"{round(rate * faster, 2 - len(str(int(rate)))):,.0f}" for rate in self.expected)


# Forward, and with backward, of 4 rows of 2,048 tokens and 32 heads of 128 (docs/gpu.md).
_ATTENTION = {
    "mosaic": "0.35 and 1.37 ms",
    "cudnn": "0.46 and 2.53 ms",
    "triton": "0.74 and 2.41 ms",
    "plain": "3.16 and 6.71 ms",
}


def entries(size: Size, kernels: tuple[str, ...], folder: str) -> list[Entry]:
    """Every line, the most telling first."""
    own, one, many = kernels[0], *size.batches
    train_small = partial(training, size, size.small)
    train_large = partial(training, size, size.large)
    train_adapters = partial(training, size, size.adapted, "float32", "full", own, 4, RANK)
    theirs_adapters = partial(trl_training, size, size.adapted, True, 4, RANK)
    small, large = size.small, size.large
    return [
        Entry(f"{small} float32, remat full, 8 rows", partial(train_small, "float32", "full", own, 8), (30e3, 45e3)),
        Entry(f"{large} bfloat16, remat full, 4 rows", partial(train_large, "bfloat16", "full", own, 4), (7000, 9500)),
        Entry(f"{large} decode, batch {one}", partial(decoding, size, one), (130, 180), True),
        Entry(f"{large} decode, batch {many}", partial(decoding, size, many), (2500, 4500), True),
        Entry(f"{large} Sampler, {many} slots", partial(sampling, size, 2 * many, many, 128)),
        Entry(f"  transformers {large}, 4 rows", partial(torch_training, size, large, True, 4)),
        Entry(f"  TRL {large}, packed, 4 rows", partial(trl_training, size, large, True, 4)),
        Entry(f"{size.adapted} LoRA, remat full, 4 rows", train_adapters),
        Entry(f"  TRL, PEFT {size.adapted}, 4 rows", theirs_adapters),
        Entry(f"  transformers decode, batch {one}", partial(torch_generation, size, one)),
        Entry(f"  transformers decode, batch {many}", partial(torch_generation, size, many)),
        Entry(f"{small} float32, remat none, 8 rows", partial(train_small, "float32", "none", own, 8)),
        Entry(f"  transformers {small}, 8 rows", partial(torch_training, size, small, False, 8)),
        Entry(f"  TRL {small}, packed, 8 rows", partial(trl_training, size, small, False, 8)),
        Entry(f"{small}, profile of a step", partial(profile, size, small, own, 8, folder)),
        Entry(f"{large} bfloat16, remat dots, 4 rows", partial(train_large, "bfloat16", "dots", own, 4)),
        Entry(f"{large} bfloat16, remat full, 8 rows", partial(train_large, "bfloat16", "full", own, 8)),
        Entry(f"{small} float32, remat full, plain", partial(train_small, "float32", "full", "plain", 8)),
        Entry(
            f"{large} bfloat16_moments, remat full",
            partial(train_large, "bfloat16_moments", "full", own, 4),
            needs=12 * 6.74e9 + 4 * 2**30,  # parameters, moments, gradients, a copy to multiply with; activations
        ),
        *(
            Entry(
                f"attention {kernel} {n}/{k} heads of {h}",
                partial(attention, size, kernel, (n, k, h)),
                measured=_ATTENTION[kernel] if (n, k, h) == (32, 32, 128) else "",
            )
            for n, k, h in size.heads
            for kernel in kernels
        ),
    ]
