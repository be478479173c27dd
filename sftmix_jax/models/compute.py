"""How a model is run: dtype, what the backward pass keeps, attention kernel. None of it changes what the model is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from sftmix_jax.machine import ranges
from sftmix_jax.machine.ranges import Choice, setting
from sftmix_jax.models import kernels, table
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.models.dtypes import COMPUTE_DTYPES

# What the backward pass may keep of a layer's forward pass, by name.
REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
    # full, with what enters a layer kept in the host's memory: for rows so long that it would not fit
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["layer input"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


@dataclasses.dataclass(frozen=True)
class Compute:
    """ComputeConfig with every choice made."""

    dtype: str
    remat: str
    attention: str = "plain"


@dataclasses.dataclass
class ComputeConfig:
    """How the model is run; none of it changes what it is."""

    dtype: str = setting(
        "auto",
        Choice(COMPUTE_DTYPES),
        "of activations and matrix products; auto: bfloat16 on TPU and GPU, float32 on CPU, whose bfloat16 is slower",
    )
    remat: str = setting(
        "auto", Choice(("auto", *REMAT)), "rematerialisation; auto: full from a billion parameters on, else none"
    )
    attention: str = setting(
        "auto",
        Choice(("auto", *kernels.NAMES)),
        "kernel in training: plain, splash (TPU), mosaic, cudnn or triton (GPU); auto: the backend's first that agrees "
        "with the plain path",
    )

    def resolved(self, config: Architecture, backend: str) -> Compute:
        """The same with every `auto` decided: the one place where that happens. Raises UserError."""
        ranges.check(self, "model.compute")
        dtype = self.dtype if self.dtype != "auto" else "float32" if backend == "cpu" else "bfloat16"
        remat = self.remat if self.remat != "auto" else "full" if table.num_params(config) > 1e9 else "none"
        kernel = self.attention if self.attention != "auto" else kernels.BY_BACKEND.get(backend, ("plain",))[0]
        return Compute(dtype, remat, kernel)
