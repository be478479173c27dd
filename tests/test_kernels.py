"""Attention kernels, interpreted on CPU devices, against the plain path; and the probe that keeps a wrong one out."""

import contextlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL, random_model

from sftmix_jax.experiment import stage_training
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import attention, gpu_attention, kernels
from sftmix_jax.models.attention import Scores
from sftmix_jax.models.compute import Compute, ComputeConfig
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
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
        return lambda q, k, v: jnp.where(inside, path(q, k, v, segments, Scores(head_dim**-0.5)) * direction, 0).sum()

    def attend(*inputs):
        return kernels.attend(kernel, mesh, *inputs)

    with jax.default_matmul_precision("highest"):
        mine = jax.jit(jax.value_and_grad(total(attend), argnums=(0, 1, 2)))(q, k, v)
        plain = jax.jit(jax.value_and_grad(total(attention.attend), argnums=(0, 1, 2)))(q, k, v)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "scores",
    [Scores(0.2, window=40), Scores(0.2, cap=0.5), Scores(0.1, cap=2.0, window=150)],
    ids=["window", "cap", "both"],
)
@pytest.mark.parametrize("kernel", ["plain", "splash"])
def test_windows_and_soft_caps_are_those_of_scores_written_out(kernel, scores):
    """Values and gradients in float32, against all scores at once with a mask."""
    rng, mesh = np.random.default_rng(0), mesh_of(1, 1)
    q, direction = (rng.standard_normal((2, 256, 4, 32)).astype(np.float32) for _ in range(2))
    k, v = (rng.standard_normal((2, 256, 2, 32)).astype(np.float32) for _ in range(2))
    segments = np.stack([np.repeat([1, 2, 3, 0], [100, 28, 100, 28]), np.repeat([1, 2], [255, 1])]).astype(np.int32)
    apart = np.arange(256)[:, None] - np.arange(256)
    visible = (segments[:, :, None] == segments[:, None]) & (apart >= 0) & (apart < (scores.window or 256))

    def written_out(q, k, v):
        found = jnp.einsum("btnh,bsnh->bnts", q, jnp.repeat(k, 2, axis=2)) * scores.scale
        found = scores.cap * jnp.tanh(found / scores.cap) if scores.cap else found
        weights = jax.nn.softmax(jnp.where(visible[:, None], found, -jnp.inf), axis=-1)
        return jnp.einsum("bnts,bsnh->btnh", weights, jnp.repeat(v, 2, axis=2))

    def total(path):
        inside = (segments > 0)[..., None, None]
        summed = lambda q, k, v: jnp.where(inside, path(q, k, v) * direction, 0).sum()  # noqa: E731
        return jax.jit(jax.value_and_grad(summed, (0, 1, 2)))

    with jax.default_matmul_precision("highest"):
        mine = total(lambda q, k, v: kernels.attend(kernel, mesh, q, k, v, segments, scores))(q, k, v)
        wanted = total(written_out)(q, k, v)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", ["cudnn", "triton"])
def test_a_kernel_without_an_option_says_so_and_the_plain_path_does_it(kernel):
    mesh, sizes = mesh_of(1, 1), (4, 2, 32, 512)
    assert kernels.probe(kernel, mesh, "bfloat16", *sizes, Scores(1.0, window=64)) == "does not support windows"
    assert kernels.probe(kernel, mesh, "bfloat16", *sizes, Scores(1.0, cap=5.0)).endswith("a soft cap on scores")
    q = jnp.ones((1, 256, 4, 32))
    asked = (q, q[:, :, :2], q[:, :, :2], jnp.ones((1, 256), jnp.int32), Scores(1.0, window=64))
    np.testing.assert_array_equal(kernels.attend(kernel, mesh, *asked), attention.attend(*asked))


@pytest.mark.parametrize("remat", [pytest.param("none", marks=pytest.mark.slow), "full"])
def test_a_training_step_with_splash_is_the_step_without(remat):
    mesh, rng = mesh_of(2, 2), np.random.default_rng(0)
    tokens = rng.integers(0, 61, (4, 129)).astype(np.int32)
    segments = np.repeat([[1, 2, 0]], [70, 50, 8], axis=1).repeat(4, 0).astype(np.int32)
    batch = {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "loss_weights": (segments > 0).astype(np.float32),
        "segment_ids": segments,
        "positions": np.broadcast_to(np.arange(128, dtype=np.int32), (4, 128)),
        "domain_ids": 0 * segments,
    }

    def step(kernel):
        compute, optimizer = Compute("float32", remat, kernel), make_optimizer(OptimizerConfig())
        trainer = make_trainer(SMALL, compute, optimizer, mesh, domains=1, grad_accum_steps=1)
        params = sharding.put_tree(random_model(), trainer.abstract.params)
        state = (params, trainer.init_optimizer(params))
        _, measured = trainer.train_step(type(trainer.abstract)(*state), sharding.put_batch(mesh, batch, 4), 1e-3)
        return jax.device_get((measured.sums.loss, measured.grad_norm))

    for mine, plain in zip(step("splash"), step("plain"), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-4)


def test_the_probe_passes_a_kernel_that_agrees_and_names_one_that_does_not(monkeypatch):
    mesh = mesh_of(2, 1)
    kernels.probe.cache_clear()
    assert kernels.probe("splash", mesh, "bfloat16", 4, 2, 32, 640, Scores(32**-0.5)) == ""
    right = kernels._splash

    def blind(q, k, v, segment_ids, **options):
        return right(q, k, v, jnp.ones_like(segment_ids), **options)  # documents see each other

    def broken(*_, **__):
        raise RuntimeError("no such chip")

    for kernel, said in ((blind, "differs from the plain path by"), (broken, "does not run here (no such chip)")):
        monkeypatch.setattr(kernels, "_splash", kernel)
        kernels.probe.cache_clear()
        assert kernels.probe("splash", mesh, "bfloat16", 4, 2, 32, 640, Scores(32**-0.5)).startswith(said)
    kernels.probe.cache_clear()


def test_a_kernel_that_fails_its_probe_is_left_out_with_a_warning(monkeypatch, capsys):
    resolved = SimpleNamespace(compute=Compute("float32", "none", "splash"), base=SimpleNamespace(config=SMALL))
    monkeypatch.setattr(kernels, "probe", lambda *_: "differs from the plain path by 40.0%")
    assert stage_training._checked(resolved, mesh_of(1, 1), 512) == Compute("float32", "none", "plain")
    assert "warning: attention kernel 'splash' differs from the plain path by 40.0%" in capsys.readouterr().err


def test_kernels_are_tried_in_order_until_one_agrees(monkeypatch, capsys):
    resolved = SimpleNamespace(compute=Compute("bfloat16", "none", "mosaic"), base=SimpleNamespace(config=SMALL))
    probed = []

    def probe(name, *_):
        probed.append(name)
        return "" if name == "triton" else "does not run here (no such chip)"

    monkeypatch.setattr(kernels, "probe", probe)
    assert stage_training._checked(resolved, mesh_of(1, 1), 512).attention == "triton"
    assert probed == ["mosaic", "cudnn", "triton"]
    assert "'cudnn' does not run here (no such chip); trying 'triton'" in capsys.readouterr().err


def test_documents_start_where_their_ids_change():
    segments = np.array([[1, 1, 1, 2, 2, 3, 0, 0], [1, 2, 3, 3, 3, 3, 3, 3], [0] * 8], np.int32)
    wanted = [[0, 0, 0, 3, 3, 5, 6, 6], [0, 1, 2, 2, 2, 2, 2, 2], [0] * 8]
    np.testing.assert_array_equal(gpu_attention.document_starts(jnp.asarray(segments)), wanted)


def test_the_kernel_is_chosen_by_backend_and_unknown_ones_are_named():
    assert ComputeConfig().resolved(SMALL, "tpu").attention == "splash"
    assert ComputeConfig().resolved(SMALL, "gpu").attention == "mosaic"
    assert ComputeConfig().resolved(SMALL, "cpu").attention == "plain"
    assert ComputeConfig(attention="plain").resolved(SMALL, "tpu").attention == "plain"
    with pytest.raises(UserError, match=r"model\.compute\.attention: .flash.; must be .*; did you mean .splash.\?"):
        ComputeConfig(attention="flash").resolved(SMALL, "tpu")


@pytest.fixture
def hopper(monkeypatch):
    """Lower for a GPU that is not here: what asks for the chip is told that it is an H100 with cuDNN 9.13."""
    from jax._src.cudnn import fused_attention_stablehlo as fused

    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91300)
    monkeypatch.setattr(fused, "check_compute_capability", lambda *_: True)
    monkeypatch.setattr(fused, "is_cuda_compute_capability_equal", lambda capability: capability == "9.0")
    with contextlib.suppress(ImportError):  # from jax 0.11 on Triton's kernels ask too
        from jax._src.pallas.triton import gpu_info

        monkeypatch.setattr(gpu_info, "get_gpu_info", lambda: SimpleNamespace(compute_capability=90))
    with contextlib.suppress(ImportError):
        from tokamax._src import gpu_utils

        for name in ("has_mosaic_gpu_support", "is_sm80", "is_sm90", "is_sm100"):
            monkeypatch.setattr(gpu_utils, name, lambda *_, name=name: name in ("has_mosaic_gpu_support", "is_sm90"))


@pytest.mark.parametrize("head_dim", [64, 96, 128])
@pytest.mark.parametrize("kv_heads", [8, 2])
@pytest.mark.parametrize("kernel", kernels.BY_BACKEND["gpu"])
def test_gpu_kernels_lower_for_cuda_forward_and_backward(hopper, kernel, kv_heads, head_dim):
    """Whether they run is for tests on a GPU to say."""
    if kernel == "mosaic":
        pytest.importorskip("tokamax", reason="tokamax is not installed (Python 3.12 or later)")
    q, k = (jax.ShapeDtypeStruct((2, 1024, heads, head_dim), jnp.bfloat16) for heads in (8, kv_heads))
    segments = jax.ShapeDtypeStruct((2, 1024), jnp.int32)
    attend = getattr(gpu_attention, kernel)

    def total(q, k, v, segments):
        options = {"scores": Scores(head_dim**-0.5)} | ({"interpret": False} if kernel == "triton" else {})
        return attend(q, k, v, segments, **options).astype(jnp.float32).sum()

    traced = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2))).trace(q, k, k, segments)
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert {"mosaic": "mosaic_gpu", "cudnn": "cudnn$fmhaSoftmaxBackward", "triton": "triton"}[kernel] in program
