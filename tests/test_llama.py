"""The model against transformers' LLaMA, and attention against documents read alone."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FLOAT32, SMALL, random_model, save_model

from sftmix_jax.models import decoder, families, huggingface, table
from sftmix_jax.models.architecture import Architecture, LayerKind, Rope
from sftmix_jax.models.compute import Compute

REFERENCE = Path(__file__).parent / "reference" / "llama_logits.npz"
LLAMA3 = Rope(5e5, "llama3", 8.0, 16)
CASES = {
    "multi_head": Architecture(61, 32, 48, 2, 4, 4, 8, 128),
    "grouped_tied": Architecture(61, 32, 48, 2, 4, 2, 8, 128, tied=True),
    "llama3_rope": Architecture(61, 32, 48, 2, 4, 2, 8, 128, pattern=(LayerKind(LLAMA3),)),
    "wide_heads": Architecture(61, 32, 48, 3, 2, 1, 24, 128, norm_eps=1e-6),
}
TOKENS = np.random.default_rng(1).integers(0, 61, (2, 80))


@functools.cache
def forward(config: Architecture, compute: Compute):
    """Parameters, tokens, segments and positions → logits, as one program."""
    definition = decoder.build(config, compute)[0]

    def run(params, *inputs):
        model = decoder.bind(definition, params)
        return model.logits(model(*inputs))

    return jax.jit(run)


def logits(config: Architecture, params, tokens, segment_ids=None, positions=None, compute: Compute = FLOAT32):
    tokens = jnp.asarray(tokens)
    segment_ids = jnp.ones_like(tokens) if segment_ids is None else jnp.asarray(segment_ids)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape) if positions is None else positions
    return np.asarray(forward(config, compute)(params, tokens, segment_ids, jnp.asarray(positions)))


def transformers_logits(folder: Path, tokens) -> np.ndarray:
    torch = pytest.importorskip("torch")
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_transformers_live(case, tmp_path):
    folder = save_model(tmp_path, CASES[case], random_model(CASES[case]))
    config, params = huggingface.load(folder)
    np.testing.assert_allclose(logits(config, params, TOKENS), transformers_logits(folder, TOKENS), atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_that_transformers_gave(case):
    """Stored by `python tests/test_llama.py`, where torch is installed."""
    found = logits(CASES[case], random_model(CASES[case]), TOKENS)
    np.testing.assert_allclose(found, np.load(REFERENCE)[case], atol=1e-4)


def test_stories260k_equals_transformers(shared):
    folder = shared / "models" / "stories260k"
    tokens = np.random.default_rng(0).integers(3, 500, (2, 96))
    config, params = huggingface.load(folder)
    np.testing.assert_allclose(logits(config, params, tokens), transformers_logits(folder, tokens), atol=1e-4)


def test_a_packed_document_gives_the_logits_that_it_gives_alone():
    params = random_model()
    first, second = TOKENS[:1, :30], TOKENS[1:, :41]
    packed = np.concatenate([first, second], axis=1)
    segments = np.repeat([[1, 2]], [30, 41], axis=1)
    positions = np.concatenate([np.arange(30), np.arange(41)])[None]
    together = logits(SMALL, params, packed, segments, positions)
    np.testing.assert_allclose(together[:, :30], logits(SMALL, params, first), atol=2e-5)
    np.testing.assert_allclose(together[:, 30:], logits(SMALL, params, second), atol=2e-5)


def test_no_document_sees_another():
    """Changing one document leaves every bit of its neighbours' logits as it was."""
    params = random_model()
    segments = np.repeat([[1, 2, 3]], [30, 30, 20], axis=1)
    positions = np.concatenate([np.arange(30), np.arange(30), np.arange(20)])[None]
    changed = TOKENS[:1].copy()
    changed[:, 30:60] = (changed[:, 30:60] + 7) % 61
    before = logits(SMALL, params, TOKENS[:1], segments, positions)
    after = logits(SMALL, params, changed, segments, positions)
    np.testing.assert_array_equal(before[:, :30], after[:, :30])
    np.testing.assert_array_equal(before[:, 60:], after[:, 60:])
    assert np.abs(before[:, 30:60] - after[:, 30:60]).max() > 0.1


@functools.cache
def gradients(remat: str):
    segments, positions = np.ones_like(TOKENS), np.broadcast_to(np.arange(TOKENS.shape[1]), TOKENS.shape)
    definition = decoder.build(SMALL, Compute("float32", remat))[0]

    def total(params):
        hidden = decoder.bind(definition, params)(TOKENS, segments, positions)
        return (hidden * np.cos(np.arange(hidden.size)).reshape(hidden.shape)).sum()

    return jax.jit(jax.grad(total))(random_model())


@pytest.mark.parametrize("policy", ["dots", "full", "offload"])
def test_remat_changes_no_gradient(policy):
    """What is kept, made again or moved to the host's memory is the same numbers."""
    for mine, plain in zip(jax.tree.leaves(gradients(policy)), jax.tree.leaves(gradients("none")), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("7b", 6.74),
        ("13b", 13.02),
        ("33b", 32.53),
        ("65b", 65.29),
        ("llama2-70b", 68.98),
        ("llama3-8b", 8.03),
        ("llama3.2-1b", 1.24),
        ("llama3.2-3b", 3.21),
    ],
)
def test_presets_have_the_published_sizes(name, billions):
    config = families.preset(name)
    assert round(table.num_params(config) / 1e9, 2) == billions
    abstract = decoder.build(config, FLOAT32)[1]
    import jax

    assert sum(leaf.size for leaf in jax.tree.leaves(abstract)) == table.num_params(config)


if __name__ == "__main__":
    import tempfile

    stored = {}
    for name, config in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder), config, random_model(config))
            stored[name] = transformers_logits(Path(folder), TOKENS)
    REFERENCE.parent.mkdir(exist_ok=True)
    np.savez_compressed(REFERENCE, **stored)
