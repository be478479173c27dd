"""Training steps."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.gpu.measuring import Line, peak, seconds
from benchmarks.gpu.sizes import MEAN_LENGTH, Size, packed_rows
from sftmix_jax.models import decoder, families, kernels
from sftmix_jax.models.architecture import Architecture, adapted
from sftmix_jax.models.compute import Compute
from sftmix_jax.models.decoder import Params
from sftmix_jax.models.lora import LoraConfig
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.planning import flops
from sftmix_jax.training import precision, trainable
from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer
from sftmix_jax.training.step import TrainState, make_trainer


@dataclasses.dataclass(frozen=True)
class Steps:
    """A trainer as `train` makes it, on packed rows: `step` runs one and gives what it measured."""

    config: Architecture
    trained: int  # parameters
    kernel: str
    batch: dict[str, np.ndarray]
    step: Callable[[], Any]


def training(size: Size, name: str, state: str, remat: str, kernel: str, rows: int, rank: int = 0) -> Line:
    """Tokens per second of training steps; of LoRA at a rank above 0, beside frozen weights in the compute dtype."""
    steps = _steps(size, name, state, remat, kernel, rows, rank)
    tokens = int((steps.batch["segment_ids"] > 0).sum())
    compiled, taken = seconds(steps.step)
    c, products = steps.config, 4 if rank else 6  # of a frozen head no gradient is made
    head = products * c.vocab_size * c.hidden_size * (1 - steps.batch["loss_weights"].sum() / tokens)
    counted = flops.training_per_token(c, MEAN_LENGTH, steps.trained if rank else None) - head
    return {
        "tokens": tokens / taken,
        "flops": tokens / taken * counted,
        "peak": peak(),
        "note": f"{steps.kernel}, first step {compiled:.0f} s",
    }


def profile(size: Size, name: str, kernel: str, rows: int, folder: str) -> Line:
    """A trace of one training step, to be opened with XProf or Perfetto, and what took longest in it."""
    steps = _steps(size, name, "float32", "none", kernel, rows)
    jax.block_until_ready(steps.step())
    with jax.profiler.trace(folder):
        jax.block_until_ready(steps.step())
    traces = sorted(Path(folder).rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    size_of = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return {"text": f"{traces[-1]}, {size_of / 2**20:.1f} MiB in all; {_longest(traces[-1])}"}


def _longest(trace: Path) -> str:
    """The three kernels, or operations of a CPU, that took longest."""
    took: Counter[str] = Counter()
    planes = list(jax.profiler.ProfileData.from_file(str(trace)).planes)
    for plane in [each for each in planes if "GPU" in each.name] or planes:
        for line in plane.lines:
            if line.name.startswith(("Stream", "tf_XLA")):
                for event in line.events:
                    took[event.name] += event.duration_ns
    return "longest: " + ", ".join(f"{name[:32]} {ns / 1e6:.2f} ms" for name, ns in took.most_common(3))


def _steps(size: Size, name: str, state: str, remat: str, kernel: str, rows: int, rank: int = 0) -> Steps:
    mesh, kept = sharding.make_mesh(MeshConfig(), jax.devices()[:1]), precision.find(state)
    c = adapted(families.preset(name), LoraConfig(rank).adapters)
    tuned = trainable.find(c, ())
    sizes = (c.num_heads, c.num_kv_heads, c.head_dim, size.length, decoder.scores(c, c.pattern[0]))
    chosen = next(each for each in kernels.candidates(kernel) if not kernels.probe(each, mesh, size.dtype, *sizes))
    compute = Compute(size.dtype, remat, chosen)
    optimizer = make_optimizer(OptimizerConfig())
    trainer = make_trainer(
        c, compute, optimizer, mesh, domains=1, grad_accum_steps=1, kept=kept, trainable=tuned, frozen_dtype=size.dtype
    )

    def fresh() -> tuple[Params, Params | None]:
        trained, frozen = tuned.split(decoder.init(c, compute, 0))
        return precision.cast(trained, kept.params), frozen and precision.cast(frozen, size.dtype)

    params, frozen = jax.jit(fresh)()
    held = TrainState(params, trainer.init_optimizer(params), frozen)
    batch = packed_rows(size, rows, c.vocab_size)
    on_device = sharding.put_batch(mesh, batch, rows)

    def step() -> Any:
        nonlocal held
        held, measured = trainer.train_step(held, on_device, np.float32(1e-5))
        return measured

    return Steps(c, sum(x.size for x in jax.tree.leaves(params)), chosen, batch, step)
