"""Text in, text out: prompts wait, fill free slots, are decoded together, and leave as they finish."""

from __future__ import annotations

import bisect
import dataclasses
from collections import deque
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.models import cache as caches
from sftmix_jax.models import decoder
from sftmix_jax.models.decoder import Params
from sftmix_jax.parallel import sharding
from sftmix_jax.sampling import decode
from sftmix_jax.sampling.decode import STEPS, Prompts, Setup, Slots, Until
from sftmix_jax.sampling.methods import Method


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
    """An answer; the stop token or string is not part of it.

    `tokens` are the fewest that hold all of `text`. Where a stop string begins within a token, that token is the last.
    """

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


def abstract_params(setup: Setup) -> Params:
    """The shapes, dtypes and shardings of the parameters that a sampler takes.

    In the compute dtype: weights are read once a token, and half the bytes are half the time on TPU and GPU.
    """
    _, abstract, axes = decoder.build(setup.config, setup.compute)
    shardings = sharding.param_shardings(setup.mesh, abstract, axes)
    return sharding.with_shardings(abstract, shardings, np.dtype(setup.compute.dtype))


def whole_parts(mesh: Mesh, rows: int) -> int:
    """So many rows or a few more, that every device has as many."""
    parts = sharding.batch_parts(mesh)
    return -(-rows // parts) * parts


class Sampler:
    """A model that answers; all requests share its slots."""

    def __init__(
        self,
        setup: Setup,
        params: Params,
        tokenizer: Tokenizer,
        *,
        stop_ids: Sequence[int] | None = None,
        stop_strings: Sequence[str] = (),
        slots: int = 32,
    ):
        self.config, self.params, self.tokenizer, self.slots = setup.config, params, tokenizer, slots
        self._setup = setup
        self._stops = np.array(sorted({tokenizer.eos_id} if stop_ids is None else set(stop_ids)), np.int32)
        self._stop_strings = list(stop_strings)

    @property
    def stops(self) -> dict[str, list[int] | list[str]]:
        """What ends every answer, whatever its request says besides."""
        return {"tokens": self._stops.tolist(), "strings": list(self._stop_strings)}

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
            response = responses[index] = Response(*self._cut(tokens, stops(index)), reason)
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

    def _cut(self, tokens: Sequence[int], stops: Sequence[str]) -> tuple[str, tuple[int, ...]]:
        """The text before the first of the stop strings, and the fewest of the tokens that hold all of it."""
        whole = text = self.tokenizer.decode(tokens)
        for stop in stops:
            text = text.partition(stop)[0]
        if text == whole:
            return text, tuple(tokens)
        needed = bisect.bisect_left(
            range(len(tokens)), True, key=lambda count: self.tokenizer.decode(tokens[:count]).startswith(text)
        )
        return text, tuple(tokens[:needed])

    def _serve(
        self, requests: Sequence[Request], waiting: deque[int], finish: Callable[[int, Sequence[int], str], None]
    ) -> None:
        method = _method([requests[i] for i in waiting])
        mesh = self._setup.mesh
        count = whole_parts(mesh, min(self.slots, _power_of_two(len(waiting))))
        longest = max(len(r.tokens) + r.max_new_tokens for r in requests)
        size = bucket(min(longest, self.config.max_length))
        cache = caches.empty_on(mesh, self.config, count, size, self._setup.compute.dtype)
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
                admitted = _next_prompts(requests, waiting, len(free))
                asked = [requests[i] for i in admitted]
                rows, places, slots_in = _spread(free, len(admitted), count, sharding.batch_parts(mesh))
                prompts = _prompts(asked, places, slots_in)
                on_devices = Prompts(*sharding.put_rows(mesh, *prompts))
                cache, first = decode.prefill(self._setup, method, self.params, cache, on_devices)
                first_tokens = sharding.to_host(first)[places]
                length, temperature, top_p, key = (
                    field[places] for field in (prompts.length, prompts.temperature, prompts.top_p, prompts.key)
                )
                left = np.minimum([r.max_new_tokens for r in asked], self.config.max_length - length) - 1
                new = Slots(first_tokens, length, left, left > 0, temperature, top_p, key, np.ones_like(length))
                slots = slots.replaced(rows, new)
                for slot, index, token in zip(rows, admitted, first_tokens, strict=True):
                    running[int(slot)] = _Running(index, [])
                    take(int(slot), [int(token)])
                free = [slot for slot in range(count) if slot not in running]
            if not running:
                continue
            # With others waiting, come back as soon as an eighth of the rows has finished.
            enough = len(running) - max(1, count // 8) if waiting else 0
            span = min(bucket(int(slots.length.max()) + STEPS), size)
            until = Until(self._stops, np.int32(enough))
            cache, found = decode.decode(self._setup, method, self.params, cache, slots, until, span=span)
            slots, tokens_out = slots.after(sharding.to_host(found))
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
                tokens = np.zeros((whole_parts(self._setup.mesh, _power_of_two(len(part))), size), np.int32)
                lengths = np.ones(len(tokens), np.int32)
                for row, index in enumerate(part):
                    joined = [*pairs[index][0], *pairs[index][1]]
                    tokens[row, : len(joined)] = joined
                    lengths[row] = len(joined)
                found, best = map(
                    sharding.to_host,
                    decode.log_likelihoods(self._setup, self.params, tokens, lengths),
                )
                for row, index in enumerate(part):
                    own = slice(len(pairs[index][0]), lengths[row])
                    out[index] = (float(found[row, own].sum(dtype=np.float64)), bool(best[row, own].all()))
        return out


def _method(requests: Sequence[Request]) -> Method:
    if all(r.temperature == 0 for r in requests):
        return Method.GREEDY
    return Method.NUCLEUS if any(r.top_p < 1 for r in requests) else Method.TEMPERATURE


def _next_prompts(requests: Sequence[Request], waiting: deque[int], most: int) -> list[int]:
    """The next prompts of one bucket, at most so many: their indices."""
    size = bucket(len(requests[waiting[0]].tokens))
    admitted: list[int] = []
    while waiting and len(admitted) < most and bucket(len(requests[waiting[0]].tokens)) == size:
        admitted.append(waiting.popleft())
    return admitted


def _spread(free: Sequence[int], prompts: int, slots: int, parts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Free slots for so many prompts, evenly over the parts of the mesh, so that no device reads another's prompt.

    → the slots taken, their places among the rows of a prefill, and for each of those rows its slot within its part
    (beyond the last: a row of padding).
    """
    size = slots // parts
    rank = {slot: sum(other // size == slot // size for other in free[:i]) for i, slot in enumerate(free)}
    rows = np.array(sorted(free, key=lambda slot: (rank[slot], slot))[:prompts])
    deepest = 1 + max(rank[slot] for slot in rows)
    each = min(size, max(-(-4 // parts), _power_of_two(deepest)))  # few sizes to compile, at most twice the work
    places = rows // size * each + np.array([rank[slot] for slot in rows])
    slots_in = np.full(parts * each, size, np.int32)
    slots_in[places] = rows % size
    return rows, places, slots_in


def _prompts(requests: Sequence[Request], places: np.ndarray, slots: np.ndarray) -> Prompts:
    """Prompts of one bucket in their places among the rows of a prefill; host arrays."""
    rows = len(slots)
    out = Prompts(
        tokens=np.zeros((rows, bucket(len(requests[0].tokens))), np.int32),
        length=np.ones(rows, np.int32),
        slot=slots,
        temperature=np.zeros(rows, np.float32),
        top_p=np.ones(rows, np.float32),
        key=np.zeros((rows, 2), np.uint32),
    )
    for place, request in zip(places, requests, strict=True):
        out.tokens[place, : len(request.tokens)] = request.tokens
        out.length[place] = len(request.tokens)
        out.temperature[place], out.top_p[place] = request.temperature, request.top_p
        if request.temperature > 0:
            out.key[place] = np.asarray(jax.random.fold_in(jax.random.PRNGKey(request.seed), request.sample))
    return out


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()
