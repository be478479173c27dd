"""Attention kernels, interpreted on CPU devices, against the plain path; and the probe that keeps a wrong one out."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL, random_model

from sftmix_jax import sharding, train
from sftmix_jax.errors import UserError
from sftmix_jax.models import attention, kernels
from sftmix_jax.models.llama import Compute, ComputeConfig
from sftmix_jax.sharding import MeshConfig
from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer
from sftmix_jax.training.step import make_trainer


def mesh_of(fsdp: int, tensor: int):
    return sharding.make_mesh(MeshConfig(fsdp=fsdp, tensor=tensor), jax.devices()[: fsdp * tensor])


@pytest.mark.parametrize("kernel", ["splash", "triton"])
@pytest.mark.parametrize(("fsdp", "tensor", "heads", "head_dim"), [(1, 1, (4, 4), 32), (2, 2, (4, 2), 128)])
def test_a_kernel_attends_as_the_plain_path_within_documents(kernel, fsdp, tensor, heads, head_dim):
    """Values and gradients in float32, documents and padding, grouped heads, fewer than the 128 lanes."""
    rng, mesh = np.random.default_rng(0), mesh_of(fsdp, tensor)
    q, direction = (rng.standard_normal((2, 256, heads[0], head_dim)).astype(np.float32) for _ in range(2))
    k, v = (rng.standard_normal((2, 256, heads[1], head_dim)).astype(np.float32) for _ in range(2))
    segments = np.stack([np.repeat([1, 2, 3, 0], [100, 28, 100, 28]), np.repeat([1, 2], [255, 1])]).astype(np.int32)
    inside = jnp.asarray(segments > 0)[..., None, None]

    def total(path):
        return lambda q, k, v: jnp.where(inside, path(q, k, v, segments) * direction, 0).sum()

    def attend(*inputs):
        return kernels.attend(kernel, mesh, *inputs)

    with jax.default_matmul_precision("highest"):
        mine = jax.jit(jax.value_and_grad(total(attend), argnums=(0, 1, 2)))(q, k, v)
        plain = jax.jit(jax.value_and_grad(total(attention.attend), argnums=(0, 1, 2)))(q, k, v)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_training_step_with_splash_is_the_step_without(remat):
    mesh, rng = mesh_of(2, 2), np.random.default_rng(0)
    tokens = rng.integers(0, 61, (4, 129)).astype(np.int32)
    segments = np.repeat([[1, 2, 0]], [70, 50, 8], axis=1).repeat(4, 0).astype(np.int32)
    batch = {
        "tokens": tokens[:, :-1], "targets": tokens[:, 1:], "loss_weights": (segments > 0).astype(np.float32),
        "segment_ids": segments, "positions": np.broadcast_to(np.arange(128, dtype=np.int32), (4, 128)),
        "domain_ids": 0 * segments,
    }  # fmt: skip

    def step(kernel):
        compute, optimizer = Compute("float32", remat, kernel), make_optimizer(OptimizerConfig())
        trainer = make_trainer(SMALL, compute, optimizer, mesh, domains=1, accumulation=1)
        params = sharding.put_tree(random_model(), trainer.abstract.params)
        state = (params, trainer.init_optimizer(params))
        _, measured = trainer.train_step(type(trainer.abstract)(*state), sharding.put_batch(mesh, batch, 4), 1e-3)
        return jax.device_get((measured.sums.loss, measured.grad_norm))

    for mine, plain in zip(step("splash"), step("plain"), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-4)


def test_the_probe_passes_a_kernel_that_agrees_and_names_one_that_does_not(monkeypatch):
    mesh = mesh_of(2, 1)
    kernels.probe.cache_clear()
    assert kernels.probe("splash", mesh, "bfloat16", 4, 2, 32) == ""
    right = kernels._splash

    def blind(q, k, v, segment_ids, *, interpret):
        return right(q, k, v, jnp.ones_like(segment_ids), interpret=interpret)  # documents see each other

    def broken(*_, **__):
        raise RuntimeError("no such chip")

    for kernel, said in ((blind, "differs from the plain path by"), (broken, "does not run here (no such chip)")):
        monkeypatch.setattr(kernels, "_splash", kernel)
        kernels.probe.cache_clear()
        assert kernels.probe("splash", mesh, "bfloat16", 4, 2, 32).startswith(said)
    kernels.probe.cache_clear()


def test_a_kernel_that_fails_its_probe_is_left_out_with_a_warning(monkeypatch, capsys):
    resolved = SimpleNamespace(compute=Compute("float32", "none", "splash"), base=SimpleNamespace(config=SMALL))
    monkeypatch.setattr(kernels, "probe", lambda *_: "differs from the plain path by 40.0%")
    assert train._checked(resolved, mesh_of(1, 1)) == Compute("float32", "none", "plain")
    assert "warning: attention kernel 'splash' differs from the plain path by 40.0%" in capsys.readouterr().err


def test_the_kernel_is_chosen_by_backend_and_unknown_ones_are_named():
    assert ComputeConfig().resolved(SMALL, "tpu").attention == "splash"
    assert ComputeConfig().resolved(SMALL, "gpu").attention == "triton"
    assert ComputeConfig().resolved(SMALL, "cpu").attention == "plain"
    assert ComputeConfig(attention="plain").resolved(SMALL, "tpu").attention == "plain"
    with pytest.raises(UserError, match=r"model\.compute\.attention: .flash.; must be .*; did you mean .splash.\?"):
        ComputeConfig(attention="flash").resolved(SMALL, "tpu")
