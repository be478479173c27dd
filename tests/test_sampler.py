"""Generation against transformers, and a request's answer that depends on that request alone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FLOAT32
from generations import COMPLETION, GREEDY, NEW_TOKENS, PROMPTS, REFERENCE, SCORED, TINY

from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.models import cache as caches
from sftmix_jax.models import decoder, huggingface, table
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.sampling import decode, sampler
from sftmix_jax.sampling.decode import Setup
from sftmix_jax.sampling.methods import Method, choose, in_nucleus
from sftmix_jax.sampling.sampler import Request, Sampler, abstract_params, bucket


@pytest.fixture(scope="module")
def tiny():
    """The bundled base: its folder, its tokenizer, and what makes a sampler of it."""
    tokenizer = Tokenizer(str(TINY))
    config, params = huggingface.load(TINY)

    def make(slots: int = 16, mesh: MeshConfig | None = None, devices: int = 1, **rest) -> Sampler:
        grid = sharding.make_mesh(mesh or MeshConfig(), jax.devices()[:devices])
        setup = Setup(config, FLOAT32, grid)
        return Sampler(setup, sharding.put_tree(params, abstract_params(setup)), tokenizer, slots=slots, **rest)

    return TINY, tokenizer, make


def ask(sampler: Sampler, prompts=PROMPTS, tokens: int = 40, **settings):
    requests = [Request(tuple(sampler.tokenizer.encode(p)), tokens, **settings) for p in prompts]
    return sampler.generate(requests)


def test_it_tells_the_known_story(shared):
    """A model that others have published, and what they publish of it."""
    folder = shared / "models" / "stories260k"
    config, params = huggingface.load(folder)
    setup = Setup(config, FLOAT32, sharding.make_mesh(MeshConfig(), jax.devices()[:1]))
    sampler = Sampler(setup, sharding.put_tree(params, abstract_params(setup)), Tokenizer(str(folder)))
    assert ask(sampler, ["<s>"], 20)[0].text.startswith("Once upon a time, there was a little girl named Lily.")


def test_greedy_equals_transformers(tiny):
    wanted = json.loads(REFERENCE.read_text())["greedy"]
    assert [list(response.tokens) for response in ask(tiny[2](), GREEDY, NEW_TOKENS)] == wanted


def test_greedy_answers_do_not_depend_on_what_else_is_asked(tiny):
    sampler = tiny[2](slots=8)
    together = ask(sampler)
    backwards = ask(sampler, PROMPTS[::-1])[::-1]
    alone = [ask(sampler, [prompt])[0] for prompt in PROMPTS[:6]]
    assert together == backwards
    assert together[:6] == alone


def test_the_host_fetches_one_array_per_32_tokens(tiny, monkeypatch):
    """And one more where prompts are read: their first tokens."""
    fetched, ran = [], []
    to_host, run, read = sharding.to_host, decode.decode, decode.prefill

    def counted(x):
        fetched.append(x.shape)
        return to_host(x)

    monkeypatch.setattr(sharding, "to_host", counted)
    monkeypatch.setattr(jax, "device_get", lambda x: pytest.fail("fetched in another way"))
    monkeypatch.setattr(decode, "decode", lambda *a, **k: ran.append("decode") or run(*a, **k))
    monkeypatch.setattr(decode, "prefill", lambda *a, **k: ran.append("prefill") or read(*a, **k))
    answers = ask(tiny[2](slots=4, stop_ids=()), PROMPTS[:4], 97)
    tokens = max(len(answer.tokens) for answer in answers)
    assert tokens > 64 and ran.count("decode") == -(-(tokens - 1) // 32)
    assert len(fetched) == len(ran) and fetched.count((4, 32 + 5)) == ran.count("decode")


def test_samples_follow_their_seed_alone(tiny):
    sampler = tiny[2](slots=4)
    settings = {"temperature": 1.0, "top_p": 0.9, "seed": 5}
    together = ask(sampler, PROMPTS[:6], 20, **settings)
    assert together[2] == ask(sampler, PROMPTS[2:3], 20, **settings)[0]
    assert together != ask(sampler, PROMPTS[:6], 20, temperature=1.0, top_p=0.9, seed=6)
    two = [Request(tuple(sampler.tokenizer.encode(PROMPTS[0])), 20, 1.0, sample=s) for s in (0, 1)]
    first, second = sampler.generate(two)
    assert first != second


def test_a_sharded_sampler_answers_the_same(tiny):
    wanted = ask(tiny[2](slots=4), PROMPTS[:4], 20)
    found = ask(tiny[2](slots=4, mesh=MeshConfig(1, 2, 4), devices=8), PROMPTS[:4], 20)
    assert [r.text for r in found] == [r.text for r in wanted]


@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(1, 2, 4)])
def test_the_order_of_a_cache_on_tpus_gives_the_same_answers(tiny, monkeypatch, mesh):
    sampler, own = tiny[2](slots=4, mesh=mesh, devices=8 if mesh.tensor else 1), caches.has_places_first
    wanted, orders = ask(sampler, PROMPTS[:6], 60), []
    monkeypatch.setattr(caches, "has_places_first", lambda mesh: orders.append(own(mesh)) or True)
    found = ask(sampler, PROMPTS[:6], 60)
    assert [r.text for r in found] == [r.text for r in wanted] and orders and not any(orders)


@pytest.mark.parametrize(("parts", "size", "prompts"), [(1, 8, 5), (4, 4, 3), (4, 4, 9), (8, 1, 8), (2, 8, 1)])
def test_prompts_are_read_by_the_devices_that_keep_their_slots(parts, size, prompts):
    rng = np.random.default_rng(parts * prompts)
    free = sorted(rng.choice(parts * size, max(prompts, parts * size // 2), replace=False).tolist())
    rows, places, slots_in = sampler._spread(free, prompts, parts * size, parts)
    each = len(slots_in) // parts
    assert set(rows) <= set(free) and len(set(rows)) == len(set(places)) == prompts
    for slot, place in zip(rows, places, strict=True):
        assert place // each == slot // size and slots_in[place] == slot % size
    assert (np.delete(slots_in, places) == size).all()  # padding: dropped


def test_more_devices_than_prompts(tiny):
    """Eight parts and three prompts: rows of padding, and slots that stay empty."""
    alone = ask(tiny[2](), PROMPTS[:3], 20)
    assert ask(tiny[2](slots=2, mesh=MeshConfig(2, 4, 1), devices=8), PROMPTS[:3], 20) == alone


def test_stop_strings_and_limits_end_an_answer(tiny):
    free = ask(tiny[2](), PROMPTS[:1], 60)[0]
    stop = free.text[30:36]
    stopped = ask(tiny[2](stop_strings=[stop]), PROMPTS[:1], 60)[0]
    assert (stopped.text, stopped.finish_reason) == (free.text.partition(stop)[0], "stop")
    assert stopped.tokens == free.tokens[: len(stopped.tokens)]
    short = ask(tiny[2](), PROMPTS[:1], 3)[0]
    assert short.finish_reason == "length" and len(short.tokens) == 3


def test_the_tokens_of_a_stopped_answer_end_with_its_text(tiny):
    """Every stop of two letters: the shortest head of all tokens that begins with the text, by trying each head."""
    _, tokenizer, make = tiny
    sampler = make()
    free = ask(sampler, PROMPTS[:1], 60)[0]
    heads = [tokenizer.decode(free.tokens[:n]) for n in range(len(free.tokens) + 1)]
    within = 0
    for at in range(len(free.text) - 1):
        text, tokens = sampler._cut(free.tokens, ["never there", free.text[at : at + 2]])
        assert text == free.text[: free.text.index(free.text[at : at + 2])]
        wanted = next(n for n, head in enumerate(heads) if head.startswith(text))
        assert tokens == free.tokens[:wanted]
        within += heads[wanted] != text
    assert 5 < within < len(free.text) - 5  # both kinds: a stop at the head of a token, and within one
    assert sampler._cut(free.tokens, []) == (free.text, free.tokens)


def test_prompts_longer_than_the_model_are_answered_with_a_reason(tiny):
    found = ask(tiny[2](), ["<s>" + "a dog " * 400, PROMPTS[0]], 5)
    assert [r.finish_reason for r in found] == ["prompt_too_long", "length"]


def test_log_likelihoods_equal_float64_sums(tiny):
    _, tokenizer, make = tiny
    pairs = [(tokenizer.encode(prompt), tokenizer.encode(COMPLETION)) for prompt in SCORED]
    found = [score for score, _ in make(slots=4).log_likelihood(pairs)]
    np.testing.assert_allclose(found, json.loads(REFERENCE.read_text())["log_likelihoods"], rtol=0, atol=1e-3)


def test_nuclei_worked_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]))
    assert in_nucleus(logits, jnp.array([0.6, 1.0])).tolist() == [[True, True, False, False], [True] * 4]
    assert in_nucleus(logits, jnp.array([0.0, 0.5])).tolist() == [
        [True, False, False, False],
        [False, False, False, True],
    ]


def test_sampled_frequencies_are_the_probabilities():
    n = 4000
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.PRNGKey(0), i))(jnp.arange(n))
    logits = jnp.tile(jnp.log(jnp.array([0.5, 0.3, 0.2])), (n, 1))
    drawn = choose(Method.NUCLEUS, logits, jnp.ones(n), jnp.full(n, 0.75), keys)
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / n, [0.625, 0.375, 0], atol=0.03)


def on_each_device(program, *arguments, **named) -> int:
    """Bytes of one device that a compiled program takes at its peak, with what it gives."""
    memory = program.lower(*arguments, **named).compile().memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def test_neither_fresh_weights_nor_the_cache_are_whole_on_any_device():
    """Of eight, each makes an eighth; drawing takes some buffers of a weight's part besides."""
    config = Architecture(2048, 256, 768, 4, 8, 4, 32, 1024)
    whole = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    mesh = sharding.make_mesh(MeshConfig(1, 8, 1), jax.devices()[:8])

    def drawing(mesh):
        return decoder.drawing(config, FLOAT32, 3, abstract_params(Setup(config, FLOAT32, mesh)))

    peak = on_each_device(drawing(mesh))
    print(f"weights: {peak / 2**20:.2f} MiB a device of {4 * table.num_params(config) / 2**20:.2f}")
    assert peak < 3 / 8 * 4 * table.num_params(config)
    for mine, wanted in zip(*(jax.tree.leaves(drawing(each)()) for each in (mesh, whole)), strict=True):
        assert mine.sharding.shard_shape(mine.shape) != mine.shape or mine.ndim < 3
        np.testing.assert_allclose(mine, wanted, rtol=1e-6)

    size = 2 * 4 * 32 * config.num_kv_heads * config.head_dim * 512 * 4
    where = caches.placing(mesh, 32, config.num_kv_heads)
    peak = on_each_device(caches._empty_at, where, config, 32, 512, "float32", False)
    print(f"cache: {peak / 2**20:.2f} MiB a device of {size / 2**20:.2f}")
    assert peak == pytest.approx(size / 8, rel=0.01)
    made = caches.empty_on(mesh, config, 32, 512, "float32")
    assert {x.data.nbytes for part in (made.k, made.v) for x in part.addressable_shards} == {size // 16}


def test_buckets_are_few_and_hold_their_prompts():
    sizes = [bucket(n) for n in range(1, 2000)]
    assert all(size >= n for n, size in enumerate(sizes, 1)) and len(set(sizes)) < 14
