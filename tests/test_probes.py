"""Probes against whole gradients and transformers' hidden states."""

import jax
import numpy as np
import pytest
from conftest import FLOAT32, SMALL, random_model, save_model

from sftmix_jax.models import decoder
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.probes import gradients, hidden
from sftmix_jax.training.loss import loss_sums


def batch(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, SMALL.vocab_size, (4, 33))
    ones = np.ones((4, 32), np.int32)
    return {
        "tokens": tokens[:, :-1].astype(np.int32),
        "targets": tokens[:, 1:].astype(np.int32),
        "segment_ids": ones,
        "loss_weights": ones.astype(np.float32),
        "domain_ids": 0 * ones,
        "positions": np.tile(np.arange(32, dtype=np.int32), (4, 1)),
    }


@pytest.mark.slow
def test_sketched_cosines_are_those_of_the_whole_gradients():
    definition, _, _ = decoder.build(SMALL, FLOAT32)
    params = random_model()

    def total(params, batch):
        return loss_sums(decoder.bind(definition, params), batch, 1)[0]

    whole = [jax.device_get(jax.grad(total)(params, batch(seed))) for seed in (1, 2)]
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    sketcher = gradients.make_sketcher(SMALL, FLOAT32, mesh)
    found = gradients.cosines({str(seed): sketcher(params, [batch(seed)]) for seed in (1, 2)})["1 · 2"]

    def cosine(*names: str) -> float:
        a, b = (np.concatenate([np.asarray(pick(g, name), np.float64).ravel() for name in names]) for g in whole)
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    def pick(gradient, name):
        return gradient["layers"][name][1] if name in gradient["layers"] else gradient[name]

    for group, names in {
        "head": ("head",),
        "embed": ("embed",),
        "layer 1 feed_forward": ("gate", "up", "down", "feed_forward_norm"),
        "layer 1 attention": ("q", "k", "v", "o", "attention_norm"),
    }.items():
        assert found[group] == pytest.approx(cosine(*names), abs=4 / np.sqrt(gradients.SIZE)), group
    assert len(found) == 2 * SMALL.num_layers + 3


def test_hidden_states_are_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    import transformers

    params = random_model()
    model = transformers.LlamaForCausalLM.from_pretrained(save_model(tmp_path, SMALL, params))
    queries = [[5, 9, 3], [7], [11, 2, 4, 30, 8]]
    for layer in (1, 2):
        ours = hidden.hidden_states(SMALL, FLOAT32, params, queries, layer, rows=2)
        for query, state in zip(queries, ours, strict=True):
            with torch.no_grad():
                inner = model.model(torch.tensor([query]), output_hidden_states=True).hidden_states
            # the last entry is normalised with the model's own scale, so the layer's output is taken from inside
            theirs = inner[layer][0, -1].double().numpy()
            if layer == SMALL.num_layers:
                theirs = theirs / model.model.norm.weight.detach().double().numpy()
            else:
                theirs = theirs / np.sqrt((theirs**2).mean() + SMALL.norm_eps)
            np.testing.assert_allclose(state, theirs, atol=1e-4)


@pytest.mark.slow
def test_domains_that_lie_apart_have_a_high_silhouette():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    apart = np.concatenate([rng.normal(0, 0.1, (20, 8)) + 3 * np.eye(8)[i] for i in range(3)])
    placed, found = hidden.separation(apart, [name for name in "abc" for _ in range(20)])
    assert placed.shape == (60, 2) and min(found.values()) > 0.9
    _, mixed = hidden.separation(rng.normal(0, 1, (60, 8)), [name for name in "abc" for _ in range(20)])
    assert max(mixed.values()) < 0.2
