"""Every family against transformers, and against itself: packed, decoded, sharded."""

import dataclasses
import functools
import json
from collections.abc import Iterable
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FLOAT32, random_model, save_model
from etils import epath
from families import CASES, EVERY_FOURTH, REFERENCE, TOKENS, config_json, transformers_logits, transformers_model
from test_llama import logits

from sftmix_jax.experiment.tuning import Tuning
from sftmix_jax.machine import identity
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import cache as caches
from sftmix_jax.models import decoder, families, hf_config, huggingface, table
from sftmix_jax.models.architecture import from_record
from sftmix_jax.models.compute import Compute
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.sampling.decode import Setup
from sftmix_jax.sampling.sampler import Request, Sampler, abstract_params
from sftmix_jax.training.loss import loss_sums
from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer
from sftmix_jax.training.step import TrainState, make_trainer

FAMILIES = [case for case in CASES if "-" not in case]
every_case = pytest.mark.parametrize("case", CASES)
# Biases, windows with head norms, norms over all heads, fused weights. The other families: tests/campaigns/families.py.
some_families = pytest.mark.parametrize("case", ["qwen2", "gemma3_text", "olmo2", "phi3"])

# What each of them alone has of the options that change how a model computes; with all others a test is slow.
OPTIONS = {
    "llama-linear": "linear rope",
    "mistral-window": "one window in all layers",
    "gemma2": "caps of scores and logits, norms on both sides and from 1 + w, gelu, scales of embeddings and scores",
    "olmo3": "windows in some layers, yarn, norms over all heads and behind a block",
    "exaone4": "layers without positions, norms of each head",
    "granite": "scales of blocks and logits",
    "phi3": "fused weights",
    "phi3-longrope": "longrope, a part of each head rotated",
    "glm4": "biases, neighbours rotated",
}


def slow_but(names: Iterable[str], cases: Iterable[str]) -> pytest.MarkDecorator:
    """Cases of which those with these names are quick."""
    quick = set(names)
    return pytest.mark.parametrize(
        "case", [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]
    )


# Fused weights are the same numbers to a decoder. Rope has no gradients, and olmo2 has the norms of olmo3.
every_decoder = slow_but(OPTIONS.keys() - {"phi3"}, CASES)
every_family = slow_but(OPTIONS.keys() - {"olmo3"} | {"olmo2"}, FAMILIES)


def architecture(case: str):
    return hf_config.parse(config_json(case), f"{case}: config.json")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A case's model as transformers reads it from the folder that this package writes."""
    pytest.importorskip("torch")

    @functools.cache
    def load(case: str):
        config = architecture(case)
        folder = save_model(tmp_path_factory.mktemp(case), config, random_model(config))
        return folder, transformers_model(folder)

    return load


@every_case
def test_logits_are_those_that_transformers_gave(case):
    """Stored by `python tests/families.py`; transformers read the case's config.json, not the one that is exported."""
    found = logits(architecture(case), random_model(architecture(case)), TOKENS)[:, EVERY_FOURTH]
    np.testing.assert_allclose(found, np.load(REFERENCE)[case], atol=1e-4)


@every_case
def test_an_export_gives_the_same_logits_in_transformers(case, theirs):
    found = logits(architecture(case), random_model(architecture(case)), TOKENS)
    wanted = transformers_logits(theirs(case)[1], TOKENS)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@every_case
def test_weights_go_through_transformers_bit_for_bit(case, theirs, tmp_path):
    folder, model = theirs(case)
    model.save_pretrained(tmp_path)
    config, params = huggingface.load(epath.Path(tmp_path))
    assert config == architecture(case) == hf_config.read(epath.Path(folder))
    jax.tree.map(np.testing.assert_array_equal, params, random_model(architecture(case)))


@every_family
def test_gradients_are_those_of_torch(case, theirs):
    """Of the sum of cross-entropies, for every parameter, compared under transformers' names."""
    import torch

    config, model = architecture(case), theirs(case)[1]
    model.zero_grad()
    tokens = torch.tensor(TOKENS)
    found = model(tokens, use_cache=False).logits[:, :-1].reshape(-1, config.vocab_size)
    torch.nn.functional.cross_entropy(found, tokens[:, 1:].reshape(-1), reduction="sum").backward()
    grads = jax.jit(jax.grad(lambda params: total(config, params)))(random_model(config))
    named = dict(huggingface._their_tensors(config, jax.device_get(grads)))
    wanted = {name: param.grad.numpy() for name, param in model.named_parameters()}
    assert named.keys() == wanted.keys()
    for name, mine in named.items():
        np.testing.assert_allclose(mine, wanted[name], atol=2e-4 * np.abs(wanted[name]).max(), err_msg=name)


def batch(tokens) -> dict[str, jax.Array]:
    segments = np.ones_like(tokens)
    segments[:, -1] = 0
    return {
        "tokens": tokens,
        "targets": np.roll(tokens, -1, axis=1),
        "loss_weights": segments.astype(np.float32),
        "segment_ids": segments,
        "positions": np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape),
        "domain_ids": 0 * tokens,
    }


def total(config, params) -> jax.Array:
    on_batch = {name: jnp.asarray(x) for name, x in batch(TOKENS).items()}
    return loss_sums(decoder.bind(decoder.build(config, FLOAT32)[0], params), on_batch, 1)[0]


def sampler(config, mesh: MeshConfig | None = None, devices: int = 1) -> Sampler:
    """One whose text is its tokens, without ends."""
    grid = sharding.make_mesh(mesh or MeshConfig(), jax.devices()[:devices])
    setup = Setup(config, FLOAT32, grid)
    params = sharding.put_tree(random_model(config), abstract_params(setup))
    tokenizer = SimpleNamespace(eos_id=None, decode=lambda tokens: " ".join(map(str, tokens)))
    return Sampler(setup, params, tokenizer, stop_ids=[], slots=4)


@every_family
def test_greedy_texts_are_those_of_transformers(case, theirs):
    import torch

    prompts = [TOKENS[0, :5].tolist(), TOKENS[1, :30].tolist(), TOKENS[0, 40:59].tolist()]
    answers = sampler(architecture(case)).generate([Request(tuple(prompt), 24) for prompt in prompts])
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        whole = theirs(case)[1].generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert list(answer.tokens) == whole[0, len(prompt) :].tolist()


@every_case
def test_a_packed_document_gives_the_logits_that_it_gives_alone(case):
    """Or before its own continuation: of either, it sees nothing."""
    config, params = architecture(case), random_model(architecture(case))
    alone = logits(config, params, TOKENS)
    lengths = np.array([[30, 50], [41, 39]])  # of the rows' first documents and of those packed behind them
    packed = np.stack([np.concatenate([TOKENS[i, :a], TOKENS[1 - i, :b]]) for i, (a, b) in enumerate(lengths)])
    segments = np.stack([np.repeat([1, 2], row) for row in lengths])
    positions = np.stack([np.concatenate([np.arange(a), np.arange(b)]) for a, b in lengths])
    together = logits(config, params, packed, segments, positions)
    for i, (a, b) in enumerate(lengths):
        np.testing.assert_allclose(together[i, :a], alone[i, :a], atol=2e-5)
        np.testing.assert_allclose(together[i, a:], alone[1 - i, :b], atol=2e-5)


@every_decoder
def test_decoding_token_by_token_is_reading_at_once(case):
    config, params = architecture(case), random_model(architecture(case))
    model = decoder.bind(decoder.build(config, FLOAT32)[0], jax.tree.map(jnp.asarray, params))
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    read, whole = 20, logits(config, params, TOKENS)
    prompt, lengths = jnp.asarray(TOKENS[:, :read]), jnp.full(2, read, jnp.int32)
    _, (k, v) = jax.jit(model.prefill)(prompt, lengths)
    cache = caches.insert(caches.empty(config, 2, 64, "float32"), k, v, jnp.arange(2), mesh)

    @jax.jit
    def one(cache, token, lengths):
        hidden, (k, v) = model.decode(token, cache, lengths)
        return caches.append(cache, k, v, lengths), model.logits(hidden[:, 0])

    for place in range(read, 50):
        cache, found = one(cache, jnp.asarray(TOKENS[:, place]), lengths)
        lengths = lengths + 1
        np.testing.assert_allclose(found, whole[:, place], atol=5e-5)


def step(config, mesh: MeshConfig, devices: int) -> tuple[float, float]:
    """Loss and gradient norm of one training step."""
    grid = sharding.make_mesh(mesh, jax.devices()[:devices])
    trainer = make_trainer(
        config, Compute("float32", "full"), make_optimizer(OptimizerConfig()), grid, domains=1, grad_accum_steps=1
    )
    params = sharding.put_tree(random_model(config), trainer.abstract.params)
    rows = {name: np.tile(x, (2, 1)) for name, x in batch(TOKENS).items()}
    state = TrainState(params, trainer.init_optimizer(params))
    _, measured = trainer.train_step(state, sharding.put_batch(grid, rows, 4), 1e-3)
    return float(measured.sums.loss[0]), float(measured.grad_norm)


@pytest.mark.slow
@some_families
def test_a_step_over_fsdp_and_tensor_is_the_step_of_one_device(case):
    config = architecture(case)
    np.testing.assert_allclose(step(config, MeshConfig(fsdp=4, tensor=2), 8), step(config, MeshConfig(), 1), rtol=1e-4)


@pytest.mark.slow
@some_families
def test_sampling_over_fsdp_and_tensor_gives_the_texts_of_one_device(case):
    requests = [Request(tuple(TOKENS[0, :n].tolist()), 8, temperature=t, seed=n) for n, t in ((5, 0.0), (30, 1.0))]
    alone, spread = (
        sampler(architecture(case), *where).generate(requests)
        for where in ((MeshConfig(), 1), (MeshConfig(fsdp=4, tensor=2), 8))
    )
    assert [answer.tokens for answer in alone] == [answer.tokens for answer in spread]


@pytest.mark.slow
@some_families
def test_a_step_compiles_for_a_tpu(case):
    """With splash attention, windows and caps in it; tiny, with heads that the kernel takes."""
    pytest.importorskip("libtpu")
    from sftmix_jax.planning import aot

    config = dataclasses.replace(architecture(case), hidden_size=256, head_dim=128, max_length=512)
    compiled = aot.compile_step(
        Tuning(config),
        Compute("bfloat16", "full", "splash"),
        OptimizerConfig(),
        MeshConfig(fsdp=4, tensor=2),
        aot.find_topology("v5e:2x4"),
        rows=8,
        length=512,
        domains=1,
        grad_accum_steps=1,
    )
    assert compiled.fits, compiled.message


@every_case
def test_an_architecture_survives_its_two_records(case):
    config = architecture(case)
    assert from_record(json.loads(json.dumps(identity.plain(config)))) == config
    assert hf_config.parse(hf_config.fields(config, hf_config.Special(1), "float32"), case) == config


@pytest.mark.parametrize("name", families.PRESETS)
def test_a_preset_survives_its_config_json(name):
    config = families.preset(name)
    assert hf_config.parse(hf_config.fields(config, hf_config.Special(1), "float32"), name) == config


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("smollm2-135m", 0.13),
        ("smollm2-360m", 0.36),
        ("mistral-7b-v0.1", 7.24),
        ("mistral-7b-v0.3", 7.25),
        ("qwen2.5-0.5b", 0.49),
        ("qwen2.5-1.5b", 1.54),
        ("qwen2.5-3b", 3.09),
        ("qwen2.5-7b", 7.62),
        ("qwen3-0.6b", 0.60),
        ("qwen3-1.7b", 1.72),
        ("qwen3-4b", 4.02),
        ("qwen3-8b", 8.19),
        ("qwen3-14b", 14.77),
        ("qwen3-32b", 32.76),
        ("gemma3-270m", 0.27),
        ("gemma3-1b", 1.00),
        ("olmo2-1b", 1.48),
        ("olmo2-7b", 7.30),
        ("olmo2-13b", 13.72),
        ("smollm3-3b", 3.08),
        ("granite3.3-2b", 2.53),
        ("granite3.3-8b", 8.17),
    ],
)
def test_presets_have_the_published_sizes(name, billions):
    assert round(table.num_params(families.preset(name)) / 1e9, 2) == billions


@pytest.mark.parametrize("case", FAMILIES)
def test_a_field_that_is_not_known_is_named(case):
    for field, value in (("attention_multiplexer", 3), ("qk_layernorm", True), ("num_local_experts", 8)):
        with pytest.raises(UserError, match=rf"^config\.json: the field '{field}' is not known in a {case} model"):
            hf_config.parse({**config_json(case), field: value}, "config.json")


@pytest.mark.parametrize(
    ("case", "fields", "said"),
    [
        ("qwen3", {"attention_bias": True}, "attention_bias is true; only false"),
        ("gemma2", {"hidden_activation": "gelu"}, 'hidden_activation is "gelu"; only "gelu_pytorch_tanh"'),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0; must be null"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention is true; only false"),
        ("gemma3_text", {"layer_types": ["linear_attention"] * 5}, "layer_types is .*; must be a list of 5 out of"),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window is true; only false"),
        ("olmo2", {"clip_qkv": 8.0}, "clip_qkv is 8.0; only null"),
        ("granite", {"mlp_bias": True}, "mlp_bias is true; only false"),
        ("phi3", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, 'rope_type is "dynamic"; must be longrope'),
        ("phi3-longrope", {"partial_rotary_factor": 0.5}, "short_factor is .*; must be a list of 2 positive numbers"),
        ("seed_oss", {"attention_out_bias": True}, "attention_out_bias is true; only false"),
        ("exaone4", {"sliding_window": None, "layer_types": ["sliding_attention"] * 4}, "sliding_window is null"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 3}, "layer_types is .*use_sliding_window is false"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3}}, "beta_fast is not known"),
        ("mistral", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; only 1.0"),
    ],
)
def test_an_option_that_is_not_supported_is_named(case, fields, said):
    with pytest.raises(UserError, match=rf"^config\.json(: [a-z ]+)?: {said}"):
        hf_config.parse({**config_json(case), **fields}, "config.json")
