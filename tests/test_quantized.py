"""Frozen weights in int8 and nf4: against their definitions, in a step, through stages and exports."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FLOAT32, SMALL, random_model, run
from etils import epath
from scipy.stats import norm
from test_llama import logits
from test_lora import LORA, begin
from test_training import batch

from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment import stages, tuning
from sftmix_jax.experiment.config import ModelConfig
from sftmix_jax.experiment.stages import TINY
from sftmix_jax.experiment.tuning import Tuning
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import huggingface, quantized, table
from sftmix_jax.models.architecture import Lora, adapted
from sftmix_jax.models.compute import Compute
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.training import optimizer
from sftmix_jax.training.optimizer import OptimizerConfig
from sftmix_jax.training.step import make_trainer

pytest.importorskip("qwix")


def normal_float() -> np.ndarray:
    """The 16 values of the definition: quantiles of a normal distribution, its largest at 0.9677083, scaled to ±1."""
    above = norm.ppf(np.linspace(0.9677083, 0.5, 9)[:-1])
    below = -norm.ppf(np.linspace(0.9677083, 0.5, 8)[:-1])
    values = np.sort([0.0, *above, *below])
    return values / np.abs(values).max()


def in_blocks(weight: np.ndarray, block: int) -> np.ndarray:
    """nf4 of a matrix [O, I] as torch keeps it, in float64; inputs of an output share their largest value as scale."""
    rows = weight.astype(np.float64).reshape(-1, block)
    scale = np.abs(rows).max(axis=1, keepdims=True)
    values = normal_float()
    nearest = np.abs((rows / scale)[..., None] - values).argmin(axis=-1)
    return (values[nearest] * scale).reshape(weight.shape)


@pytest.mark.parametrize(
    ("shape", "inputs", "block"),
    [((2, 128, 3, 8), 1, 64), ((2, 2, 64, 24), 2, 64), ((2, 96, 5), 1, 48), ((1, 3, 40, 8), 2, 40)],
)
def test_nf4_is_that_of_its_definition(shape, inputs, block):
    weight = np.asarray(jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.bfloat16), np.float32)
    found = quantized.quantized(weight, "nf4", inputs)
    assert found.values.dtype == jnp.uint4 and found.values.shape == shape
    assert found.scales.size * block == weight.size
    for mine, own in zip(quantized.dequantized(found), weight, strict=True):
        size = np.prod(shape[1 : 1 + inputs])
        wanted = in_blocks(own.reshape(size, -1).T, block).T
        np.testing.assert_allclose(mine.reshape(size, -1), wanted, atol=1e-6)


def test_int8_has_a_scale_per_output():
    weight = np.asarray(jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 16, 24)), jnp.bfloat16), np.float32)
    found = quantized.quantized(weight, "int8", 2)
    assert found.values.dtype == np.int8 and found.scales.shape == (2, 1, 1, 24)
    step = np.abs(weight).max(axis=(1, 2), keepdims=True) / 127
    error = np.abs(np.asarray(quantized.dequantized(found)) - weight)
    assert (error <= 0.5 * step + 1e-6).all() and error.max() > 0.4 * step.min()


def made(dtype, adapters=LORA, names=(), *, compute=FLOAT32, config=SMALL, mesh=None, devices=1):
    how = Tuning(config, adapters, names, dtype)
    grid = sharding.make_mesh(mesh or MeshConfig(data=-1, fsdp=1), jax.devices()[:devices])
    return how, make_trainer(
        how.architecture,
        compute,
        optimizer.make_optimizer(OptimizerConfig()),
        grid,
        domains=2,
        grad_accum_steps=1,
        trainable=how.trainable,
        frozen_dtype=dtype,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "names", "devices"), [("int8", (), 1), ("nf4", ("norm", "layers.1-1"), 1), ("nf4", (), 4)]
)
def test_a_step_is_that_of_the_weights_that_they_stand_for(dtype, names, devices):
    """Losses and trained parameters, beside a float32 model with the rounded weights."""
    how, quantised = made(dtype, names=names, devices=devices)
    _, plain = made("float32", names=names, devices=devices)
    trained, frozen = how.trainable.split(random_model(adapted(SMALL, LORA)))
    frozen = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), frozen)
    rounded = jax.tree.map(lambda x: np.asarray(x, np.float32), quantized.rounded(frozen, dtype, "float32"))
    states = [
        begin(how, plain, how.trainable.joined(trained, rounded)),
        begin(how, plain, how.trainable.joined(trained, rounded)),
    ]
    states[1] = states[1]._replace(frozen=tuning.kept(frozen, quantised.abstract.frozen))
    losses = [[], []]
    for seed in range(3):
        rows = sharding.put_batch(plain.mesh, batch(seed=seed), 8)
        for i, trainer in enumerate((plain, quantised)):
            states[i], measured = trainer.train_step(states[i], rows, np.float32(1e-2))
            losses[i].append(float(measured.sums.loss.sum()))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    for mine, other in zip(jax.tree.leaves(states[1].params), jax.tree.leaves(states[0].params), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)


@pytest.mark.slow
def test_a_step_holds_few_bits_of_each_weight_and_dequantises_one_layer_at_a_time():
    """Without rematerialisation, which would keep the weights of all layers for the backward pass."""
    config = dataclasses.replace(SMALL, hidden_size=128, intermediate_size=512, num_layers=12)
    linear = config.num_layers * sum(x.size for x in table.parameters(config) if x.inputs and x.in_layer)
    held, taken = {}, {}
    for dtype in ("float32", "int8", "nf4"):
        _, trainer = made(dtype, Lora(1, 1.0, ("q",)), config=config, compute=Compute("float32", "none"))
        rows = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch().items()}
        rate = jax.ShapeDtypeStruct((), np.float32)
        memory = trainer.train_step.lower(trainer.abstract, rows, rate).compile().memory_analysis()
        held[dtype], taken[dtype] = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    others = held["float32"] - 4 * linear
    assert held["int8"] - others == pytest.approx(linear, rel=0.08)
    assert held["nf4"] - others == pytest.approx(4.5 / 8 * linear, rel=0.08)
    for dtype in ("int8", "nf4"):
        assert taken[dtype] - taken["float32"] < 4 * linear / 2


@pytest.mark.parametrize("mesh", [MeshConfig(data=1, fsdp=2), MeshConfig(data=1, fsdp=1, tensor=2), MeshConfig()])
def test_a_mesh_that_splits_weights_is_refused_before_anything_is_trained(mesh):
    config = experiment.read(
        ["--config=quickstart.py", "--config.model.lora.rank=2", "--config.model.frozen_dtype=nf4"]
    )
    config.mesh = mesh
    with pytest.raises(UserError, match=r"frozen_dtype=nf4: .* lie whole on each device .*mesh\.fsdp=1"):
        experiment.make_mesh(config, SMALL, jax.devices()[:2])
    config.mesh = MeshConfig(data=-1, fsdp=1, tensor=1)
    assert experiment.make_mesh(config, SMALL, jax.devices()[:2]).shape["data"] == 2


def test_what_cannot_be_quantised_is_refused(monkeypatch):
    with pytest.raises(UserError, match=r"frozen_dtype=int8: every parameter is trained.*set config\.model\.lora"):
        tuning.of_config(ModelConfig(frozen_dtype="int8"), SMALL)
    with pytest.raises(UserError, match="frozen_dtype=nf4: no linear weight of a layer is frozen"):
        tuning.of_config(ModelConfig(frozen_dtype="nf4", trainable=("layers",)), SMALL)
    of_some = ModelConfig(frozen_dtype="nf4", trainable=("layers.1-1",))
    record = tuning.of_config(of_some, SMALL).record | {"lora": None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for of_what in (lambda: tuning.of_config(of_some, SMALL), lambda: tuning.of_record(record, SMALL)):
        with pytest.raises(UserError, match=r"frozen weights in nf4 need qwix: pip install 'sftmix-jax\[qlora\]'"):
            of_what()


@pytest.mark.parametrize("dtype", quantized.FORMATS)
def test_a_weight_is_the_same_in_whatever_dtype_it_is_read(dtype):
    """A stage that trains some layers reads a weight in float32; one that is opened reads it in bfloat16."""
    wide = {"layers": {"o": np.random.default_rng(0).standard_normal((2, 4, 64, 24)).astype(np.float32)}}
    narrow = {"layers": {"o": jnp.asarray(wide["layers"]["o"], jnp.bfloat16)}}
    one = quantized.quantized(wide["layers"]["o"], dtype, 2)
    other = quantized.quantized(narrow["layers"]["o"], dtype, 2)
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.scales, other.scales)
    kept = np.asarray(quantized.dequantized(one))
    for read in (wide, narrow):
        found = quantized.rounded(jax.tree.map(jnp.asarray, read), dtype, "float32")["layers"]["o"]
        np.testing.assert_array_equal(found, kept)
    narrowed = quantized.rounded(jax.tree.map(jnp.copy, narrow), dtype, "bfloat16")["layers"]["o"]
    np.testing.assert_array_equal(narrowed, jnp.asarray(kept, jnp.bfloat16))


def test_opening_a_stage_holds_one_copy_of_its_weights():
    """What is rounded to its own dtype takes its own place."""
    weight = jnp.asarray(np.random.default_rng(0).standard_normal((12, 256, 512)), jnp.bfloat16)
    memory = quantized._round_in_place.lower(weight, "nf4", 1, "bfloat16").compile().memory_analysis()
    assert memory.alias_size_in_bytes == weight.nbytes and memory.temp_size_in_bytes < 2 * weight.nbytes


FLAGS = (
    "--config.model.lora.rank=4",
    "--config.model.frozen_dtype=nf4",
    "--config.evaluation.tasks=",
    "--config.stages.specialised.steps=4",
    "--config.stages.general.steps=4",
    "--config.stages.general.adapter=new",
)


@pytest.mark.slow
def test_a_stage_answers_as_it_was_trained_and_a_new_adapter_stands_on_that(tmp_path):
    """By hand from the bundled base: quantised, adapter merged in float32, quantised again under the new adapter."""
    result = run("sftmix_jax.train", "--config=quickstart.py", f"--workdir={tmp_path}", *FLAGS)
    assert result.returncode == 0, result.stderr
    folder = {f.name.rpartition("-")[0]: epath.Path(f) for f in (tmp_path / "stages").iterdir()}
    weights = huggingface.load(epath.Path(TINY))[1]
    config = stages.architecture(stages.read_stage(folder["general"]))
    own = Lora(4, 16.0, LORA.targets)
    how = Tuning(config, own, (), "nf4")
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 40))
    for name in ("specialised", "general"):
        narrow = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), weights)
        frozen = jax.tree.map(lambda x: np.asarray(x, np.float32), quantized.rounded(narrow, "nf4", "float32"))
        adapter = stages.trained_params(folder[name], how.abstract_trained(stages.on_one_device(config)))
        layers = {**frozen["layers"], **jax.device_get(adapter)["layers"]}
        wanted = logits(adapted(config, own), {**frozen, "layers": layers}, tokens)
        weights = jax.device_get(stages.stage_params(folder[name], stages.on_one_device(config)))
        np.testing.assert_allclose(logits(config, weights, tokens), wanted, atol=1e-4)
    again = run("sftmix_jax.train", "--config=quickstart.py", f"--workdir={tmp_path}", *FLAGS)
    assert again.returncode == 0 and again.stderr.count("done already") == 2
