"""Training and generation of a LLaMA on one GPU, against what the GPU can do and against transformers with torch.

python benchmarks/gpu.py              # 7B, random weights, on the GPU that jax finds; nothing from a network
python benchmarks/gpu.py --tiny       # the bundled model's size, on a CPU: only to see that all of it runs

Training: rows of 2,048 tokens packed with documents as long as those of GSM8K, code and conversation (188 tokens on
average), half of their tokens trained on. Its rate in FLOP/s counts each product once (none that remat does again, and
the head for trained tokens alone), as a part of what one large matrix product reaches in this run. Generation: the
decode loop with every row at a length of 512, as a part of the time in which this run's memory bandwidth reads the
weights and the cache. Every line is a process of its own; what does not fit is said.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import multiprocessing
import queue
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sftmix_jax.data import packing
from sftmix_jax.data.loader import DTYPES
from sftmix_jax.models import llama
from sftmix_jax.models.llama import Compute, LlamaConfig
from sftmix_jax.planning import flops

MEAN_LENGTH, TRAINED_SHARE = 188, 0.5
SECONDS = 480  # in all; what was not reached by then is said
Line = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Size:
    config: LlamaConfig
    dtype: str
    rows: int
    length: int
    product: int  # side of the square matrices that the rate is measured with
    place: int  # tokens that each row has before decoding
    batches: tuple[int, ...]


SEVEN = Size(llama.preset("7b"), "bfloat16", 4, 2048, 8192, 512, (1, 64, 256))
TINY = Size(llama.preset("tiny"), "float32", 4, 256, 1024, 64, (1, 8))


def packed_rows(size: Size) -> dict[str, np.ndarray]:
    """A batch of random tokens in documents of real lengths."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(MEAN_LENGTH) - 0.32, 0.8, 64 * size.rows), 8, size.length).astype(np.int64)
    plan = packing.pack(lengths, size.length, "best_fit", 0)
    batch = {key: np.zeros((size.rows, size.length), dtype) for key, dtype in DTYPES.items()}
    for row in range(size.rows):
        at = 0
        for document, member in enumerate(plan.members[plan.starts[row] : plan.starts[row + 1]], 1):
            n = int(lengths[member])
            own = slice(at, at + n)
            batch["segment_ids"][row, own], batch["positions"][row, own] = document, np.arange(n)
            batch["loss_weights"][row, at + int(n * (1 - TRAINED_SHARE)) : at + n] = 1
            at += n
    for key in ("tokens", "targets"):
        batch[key] = rng.integers(0, size.config.vocab_size, batch[key].shape).astype(np.int32)
    return batch


def seconds(run: Callable[[], Any], rounds: int = 3) -> float:
    """The median of some rounds, one before them left out."""
    import jax

    taken = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken[1:]))


def limits(size: Size) -> Line:
    """FLOP/s of a large matrix product and bytes a second of a copy."""
    import jax
    import jax.numpy as jnp

    side = size.product
    a = jnp.ones((side, side), size.dtype)
    product = jax.jit(lambda a: a @ a)
    copied = jnp.ones(side * side * 4, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    return {
        "flops": 2 * side**3 / seconds(lambda: product(a), 9),
        "bandwidth": 2 * copied.nbytes / seconds(lambda: copy(copied), 9),
    }


def training(size: Size, state: str, remat: str, attention: str) -> Line:
    import jax

    from sftmix_jax import sharding
    from sftmix_jax.models import kernels
    from sftmix_jax.sharding import MeshConfig
    from sftmix_jax.training import precision
    from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer
    from sftmix_jax.training.step import TrainState, make_trainer

    mesh, kept = sharding.make_mesh(MeshConfig(), jax.devices()[:1]), precision.find(state)
    c = size.config
    if wrong := kernels.probe(attention, mesh, size.dtype, c.num_heads, c.num_kv_heads, c.head_dim):
        raise RuntimeError(f"attention kernel {wrong}")
    compute = Compute(size.dtype, remat, attention)
    trainer = make_trainer(
        size.config, compute, make_optimizer(OptimizerConfig()), mesh, domains=1, accumulation=1, kept=kept
    )
    params = jax.jit(lambda: precision.cast(llama.init(size.config, compute, 0), kept.params))()
    held = TrainState(params, trainer.init_optimizer(params))
    batch = packed_rows(size)
    on_device = sharding.put_batch(mesh, batch, size.rows)

    def step() -> Any:
        nonlocal held
        held, measured = trainer.train_step(held, on_device, np.float32(1e-5))
        return measured

    tokens = int((batch["segment_ids"] > 0).sum())
    rate = tokens / seconds(step)
    head = 6 * size.config.vocab_size * size.config.hidden_size
    counted = flops.training_per_token(size.config, MEAN_LENGTH) - head * (1 - batch["loss_weights"].sum() / tokens)
    return {"tokens": rate, "flops": rate * counted, "peak": _peak()}


def generation(size: Size, batch: int) -> Line:
    import jax

    from sftmix_jax import sharding
    from sftmix_jax.models import cache as caches
    from sftmix_jax.sampling import decode
    from sftmix_jax.sampling.decode import Slots
    from sftmix_jax.sampling.methods import Method
    from sftmix_jax.sharding import MeshConfig
    from sftmix_jax.training import precision

    mesh, compute, steps = sharding.make_mesh(MeshConfig(), jax.devices()[:1]), Compute(size.dtype, "none"), 32
    params = jax.jit(lambda: precision.cast(llama.init(size.config, compute, 0), size.dtype))()
    span = size.place + 4 * steps
    cache = caches.empty(size.config, batch, span, size.dtype)
    rows = Slots.empty(batch)._replace(
        length=np.full(batch, size.place, np.int32), left=np.full(batch, 10_000, np.int32), active=np.ones(batch, bool)
    )

    def run() -> Any:
        nonlocal cache
        cache, _, produced = decode.decode(
            size.config, compute, mesh, params, Method.GREEDY, cache, rows, np.array([-1], np.int32), np.int32(0),
            steps=steps, span=span,
        )  # fmt: skip
        return produced

    taken = seconds(run)
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    read = weights + (cache.k.nbytes + cache.v.nbytes) * (size.place + steps / 2) / span
    return {"tokens": batch * steps / taken, "bytes": read * steps / taken, "peak": _peak()}


def _peak() -> float:
    import jax

    return float((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


def _torch_model(size: Size) -> Any:
    import torch
    import transformers

    from sftmix_jax.models import hf_config

    device = "cuda" if torch.cuda.is_available() else "cpu"
    special = hf_config.Special(1, hf_config.Ends((2,)))
    config = transformers.LlamaConfig(**hf_config.fields(size.config, special, size.dtype))
    with torch.device(device):
        return transformers.LlamaForCausalLM(config).to(getattr(torch, size.dtype)), device


def torch_training(size: Size, checkpointing: bool) -> Line:
    """The same rows with weights and AdamW in the compute dtype, documents told apart by nothing (its fastest way)."""
    import torch

    model, device = _torch_model(size)
    if checkpointing:
        model.gradient_checkpointing_enable()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device == "cuda")
    batch = packed_rows(size)
    labels = np.where(batch["loss_weights"] == 1, batch["tokens"], -100).astype(np.int64)
    inputs = {"input_ids": batch["tokens"].astype(np.int64), "labels": labels}
    on_device = {key: torch.from_numpy(value).to(device) for key, value in inputs.items()}

    def step() -> None:
        model(**on_device).loss.backward()
        adamw.step()
        adamw.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    model.train()
    rate = int((batch["segment_ids"] > 0).sum()) / seconds(step)
    return {"tokens": rate, "peak": torch.cuda.max_memory_allocated() if device == "cuda" else 0}


def torch_generation(size: Size, batch: int) -> Line:
    import torch

    model, device = _torch_model(size)
    prompts = torch.ones((batch, size.place), dtype=torch.long, device=device)

    def run(new: int) -> None:
        model.generate(prompts, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)

    long, short = seconds(lambda: run(34), 2), seconds(lambda: run(2), 2)  # reading the prompts is not counted
    return {"tokens": batch * 32 / max(long - short, 1e-9)}


def _answer(answers: Any, line: Callable[[], Line]) -> None:
    from sftmix_jax import compilation

    compilation.set_up()
    try:
        answers.put(line())
    except Exception as error:
        said = str(error)
        fits = not any(word in said for word in ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory"))
        answers.put(said.splitlines()[0][:100] if fits else "does not fit")


def alone(line: Callable[[], Line], until: float) -> Line | str:
    """A line in a process of its own, which gives all its memory back; or why there is none."""
    if time.monotonic() > until:
        return "no time left"
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_answer, args=(answers, line), daemon=True)
    process.start()
    try:
        while time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                return answers.get(timeout=1)
            if not process.is_alive() and answers.empty():
                return f"ended with code {process.exitcode}"
        return "not done in time"
    finally:
        process.kill()
        process.join()


def show(name: str, found: Line | str, limit: float) -> float:
    """Prints a line, with the part of the limit that it reaches; returns its tokens a second."""
    if isinstance(found, str):
        print(f"{name:46} {found}", flush=True)
        return 0.0
    reached = found.get("flops") or found.get("bytes")
    share = f"{reached / limit:7.0%}" if reached else " " * 7
    peak = f"{found['peak'] / 2**30:7.1f} GiB" if found.get("peak") else ""
    print(f"{name:46} {found['tokens']:12,.0f} {share} {peak}", flush=True)
    return found["tokens"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="on a CPU, to see that all of it runs")
    size = TINY if parser.parse_args().tiny else SEVEN
    until = time.monotonic() + SECONDS
    can = alone(partial(limits, size), until)
    if isinstance(can, str):
        raise SystemExit(can)
    print(f"a product reaches {can['flops'] / 1e12:,.2f} TFLOP/s, a copy {can['bandwidth'] / 1e9:,.0f} GB/s\n")
    print(f"{'':46} {'tokens/s':>12} {'of it':>7} {'peak':>11}")

    # What tells most comes first, should the time end.
    for batch in size.batches:
        mine = show(f"generation, batch {batch}", alone(partial(generation, size, batch), until), can["bandwidth"])
        theirs = show(f"  transformers, batch {batch}", alone(partial(torch_generation, size, batch), until), 0)
        if mine and theirs:
            print(f"{'  ours : theirs':46} {mine / theirs:12.2f}")
    best = {"ours": 0.0, "theirs": 0.0}
    faster = max(
        ("triton", "plain"), key=lambda attention: show(
            f"training, full remat, attention {attention}",
            alone(partial(training, size, "bfloat16_moments", "full", attention), until), can["flops"],
        ),
    )  # fmt: skip
    for state in ("bfloat16_moments", "float32", "bfloat16"):
        for remat in ("dots", "full", "none"):
            found = alone(partial(training, size, state, remat, faster), until)
            best["ours"] = max(best["ours"], show(f"training, state {state}, remat {remat}", found, can["flops"]))
        if not best["theirs"]:
            for way in ("off", "on"):
                found = alone(partial(torch_training, size, way == "on"), until)
                best["theirs"] = max(best["theirs"], show(f"  transformers, checkpointing {way}", found, 0))
    if all(best.values()):
        print(f"{'  best of ours : best of theirs':46} {best['ours'] / best['theirs']:12.2f}")


if __name__ == "__main__":
    main()
