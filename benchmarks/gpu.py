"""What one GPU gives: attention kernels, training and generation, against its own limits and against transformers.

python benchmarks/gpu.py                   # random weights of 1B and 7B; nothing from a network; at most 10 minutes
python benchmarks/gpu.py --only attention  # lines whose name holds a word
python benchmarks/gpu.py --tiny            # small sizes, on a CPU too: only to see that all of it runs

It runs where grain, ml_collections, datasets, array_record and tensorflow-datasets are missing, as in images for GPUs.

Each line runs in a process of its own, the most telling first, and is printed when it is done; a line that does not
fit in memory says so, and is not begun where arithmetic says it. Stops where there is no GPU.

Rows of 2,048 tokens are packed with documents as long as those of GSM8K, code and conversation (188 tokens on
average), half of their tokens trained on. The rate of training in FLOP/s counts each product once (none that remat
does again, and the head for trained tokens alone), and attention within documents alone. It is shown as a part of what
one large matrix product reaches. Generation is shown as a part of the time in which the copy rate of the memory reads
the weights and the cache once per token. "Expected" are estimates for one H100 made before anything had run; of an H200
those that wait for memory are larger, as its memory is faster. Other cards have none.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import multiprocessing
import os
import queue
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import sftmix_jax

MEAN_LENGTH, TRAINED_SHARE = 188, 0.5
MEMORY = "0.94"  # of the GPU's memory that jax may take; its own default is three quarters
Line = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Size:
    small: str  # presets of sftmix_jax.models.llama
    large: str
    dtype: str
    rows: int
    length: int
    product: int  # side of the square matrices that the rate is measured with
    place: int  # tokens that each row has before decoding
    batches: tuple[int, ...]
    heads: tuple[tuple[int, int, int], ...]  # query heads, key/value heads, head size


FULL = Size("llama3.2-1b", "7b", "bfloat16", 4, 2048, 8192, 512, (1, 64), ((32, 32, 128), (32, 8, 128), (32, 8, 64)))
TINY = Size("micro", "tiny", "float32", 4, 256, 1024, 64, (1, 8), ((4, 2, 64),))


def packed_rows(size: Size, rows: int, vocabulary: int) -> dict[str, np.ndarray]:
    """A batch of random tokens in documents of real lengths."""
    from sftmix_jax.data import packing

    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(MEAN_LENGTH) - 0.32, 0.8, 64 * rows), 8, size.length).astype(np.int64)
    plan = packing.pack(lengths, size.length, "best_fit", 0)
    names = ("tokens", "targets", "segment_ids", "positions", "domain_ids", "loss_weights")
    batch = {name: np.zeros((rows, size.length), "float32" if "weights" in name else "int32") for name in names}
    for row in range(rows):
        at = 0
        for document, member in enumerate(plan.members[plan.starts[row] : plan.starts[row + 1]], 1):
            n = int(lengths[member])
            own = slice(at, at + n)
            batch["segment_ids"][row, own], batch["positions"][row, own] = document, np.arange(n)
            batch["loss_weights"][row, at + int(n * (1 - TRAINED_SHARE)) : at + n] = 1
            at += n
    for key in ("tokens", "targets"):
        batch[key] = rng.integers(0, vocabulary, batch[key].shape).astype(np.int32)
    return batch


def seconds(run: Callable[[], Any], rounds: int = 3) -> tuple[float, float]:
    """The first call with its compilation, and the median of some rounds after it."""
    import jax

    taken = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - begin)
    return taken[0], float(np.median(taken[1:]))


FLIGHT = 10  # calls that are under way at once: one at a time would measure its launch too


def rate(run: Callable[[], Any]) -> float:
    """Seconds of a call among several."""
    return seconds(lambda: [run() for _ in range(FLIGHT)], 5)[1] / FLIGHT


def _random(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    import jax

    return jax.random.normal(jax.random.key(seed), shape, dtype)


def limits(size: Size) -> Line:
    """FLOP/s of a large matrix product of random numbers, and bytes per second of a copy."""
    import jax

    side = size.product
    a, b = (_random((side, side), size.dtype, seed) for seed in (0, 1))
    product = jax.jit(lambda a, b: a @ b)
    copied = _random((side, side, 4), "float32")
    copy = jax.jit(lambda x: x + 1)
    device = jax.devices()[0]
    return {
        "card": device.device_kind,
        "memory": (device.memory_stats() or {}).get("bytes_limit", float("inf")),
        "flops": 2 * side**3 / rate(lambda: product(a, b)),
        "bandwidth": 2 * copied.nbytes / rate(lambda: copy(copied)),
    }


def attention(size: Size, kernel: str, heads: tuple[int, int, int]) -> Line:
    """One kernel on packed rows, forward, and forward with backward; what it misses of float32's plain path."""
    import jax
    import jax.numpy as jnp

    from sftmix_jax.models import kernels
    from sftmix_jax.parallel import sharding
    from sftmix_jax.parallel.sharding import MeshConfig

    N, K, H = heads
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    shape = (size.rows, size.length)
    q, k, v, direction = (_random((*shape, n, H), size.dtype, i) for i, n in enumerate((N, K, K, N)))
    segments = packed_rows(size, size.rows, 1)["segment_ids"]
    inside = jnp.asarray(segments > 0)[..., None, None]

    def run(name: str, q: Any, k: Any, v: Any) -> Any:
        return jnp.where(inside, kernels.attend(name, mesh, q, k, v, segments), 0)

    def total(name: str, q: Any, k: Any, v: Any, direction: Any) -> Any:
        return (run(name, q, k, v).astype(jnp.float32) * direction).sum()

    def gradients(name: str) -> Any:
        return jax.jit(jax.grad(partial(total, name), argnums=(0, 1, 2)))

    forward, backward = jax.jit(partial(run, kernel)), gradients(kernel)
    compiled, both = seconds(lambda: backward(q, k, v, direction), 9)
    alone = seconds(lambda: forward(q, k, v), 9)[1]
    with jax.default_matmul_precision("highest"):
        wide = [x.astype(jnp.float32) for x in (q, k, v)]
        wanted = [jax.jit(partial(run, "plain"))(*wide), *gradients("plain")(*wide, direction)]
    found = [x.astype(jnp.float32) for x in (forward(q, k, v), *backward(q, k, v, direction))]
    error = max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in zip(found, wanted, strict=True))
    # Each query meets half of its document on average: two products forward, five more backward.
    lengths = np.unique(segments + 10_000 * np.arange(size.rows)[:, None], return_counts=True)[1]
    counted = 2 * 2 * N * H * float((lengths.astype(np.float64) ** 2).sum()) / 2
    rates = f"{counted / alone / 1e12:6.1f} {3.5 * counted / both / 1e12:6.1f}"
    times = f"{alone * 1e3:8.2f} ms {both * 1e3:8.2f} ms"
    return {"text": f"{times}  {rates}  error {error:.1e}  first call {compiled:.1f} s"}


def training(size: Size, name: str, state: str, remat: str, kernel: str, rows: int, profile: str = "") -> Line:
    """Steps of a trainer as `train` makes it."""
    import jax

    from sftmix_jax.models import kernels, llama
    from sftmix_jax.models.llama import Compute
    from sftmix_jax.parallel import sharding
    from sftmix_jax.parallel.sharding import MeshConfig
    from sftmix_jax.planning import flops
    from sftmix_jax.training import precision
    from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer
    from sftmix_jax.training.step import TrainState, make_trainer

    mesh, kept, c = sharding.make_mesh(MeshConfig(), jax.devices()[:1]), precision.find(state), llama.preset(name)
    sizes = (c.num_heads, c.num_kv_heads, c.head_dim, size.length)
    chosen = next(each for each in kernels.candidates(kernel) if not kernels.probe(each, mesh, size.dtype, *sizes))
    compute = Compute(size.dtype, remat, chosen)
    optimizer = make_optimizer(OptimizerConfig())
    trainer = make_trainer(c, compute, optimizer, mesh, domains=1, grad_accum_steps=1, kept=kept)
    params = jax.jit(lambda: precision.cast(llama.init(c, compute, 0), kept.params))()
    held = TrainState(params, trainer.init_optimizer(params))
    batch = packed_rows(size, rows, c.vocab_size)
    on_device = sharding.put_batch(mesh, batch, rows)

    def step() -> Any:
        nonlocal held
        held, measured = trainer.train_step(held, on_device, np.float32(1e-5))
        return measured

    tokens = int((batch["segment_ids"] > 0).sum())
    compiled, taken = seconds(step)
    if profile:
        with jax.profiler.trace(profile):
            jax.block_until_ready(step())
    head = 6 * c.vocab_size * c.hidden_size
    counted = flops.training_per_token(c, MEAN_LENGTH) - head * (1 - batch["loss_weights"].sum() / tokens)
    return {
        "tokens": tokens / taken, "flops": tokens / taken * counted, "peak": _peak(),
        "note": f"{chosen}, first step {compiled:.0f} s",
    }  # fmt: skip


def decoding(size: Size, batch: int) -> Line:
    """The decode loop alone, every row at the same length."""
    import jax

    from sftmix_jax.models import cache as caches
    from sftmix_jax.models import llama
    from sftmix_jax.models.llama import Compute
    from sftmix_jax.parallel import sharding
    from sftmix_jax.parallel.sharding import MeshConfig
    from sftmix_jax.sampling import decode
    from sftmix_jax.sampling.decode import Slots
    from sftmix_jax.sampling.methods import Method
    from sftmix_jax.training import precision

    mesh, compute, steps = sharding.make_mesh(MeshConfig(), jax.devices()[:1]), Compute(size.dtype, "none"), 32
    c = llama.preset(size.large)
    params = jax.jit(lambda: precision.cast(llama.init(c, compute, 0), size.dtype))()
    span = size.place + 4 * steps
    cache = caches.empty_on(mesh, c, batch, span, size.dtype)
    rows = Slots.empty(batch)._replace(
        length=np.full(batch, size.place, np.int32), left=np.full(batch, 10_000, np.int32), active=np.ones(batch, bool)
    )

    def run() -> Any:
        nonlocal cache
        cache, found = decode.decode(
            c, compute, mesh, params, Method.GREEDY, cache, rows, np.array([-1], np.int32), np.int32(0),
            steps=steps, span=span,
        )  # fmt: skip
        return found

    compiled, taken = seconds(run)
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    read = weights + (cache.k.nbytes + cache.v.nbytes) * (size.place + steps / 2) / span
    return {
        "tokens": batch * steps / taken, "bytes": read * steps / taken, "peak": _peak(),
        "note": f"first call {compiled:.0f} s",
    }  # fmt: skip


def sampling(size: Size, prompts: int, slots: int, new: int) -> Line:
    """`Sampler.generate` as evaluations use it: prompts of several lengths, prefill, slots that are filled again."""
    import jax

    from sftmix_jax.data.tokenizer import Tokenizer
    from sftmix_jax.models import llama
    from sftmix_jax.models.llama import Compute
    from sftmix_jax.parallel import sharding
    from sftmix_jax.parallel.sharding import MeshConfig
    from sftmix_jax.sampling.sampler import Request, Sampler
    from sftmix_jax.training import precision

    mesh, compute = sharding.make_mesh(MeshConfig(), jax.devices()[:1]), Compute(size.dtype, "none")
    c = llama.preset(size.large)
    params = jax.jit(lambda: precision.cast(llama.init(c, compute, 0), size.dtype))()
    tokenizer = Tokenizer(str(Path(sftmix_jax.__file__).parent / "tiny" / "base"))  # only to make text of some ids
    sampler = Sampler(c, compute, params, tokenizer, mesh, stop_ids=(), slots=slots)
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(size.place / 4), 0.6, prompts), 4, size.place).astype(int)
    requests = [Request(tuple(rng.integers(10, 1000, n).tolist()), new) for n in lengths]
    begin = time.perf_counter()
    sampler.generate(requests)
    compiled = time.perf_counter() - begin
    begin = time.perf_counter()
    produced = sum(len(response.tokens) for response in sampler.generate(requests))
    taken = time.perf_counter() - begin
    return {"tokens": produced / taken, "peak": _peak(), "note": f"first run {compiled:.0f} s, second {taken:.1f} s"}


def _peak() -> float:
    import jax

    return float((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


def _torch_model(size: Size, name: str) -> Any:
    import torch
    import transformers

    from sftmix_jax.models import hf_config, llama

    device = "cuda" if torch.cuda.is_available() else "cpu"
    special = hf_config.Special(1, hf_config.Ends((2,)))
    config = transformers.LlamaConfig(**hf_config.fields(llama.preset(name), special, size.dtype))
    with torch.device(device):
        return transformers.LlamaForCausalLM(config).to(getattr(torch, size.dtype)), device


def torch_training(size: Size, name: str, checkpointing: bool, rows: int) -> Line:
    """The same rows with weights and AdamW in the compute dtype, documents told apart by nothing (its fastest way)."""
    import torch

    model, device = _torch_model(size, name)
    if checkpointing:
        model.gradient_checkpointing_enable()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device == "cuda")
    batch = packed_rows(size, rows, model.config.vocab_size)
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
    rate = int((batch["segment_ids"] > 0).sum()) / seconds(step)[1]
    return {"tokens": rate, "peak": torch.cuda.max_memory_allocated() if device == "cuda" else 0}


def torch_generation(size: Size, batch: int) -> Line:
    import torch

    model, device = _torch_model(size, size.large)
    prompts = torch.ones((batch, size.place), dtype=torch.long, device=device)

    def run(new: int) -> None:
        model.generate(prompts, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)

    # Reading the prompts is not counted.
    long, short = seconds(lambda: run(34), 2)[1], seconds(lambda: run(2), 2)[1]
    return {"tokens": batch * 32 / max(long - short, 1e-9)}


@dataclasses.dataclass(frozen=True)
class Entry:
    name: str
    measure: Callable[[], Line]
    expected: tuple[float, float] = (0, 0)  # tokens/s of the full sizes on an H100, from and to
    waits_for_memory: bool = False
    needs: float = 0  # bytes, of the full sizes

    def expected_on(self, card: str) -> str:
        """The estimate for a card, if there is one."""
        if not self.expected[1] or not ("H100" in card or "H200" in card):
            return ""
        faster = 4.80 / 3.35 if "H200" in card and self.waits_for_memory else 1  # TB/s of their memories
        return "–".join(f"{round(rate * faster, 2 - len(str(int(rate)))):,.0f}" for rate in self.expected)


def entries(size: Size, kernels: tuple[str, ...], profile: str) -> list[Entry]:
    """Every line, the most telling first."""
    own, one, many = kernels[0], *size.batches
    train_small = partial(training, size, size.small)
    train_large = partial(training, size, size.large)
    small, large = size.small, size.large
    return [
        Entry(f"{small} float32, remat full, 8 rows", partial(train_small, "float32", "full", own, 8), (30e3, 45e3)),
        Entry(f"{large} bfloat16, remat full, 4 rows", partial(train_large, "bfloat16", "full", own, 4), (7000, 9500)),
        Entry(f"{large} decode, batch {one}", partial(decoding, size, one), (130, 180), True),
        Entry(f"{large} decode, batch {many}", partial(decoding, size, many), (2500, 4500), True),
        Entry(f"{large} Sampler, {many} slots", partial(sampling, size, 2 * many, many, 128)),
        Entry(f"  transformers {large}, 4 rows", partial(torch_training, size, large, True, 4)),
        Entry(f"  transformers decode, batch {one}", partial(torch_generation, size, one)),
        Entry(f"  transformers decode, batch {many}", partial(torch_generation, size, many)),
        Entry(f"{small} float32, remat none, 8 rows", partial(train_small, "float32", "none", own, 8, profile)),
        Entry(f"  transformers {small}, 8 rows", partial(torch_training, size, small, False, 8)),
        Entry(f"{large} bfloat16, remat dots, 4 rows", partial(train_large, "bfloat16", "dots", own, 4)),
        Entry(f"{large} bfloat16, remat full, 8 rows", partial(train_large, "bfloat16", "full", own, 8)),
        Entry(f"{small} float32, remat full, plain", partial(train_small, "float32", "full", "plain", 8)),
        Entry(
            f"{large} bfloat16_moments, remat full", partial(train_large, "bfloat16_moments", "full", own, 4),
            needs=12 * 6.74e9 + 4 * 2**30,  # parameters, moments, gradients, a copy to multiply with; activations
        ),
        *(
            Entry(f"attention {kernel} {n}/{k} heads of {h}", partial(attention, size, kernel, (n, k, h)))
            for n, k, h in size.heads
            for kernel in kernels
        ),
    ]


def _answer(answers: Any, measure: Callable[[], Line]) -> None:
    from sftmix_jax.machine import compilation

    compilation.set_up()
    try:
        answers.put(measure())
    except Exception as error:
        said = str(error)
        fits = not any(word in said for word in ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory"))
        answers.put(f"{type(error).__name__}: {said.splitlines()[0][:160] if said else ''}" if fits else "does not fit")


def alone(measure: Callable[[], Line], until: float) -> Line | str:
    """A line in a process of its own, which gives all its memory back; or why there is none."""
    if time.monotonic() > until:
        return "no time left"
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_answer, args=(answers, measure), daemon=True)
    process.start()
    try:
        while time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                return answers.get(timeout=0.2)
            if not process.is_alive() and answers.empty():
                return f"ended with code {process.exitcode}"
        return "not done in time"
    finally:
        process.kill()
        process.join()


def show(entry: Entry, found: Line | str, can: Line, expected: str) -> None:
    """Prints a line, with the part of the limit that it reaches."""
    if isinstance(found, str):
        print(f"{entry.name:37} {found}", flush=True)
        return
    if "text" in found:
        print(f"{entry.name:37} {found['text']}", flush=True)
        return
    share = ""
    if "flops" in found:
        share = f"{found['flops'] / can['flops']:7.0%}"
    if "bytes" in found:
        share = f"{found['bytes'] / can['bandwidth']:7.0%}"
    peak = f"{found['peak'] / 2**30:6.1f} GiB" if found.get("peak") else ""
    print(
        f"{entry.name:37} {found['tokens']:10,.0f} {expected:>14} {share:>7} {peak:>10}  {found.get('note', '')}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="on a CPU too, to see that all of it runs")
    parser.add_argument("--only", default="", help="lines whose name holds this")
    parser.add_argument("--seconds", type=float, default=540, help="in all; what was not reached by then is said")
    parser.add_argument("--profile", default="", help="a folder for a profile of one training step")
    options = parser.parse_args()
    size, until = TINY if options.tiny else FULL, time.monotonic() + options.seconds
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", MEMORY)
    can = alone(partial(limits, size), until)
    if isinstance(can, str):
        raise SystemExit(can)
    on_gpu = "cpu" not in can["card"].lower()
    if not (on_gpu or options.tiny):
        raise SystemExit(f"jax finds no GPU here, but {can['card']}; --tiny runs all of this on a CPU")
    print(f"{can['card']}: a product {can['flops'] / 1e12:,.2f} TFLOP/s, a copy {can['bandwidth'] / 1e9:,.0f} GB/s")
    print("attention: forward, forward and backward, TFLOP/s of each; other lines:")
    print(f"{'':37} {'tokens/s':>10} {'expected':>14} {'reached':>7} {'peak':>10}\n", flush=True)
    from sftmix_jax.models.kernels import BY_BACKEND

    for entry in entries(size, (*BY_BACKEND["gpu"], "plain") if on_gpu else ("plain",), options.profile):
        if options.only not in entry.name:
            continue
        if entry.needs > can["memory"] and not options.tiny:
            found: Line | str = f"needs {entry.needs / 2**30:.0f} GiB of {can['memory'] / 2**30:.0f}"
        else:
            found = alone(entry.measure, until)
        show(entry, found, can, "" if options.tiny else entry.expected_on(can["card"]))


if __name__ == "__main__":
    main()
