"""Decoding, and the sampler around it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import sftmix_jax
from benchmarks.gpu.measuring import Line, peak, seconds
from benchmarks.gpu.sizes import Size
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.models import cache as caches
from sftmix_jax.models import decoder, families
from sftmix_jax.models.compute import Compute
from sftmix_jax.models.decoder import Params
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.sampling import decode
from sftmix_jax.sampling.decode import STEPS, Setup, Slots, Until
from sftmix_jax.sampling.methods import Method
from sftmix_jax.sampling.sampler import Request, Sampler
from sftmix_jax.training import precision


def _model(size: Size) -> tuple[Setup, Params]:
    """Random weights on one device."""
    mesh, compute = sharding.make_mesh(MeshConfig(), jax.devices()[:1]), Compute(size.dtype, "none")
    config = families.preset(size.large)
    params = jax.jit(lambda: precision.cast(decoder.init(config, compute, 0), size.dtype))()
    return Setup(config, compute, mesh), params


def decoding(size: Size, batch: int) -> Line:
    """The decode loop alone, every row at the same length."""
    setup, params = _model(size)
    span = size.place + 4 * STEPS
    cache = caches.empty_on(setup.mesh, setup.config, batch, span, size.dtype)
    rows = Slots.empty(batch)._replace(
        length=np.full(batch, size.place, np.int32), left=np.full(batch, 10_000, np.int32), active=np.ones(batch, bool)
    )

    def run() -> Any:
        nonlocal cache
        never = Until(np.array([-1], np.int32), np.int32(0))
        cache, found = decode.decode(setup, Method.GREEDY, params, cache, rows, never, span=span)
        return found

    compiled, taken = seconds(run)
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    read = weights + (cache.k.nbytes + cache.v.nbytes) * (size.place + STEPS / 2) / span
    return {
        "tokens": batch * STEPS / taken,
        "bytes": read * STEPS / taken,
        "peak": peak(),
        "note": f"first call {compiled:.0f} s",
    }


def sampling(size: Size, prompts: int, slots: int, new: int) -> Line:
    """`Sampler.generate` as evaluations use it: prompts of several lengths, prefill, slots that are filled again."""
    setup, params = _model(size)
    tokenizer = Tokenizer(str(Path(sftmix_jax.__file__).parent / "tiny" / "base"))  # only to make text of some ids
    sampler = Sampler(setup, params, tokenizer, stop_ids=(), slots=slots)
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(size.place / 4), 0.6, prompts), 4, size.place).astype(int)
    requests = [Request(tuple(rng.integers(10, 1000, n).tolist()), new) for n in lengths]
    begin = time.perf_counter()
    sampler.generate(requests)
    compiled = time.perf_counter() - begin
    begin = time.perf_counter()
    produced = sum(len(response.tokens) for response in sampler.generate(requests))
    taken = time.perf_counter() - begin
    return {"tokens": produced / taken, "peak": peak(), "note": f"first run {compiled:.0f} s, second {taken:.1f} s"}
