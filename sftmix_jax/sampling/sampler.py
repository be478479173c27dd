"""Text in, text out: prompts wait, fill free slots, are decoded together, and leave as they finish."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from sftmix_jax import sharding
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.models import cache as caches
from sftmix_jax.models import llama
from sftmix_jax.models.llama import Compute, LlamaConfig, Params
from sftmix_jax.sampling import decode
from sftmix_jax.sampling.decode import Slots
from sftmix_jax.sampling.methods import Method

_STEPS = 32  # tokens between looks at the finished rows


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt and how to answer it."""

    tokens: tuple[int, ...]
    max_new_tokens: int = 256
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    seed: int = 0
    sample: int = 0  # which of several samples of one prompt; they differ
    stop_strings: tuple[str, ...] = ()  # besides the sampler's own


@dataclasses.dataclass(frozen=True)
class Response:
    """An answer; the stop token or string is not part of it."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: str  # stop, length, or prompt_too_long


@dataclasses.dataclass
class _Running:
    index: int
    tokens: list[int]


def bucket(length: int) -> int:
    """The padded size of a prompt: depends on its own length alone, and takes few values."""
    if length <= 64:
        return 64
    size = 128
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size // 3 * 4
    return size


def abstract_params(config: LlamaConfig, compute: Compute, mesh: Mesh) -> Params:
    """The shapes, dtypes and shardings of the parameters that a sampler takes.

    In the compute dtype: weights are read once a token, and half the bytes are half the time on TPU and GPU.
    """
    _, abstract, axes = llama.build(config, compute)
    return sharding.with_shardings(abstract, sharding.param_shardings(mesh, abstract, axes), np.dtype(compute.dtype))


class Sampler:
    """A model that answers; all requests share its slots."""

    def __init__(
        self,
        config: LlamaConfig,
        compute: Compute,
        params: Params,
        tokenizer: Tokenizer,
        mesh: Mesh,
        *,
        stop_ids: Sequence[int] | None = None,
        stop_strings: Sequence[str] = (),
        slots: int = 32,
    ):
        self.config, self.tokenizer, self.slots = config, tokenizer, slots
        self._compute = compute
        self.params = params
        self._mesh = mesh
        self._stops = np.array(sorted({tokenizer.eos_id} if stop_ids is None else set(stop_ids)), np.int32)
        self._stop_strings = list(stop_strings)

    def generate(
        self, requests: Sequence[Request], finished: Callable[[int, Response], None] = lambda index, response: None
    ) -> list[Response]:
        """Answer all requests, in any order; `finished` hears of each as it is done.

        A request's answer depends on that request alone, not on what else is asked.
        """
        responses: list[Response | None] = [None] * len(requests)

        def stops(index: int) -> list[str]:
            return [*self._stop_strings, *requests[index].stop_strings]

        def finish(index: int, tokens: Sequence[int], reason: str) -> None:
            text = self.tokenizer.decode(tokens)
            for stop in stops(index):
                text = text.partition(stop)[0]
            response = responses[index] = Response(text, tuple(tokens), reason)
            finished(index, response)

        waiting: deque[int] = deque()
        for index in sorted(range(len(requests)), key=lambda i: -len(requests[i].tokens)):
            if len(requests[index].tokens) >= self.config.max_length:
                finish(index, (), "prompt_too_long")
            else:
                waiting.append(index)
        if waiting:
            self._serve(requests, waiting, finish)
        return [response for response in responses if response is not None]

    def _serve(
        self, requests: Sequence[Request], waiting: deque[int], finish: Callable[[int, Sequence[int], str], None]
    ) -> None:
        method = _method([requests[i] for i in waiting])
        count = min(self.slots, _power_of_two(len(waiting)))
        longest = max(len(r.tokens) + r.max_new_tokens for r in requests)
        size = bucket(min(longest, self.config.max_length))
        cache = caches.empty(self.config, count, size, self._compute.dtype)
        cache = caches.Cache(*(sharding.put(np.asarray(x), self._cache_sharding(x.shape)) for x in cache))
        slots = Slots.empty(count)
        running: dict[int, _Running] = {}

        def take(slot: int, tokens: Sequence[int]) -> None:
            """New tokens of a row: keep them, and let the row go if they end it."""
            row = running[slot]
            for token in tokens:
                if token in self._stops:
                    return leave(slot, "stop")
                row.tokens.append(token)
            if stops := [*self._stop_strings, *requests[row.index].stop_strings]:
                text = self.tokenizer.decode(row.tokens)
                if any(stop in text for stop in stops):
                    return leave(slot, "stop")
            if not slots.active[slot]:
                leave(slot, "length")

        def leave(slot: int, reason: str) -> None:
            slots.active[slot] = False
            row = running.pop(slot)
            finish(row.index, row.tokens, reason)

        while waiting or running:
            free = [slot for slot in range(count) if slot not in running]
            while waiting and free:
                admitted, tokens_in, lengths_in = _next_prompts(requests, waiting, len(free), count)
                rows = np.array(free[: len(admitted)])
                free = free[len(admitted) :]
                asked = [requests[i] for i in admitted]
                padded_rows = np.full(len(tokens_in), count, np.int32)  # beyond the last slot: dropped
                padded_rows[: len(rows)] = rows
                settings = _settings(asked, len(tokens_in))
                cache, first = decode.prefill(
                    self.config,
                    self._compute,
                    self.params,
                    method,
                    cache,
                    tokens_in,
                    lengths_in,
                    padded_rows,
                    *settings,
                )
                first_tokens = sharding.to_host(first)[: len(rows)]
                lengths = lengths_in[: len(rows)]
                left = np.minimum([r.max_new_tokens for r in asked], self.config.max_length - lengths) - 1
                temperature, top_p, keys = (setting[: len(rows)] for setting in settings)
                new = Slots(
                    first_tokens, lengths, left, left > 0, temperature, top_p, keys, np.ones_like(lengths)
                )  # fmt: skip
                slots = slots.replaced(rows, new)
                for slot, index, token in zip(rows, admitted, first_tokens, strict=True):
                    running[int(slot)] = _Running(index, [])
                    take(int(slot), [int(token)])
                free = [slot for slot in range(count) if slot not in running]
            if not running:
                continue
            # With others waiting, come back as soon as an eighth of the rows has finished.
            enough = len(running) - max(1, count // 8) if waiting else 0
            span = min(bucket(int(slots.length.max()) + _STEPS), size)
            cache, slots_out, produced = decode.decode(
                self.config, self._compute, self.params, method, cache, slots, self._stops, np.int32(enough),
                steps=_STEPS, span=span,
            )  # fmt: skip
            slots = Slots(*(np.array(sharding.to_host(field)) for field in slots_out))
            tokens_out = sharding.to_host(produced)
            for slot in list(running):
                take(slot, [int(t) for t in tokens_out[slot] if t >= 0])

    def log_likelihood(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """For each (prompt, completion): log p(completion | prompt), and whether greedy decoding gives it.

        Raises ValueError if a pair is longer than the model (and one: the last token is only predicted).
        """
        out: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        by_bucket: dict[int, list[int]] = {}
        for index, (prompt, completion) in enumerate(pairs):
            total = len(prompt) + len(completion)
            if total > self.config.max_length + 1 or not prompt:
                raise ValueError(f"pair {index}: {total} tokens, the model takes 2 to {self.config.max_length + 1}")
            by_bucket.setdefault(bucket(total), []).append(index)
        for size, indices in by_bucket.items():
            for start in range(0, len(indices), self.slots):
                part = indices[start : start + self.slots]
                tokens = np.zeros((_power_of_two(len(part)), size), np.int32)
                lengths = np.ones(len(tokens), np.int32)
                for row, index in enumerate(part):
                    joined = [*pairs[index][0], *pairs[index][1]]
                    tokens[row, : len(joined)] = joined
                    lengths[row] = len(joined)
                found, best = map(
                    sharding.to_host, decode.log_likelihoods(self.config, self._compute, self.params, tokens, lengths)
                )
                for row, index in enumerate(part):
                    own = slice(len(pairs[index][0]), lengths[row])
                    out[index] = (float(found[row, own].sum(dtype=np.float64)), bool(best[row, own].all()))
        return out

    def _cache_sharding(self, shape: tuple[int, ...]) -> jax.sharding.NamedSharding:
        parts = sharding.batch_parts(self._mesh)
        batch = "batch" if shape[1] % parts == 0 else None
        heads = "kv_heads" if shape[2] % self._mesh.shape["tensor"] == 0 else None
        return sharding.sharding(self._mesh, (None, batch, heads, None, None))


def _method(requests: Sequence[Request]) -> Method:
    if all(r.temperature == 0 for r in requests):
        return Method.GREEDY
    return Method.NUCLEUS if any(r.top_p < 1 for r in requests) else Method.TEMPERATURE


def _next_prompts(
    requests: Sequence[Request], waiting: deque[int], most: int, slots: int
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The next prompts of one bucket, padded: their indices, tokens int32 [P, T], lengths int32 [P]."""
    size = bucket(len(requests[waiting[0]].tokens))
    admitted: list[int] = []
    while waiting and len(admitted) < most and bucket(len(requests[waiting[0]].tokens)) == size:
        admitted.append(waiting.popleft())
    tokens = np.zeros((_prefill_rows(len(admitted), slots), size), np.int32)
    lengths = np.ones(len(tokens), np.int32)
    for row, index in enumerate(admitted):
        prompt = requests[index].tokens
        tokens[row, : len(prompt)] = prompt
        lengths[row] = len(prompt)
    return admitted, tokens, lengths


def _settings(requests: Sequence[Request], rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Temperature and top_p float32 [rows], keys uint32 [rows, 2]."""
    temperature, top_p = np.zeros(rows, np.float32), np.ones(rows, np.float32)
    keys = np.zeros((rows, 2), np.uint32)
    for row, request in enumerate(requests):
        temperature[row], top_p[row] = request.temperature, request.top_p
        if request.temperature > 0:
            keys[row] = np.asarray(jax.random.fold_in(jax.random.PRNGKey(request.seed), request.sample))
    return temperature, top_p, keys


def _prefill_rows(prompts: int, slots: int) -> int:
    """A power of two from 4 on: few sizes to compile, and never more than twice the work asked for."""
    return min(slots, max(4, _power_of_two(prompts)))


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()
