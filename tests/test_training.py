"""Loss, step, schedule and checkpoints."""

import dataclasses
import functools
import json
import os
import shutil
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import FLOAT32, SMALL, random_model
from etils import epath

from sftmix_jax.data.loader import DTYPES
from sftmix_jax.experiment import config as experiment
from sftmix_jax.machine import manifest, ranges
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import decoder, families
from sftmix_jax.models.compute import Compute
from sftmix_jax.parallel import fsdp, sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.training import checkpoints, loss, metrics, precision
from sftmix_jax.training.checkpoints import Checkpoints
from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from sftmix_jax.training.step import Trainer, TrainState, make_trainer

CONFIG = OptimizerConfig(learning_rate=1e-2)


def batch(rows: int = 8, length: int = 48, seed: int = 0) -> dict[str, np.ndarray]:
    """Two documents of two domains a row, and padding."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 61, (rows, length + 1))
    segments = np.repeat([[1, 2, 0]], [20, 20, length - 40], axis=1).repeat(rows, 0)
    positions = np.concatenate([np.arange(20), np.arange(20), np.zeros(length - 40)])[None].repeat(rows, 0)
    mask = (rng.random((rows, length)) < 0.6) & (segments > 0)
    out = {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "loss_weights": mask,
        "segment_ids": segments,
        "positions": positions,
        "domain_ids": np.where(segments == 2, 1, 0),
    }
    return {key: value.astype(DTYPES[key]) for key, value in out.items()}


def trainer_on(mesh_config: MeshConfig, devices: int, grad_accum_steps: int = 1, kept: str = "float32") -> Trainer:
    mesh = sharding.make_mesh(mesh_config, jax.devices()[:devices])
    return make_trainer(
        SMALL,
        FLOAT32,
        make_optimizer(CONFIG),
        mesh,
        domains=2,
        grad_accum_steps=grad_accum_steps,
        kept=precision.find(kept),
    )


def steps(trainer: Trainer, count: int = 3, batches: int = 99) -> tuple[list[np.ndarray], TrainState]:
    params = sharding.put_tree(random_model(), trainer.abstract.params)
    state = TrainState(params, trainer.init_optimizer(params))
    losses = []
    for seed in range(count):
        on_device = sharding.put_batch(trainer.mesh, batch(seed=seed % batches), 8)
        state, measured = trainer.train_step(state, on_device, np.float32(1e-2))
        losses.append(np.stack(jax.device_get(measured.sums)))
    return losses, state


@functools.cache
def losses_of_one_device() -> list[np.ndarray]:
    return steps(trainer_on(MeshConfig(1, 1, 1), 1))[0]


def test_loss_equals_a_float64_reference():
    """Cross-entropy of each domain's masked tokens, recomputed in float64 from the hidden states."""
    params, b = random_model(), batch()

    @jax.jit
    def both(params, b):
        model = decoder.bind(decoder.build(SMALL, FLOAT32)[0], params)
        return loss.loss_sums(model, b, 2)[1], model(b["tokens"], b["segment_ids"], b["positions"])

    sums, hidden = both(params, b)
    logits = np.asarray(hidden, np.float64) @ np.asarray(params["head"], np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    nll = -np.take_along_axis(log_p, b["targets"][..., None], -1)[..., 0]
    for domain in (0, 1):
        mine = (b["loss_weights"] == 1) & (b["domain_ids"] == domain)
        assert sums.weight[domain] == mine.sum()
        np.testing.assert_allclose(sums.loss[domain], nll[mine].sum(), rtol=1e-5)


def plain_loss(params: decoder.Params, b: dict[str, jax.Array]) -> jax.Array:
    """The summed loss with all logits at once, for jax to differentiate."""
    model = decoder.bind(decoder.build(SMALL, FLOAT32)[0], params)
    logits = model.logits(model(b["tokens"], b["segment_ids"], b["positions"]))
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), b["targets"][..., None], -1)[..., 0]
    return -(log_p * b["loss_weights"]).sum()


plain_gradient = jax.jit(jax.value_and_grad(plain_loss))


@functools.cache
def gradient_in(chunks: int) -> jax.stages.Compiled:
    """Of the loss as it is trained with, in chunks of so many parts of the batch."""

    def ours(params, b):
        return loss.loss_sums(decoder.bind(decoder.build(SMALL, FLOAT32)[0], params), b, 2)[0]

    with mock.patch.object(loss, "LOGITS_BYTES", 4 * 8 * 48 * SMALL.vocab_size // chunks):
        return jax.jit(jax.value_and_grad(ours)).lower(random_model(), batch()).compile()


@pytest.mark.parametrize("chunks", [1, 4, 8])
@pytest.mark.parametrize("trained", ["some", "none", "all", "one row", "fractions"])
def test_the_gradient_made_with_the_loss_is_that_of_the_plain_formula(chunks, trained):
    """In chunks of sorted tokens, of which those without a trained one are left out."""
    params, b = random_model(), {k: jnp.asarray(v) for k, v in batch().items()}
    rows = jnp.arange(8)[:, None]
    everything = (b["segment_ids"] > 0).astype(jnp.float32)
    b["loss_weights"] = {
        "some": b["loss_weights"],
        "none": 0 * everything,
        "all": everything,
        "one row": everything * (rows == 3),
        "fractions": b["loss_weights"] * jax.random.choice(jax.random.key(0), jnp.array([0.0, 0.3, 1.0, 2.5]), (8, 48)),
    }[trained]
    found, wanted = gradient_in(chunks)(params, b), plain_gradient(params, b)
    jax.tree.map(lambda a, c: np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-4), found, wanted)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
def test_gradients_have_the_dtype_of_their_parameters(tied, dtype):
    config, compute = dataclasses.replace(SMALL, tied=tied), Compute("bfloat16", "none")
    definition, abstract, _ = decoder.build(config, compute)
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), abstract)
    on_batch = {k: jnp.asarray(v) for k, v in batch().items()}
    found = jax.eval_shape(
        jax.grad(lambda params: loss.loss_sums(decoder.bind(definition, params), on_batch, 2)[0]), params
    )
    assert {str(x.dtype) for x in jax.tree.leaves(found)} == {dtype}


def test_a_chunk_without_trained_tokens_is_not_worked_through():
    """With the logits of every chunk made not-a-number, a batch without trained tokens has a loss of 0."""
    b = {k: jnp.asarray(v) for k, v in batch().items()}
    broken = random_model() | {"head": jnp.full((SMALL.hidden_size, SMALL.vocab_size), jnp.nan)}
    definition = decoder.build(SMALL, FLOAT32)[0]
    total = jax.jit(lambda params, b: loss.loss_sums(decoder.bind(definition, params), b, 2)[0])
    assert np.isnan(total(broken, b))
    assert total(broken, b | {"loss_weights": 0 * b["loss_weights"]}) == 0


@pytest.mark.parametrize(
    ("mesh", "grad_accum_steps"),
    [
        pytest.param(MeshConfig(8, 1, 1), 1, marks=pytest.mark.slow),
        pytest.param(MeshConfig(1, 8, 1), 1, marks=pytest.mark.slow),
        (MeshConfig(2, 2, 2), 1),  # all axes
        (MeshConfig(1, 4, 2), 2),
        (MeshConfig(1, 1, 1), 4),
    ],
)
def test_the_mesh_and_accumulation_change_no_loss(mesh, grad_accum_steps):
    devices = mesh.data * mesh.fsdp * mesh.tensor
    found, state = steps(trainer_on(mesh, devices, grad_accum_steps))
    np.testing.assert_allclose(found, losses_of_one_device(), rtol=1e-5)
    up = state.params["layers"]["up"]
    assert up.sharding.shard_shape(up.shape) == (2, 32 // mesh.fsdp, 48 // mesh.tensor)
    moment = jax.tree.leaves(optax.tree_utils.tree_get(state.opt_state, "mu")["layers"]["up"])[0]
    assert moment.sharding == up.sharding


@pytest.mark.parametrize(
    ("mesh", "sides"),
    [
        pytest.param(MeshConfig(1, 8, 1), [2, 4], marks=pytest.mark.slow),
        (MeshConfig(1, 8, 1), [2, 2, 2]),
        (MeshConfig(2, 4, 1), [2, 2]),
        (MeshConfig(1, 4, 2), [2, 2]),
    ],
)
def test_weights_gathered_and_scattered_line_by_line_change_no_loss(mesh, sides, monkeypatch):
    """What many chips do, on eight devices that are said to stand in a box."""
    wanted = losses_of_one_device()
    monkeypatch.setattr(fsdp, "MOST_PIECES", 1)
    monkeypatch.setattr(fsdp, "box", lambda mesh: sides)
    found, state = steps(trainer_on(mesh, 8))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    up = state.params["layers"]["up"]
    assert up.sharding.shard_shape(up.shape) == (2, 32 // mesh.fsdp, 48 // mesh.tensor)


def test_training_on_tokens_outside_the_mask_never_happens():
    """Targets that are masked out can be anything."""
    trainer = trainer_on(MeshConfig(1, 1, 1), 1)
    b = batch()
    other = b | {"targets": np.where(b["loss_weights"] == 1, b["targets"], (b["targets"] + 1) % 61)}
    results = []
    for each in (b, other):
        params = sharding.put_tree(random_model(), trainer.abstract.params)
        state = TrainState(params, trainer.init_optimizer(params))
        on_device = sharding.put_batch(trainer.mesh, each, 8)
        results.append(trainer.train_step(state, on_device, np.float32(1e-2))[0].params)
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_adamw_equals_a_hand_worked_update():
    """First step of Adam moves every weight by the learning rate against its gradient's sign."""
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1, warmup=0, clip_norm=0))
    params = {"w": jnp.array([1.0, -2.0])}
    updates, _ = optimizer.update({"w": jnp.array([3.0, -0.5])}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["w"], [-0.1, 0.1], rtol=1e-5)


def test_the_schedule_warms_up_and_ends_at_zero():
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0, warmup=0.1), 100)
    assert [round(float(schedule(s)), 3) for s in (0, 4, 9, 10, 55, 100)] == [0.1, 0.5, 1.0, 1.0, 0.5, 0.0]
    assert make_schedule(OptimizerConfig(learning_rate=1.0), 1)(0) == 1.0


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (OptimizerConfig(name="adamm"), "did you mean 'adam"),
        (OptimizerConfig(schedule="cosin"), "did you mean 'cosine'"),
        (OptimizerConfig(name="sgd", weight_decay=0.1), "takes none"),
        (OptimizerConfig(options={"beta2": 0.9}), "no argument 'beta2'"),
    ],
)
def test_optimizers_that_do_not_exist_are_named(config, said):
    with pytest.raises(UserError, match=said):
        make_schedule(config, 10)
        make_optimizer(config)


def test_any_optax_optimizer_can_be_named():
    for name in ("sgd", "lion", "adafactor", "rmsprop"):
        optimizer = make_optimizer(OptimizerConfig(name=name, learning_rate=0.1, warmup=0))
        params = {"w": jnp.ones((4, 4))}
        updates, _ = optimizer.update(params, optimizer.init(params), params)  # a gradient of ones
        assert (updates["w"] < 0).all(), name


@pytest.mark.parametrize(
    ("mesh", "devices", "said"),
    [(MeshConfig(3, 1, 1), 8, "needs a multiple of 3"), (MeshConfig(2, 1, 1), 8, "there are 8")],
)
def test_meshes_that_do_not_fit_the_devices_are_refused(mesh, devices, said):
    with pytest.raises(UserError, match=said):
        sharding.make_mesh(mesh, jax.devices()[:devices])


def test_one_axis_of_a_mesh_may_be_left_open():
    ranges.check(MeshConfig(2, -1, 1), "config.mesh")
    with pytest.raises(UserError, match=r"config\.mesh: data=-1, fsdp=-1, tensor=1; at most one may be -1"):
        ranges.check(MeshConfig(-1, -1, 1), "config.mesh")


def test_slices_are_joined_along_the_data_axis():
    assert sharding.axis_sizes(MeshConfig(), 32, slices=2) == [2, 16, 1]
    assert sharding.axis_sizes(MeshConfig(data=4, tensor=2), 32, slices=2) == [4, 4, 2]
    with pytest.raises(UserError, match=r"mesh.data=2.*multiple of 4"):
        sharding.axis_sizes(MeshConfig(data=2), 32, slices=4)


@pytest.mark.parametrize(
    ("mesh", "rows", "width", "tensor"),
    [
        (MeshConfig(), 16, 4, 1),
        (MeshConfig(), 4, 4, 2),
        (MeshConfig(), 6, 4, 4),
        (MeshConfig(), 4, 3, 1),
        (MeshConfig(), 3, 4, 1),
        (MeshConfig(tensor=1), 4, 4, 1),
        (MeshConfig(data=4), 4, 4, 2),
        (MeshConfig(data=4), 2, 4, 1),
    ],
)
def test_tensor_parallelism_is_chosen_for_few_rows_where_it_is_left_open(mesh, rows, width, tensor):
    devices = jax.devices()[:8]
    data, _, found = sharding.axis_sizes(sharding.fitted(mesh, devices, rows, width), 8)
    assert (data, found) == (mesh.data, tensor)


def test_a_batch_that_no_mesh_divides_says_what_would_do():
    config = experiment.read(["--config", "quickstart.py"])
    for stage in config.stages.values():
        stage.batch.batch_size = 4
    mesh = experiment.make_mesh(config, families.preset("tiny"), jax.devices()[:8])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 4, "tensor": 2}
    config.stages["general"].batch.batch_size = 3
    with pytest.raises(UserError, match=r"specialised.batch: 4 rows .* set batch.batch_size to a multiple of 8, or"):
        experiment.make_mesh(config, families.preset("tiny"), jax.devices()[:8])


def test_heads_that_the_mesh_cannot_divide_are_named():
    with pytest.raises(UserError, match=r"axis 'kv_heads' of size 2 cannot be divided by mesh.tensor=8"):
        trainer_on(MeshConfig(1, 1, 8), 8)


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    """A stage's checkpoints after steps 1 and 2, both kept."""
    trainer = trainer_on(MeshConfig(1, 1, 1), 1)
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    saves = Checkpoints(epath.Path(folder), keep=2)
    for count in (1, 2):
        _, state = steps(trainer, count)
        saves.save(count, state, {"seconds": 0.0})
    saves.close()
    return trainer, folder, state


@pytest.fixture
def saved(saved_once, tmp_path):
    """A copy of them, to be damaged."""
    trainer, folder, state = saved_once
    shutil.copytree(folder, tmp_path / "checkpoints")
    return trainer, epath.Path(tmp_path / "checkpoints"), [], state


def restore(trainer, folder, said):
    saves = Checkpoints(folder, report=said.append)
    try:
        return saves.restore(trainer.abstract)
    finally:
        saves.close()


def test_what_is_restored_is_what_was_saved(saved):
    trainer, folder, said, state = saved
    found, position = restore(trainer, folder, said)
    jax.tree.map(np.testing.assert_array_equal, found, state)
    assert position["step"] == 2 and not said


def test_a_checkpoint_restores_onto_another_mesh(saved):
    _, folder, said, state = saved
    found, _ = restore(trainer_on(MeshConfig(2, 2, 2), 8), folder, said)
    jax.tree.map(np.testing.assert_array_equal, found.params, state.params)


def test_every_flipped_bit_is_noticed_and_the_checkpoint_before_is_used(saved):
    trainer, folder, said, _ = saved
    files = [f for f in Path(folder / "2").rglob("*") if f.is_file() and f.name != "manifest.json"]
    assert len(files) > 3
    rng = np.random.default_rng(0)
    for file in files:
        data = bytearray(file.read_bytes())
        if not data:
            continue
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        sound = file.read_bytes()
        file.write_bytes(bytes(data))
        assert "has changed" in checkpoints.damage(folder, "", 2)
        file.write_bytes(sound)
    assert checkpoints.damage(folder, "", 2) is None
    files[0].write_bytes(b"x" + files[0].read_bytes()[1:] + b"y")
    _, position = restore(trainer, folder, said)
    assert position["step"] == 1 and "2.damaged" in said[0]


@pytest.mark.parametrize("harm", ["manifest", "file", "truncated"])
def test_unfinished_checkpoints_are_set_aside(saved, harm):
    trainer, folder, said, _ = saved
    newest = folder / "2"
    if harm == "manifest":
        (newest / "manifest.json").unlink()
        (newest / "commit_success.txt").unlink()
    else:
        sums = json.loads((newest / "manifest.json").read_text())["files"]
        name = max(sums.items(), key=lambda item: item[1][0])[0]
        if harm == "file":
            (newest / name).unlink()
        else:
            (newest / name).write_bytes((newest / name).read_bytes()[:-7])
    _, position = restore(trainer, folder, said)
    assert position["step"] == 1 and len(said) == 1 and (folder / "2.damaged").exists()


@pytest.mark.parametrize("is_link", [False, True])
def test_a_checkpoint_that_was_committed_without_its_manifest_is_used_and_sealed(saved, is_link):
    """As where the machine went between the two."""
    trainer, folder, said, state = saved
    (folder / "2" / "manifest.json").unlink()
    if is_link:
        Path(folder / "2" / "manifest.json").symlink_to("/nowhere")
    found, position = restore(trainer, folder, said)
    jax.tree.map(np.testing.assert_array_equal, found, state)
    assert position["step"] == 2 and not said and checkpoints.damage(folder, "", 2) is None


def other_numbers(newest):
    """Sound files of another state: its checksums fit, and only the hash of the state tells."""
    shutil.rmtree(newest / "params")
    shutil.copytree(newest.with_name("1") / "params", newest / "params")


def flipped(newest):
    file = max((newest / "params").rglob("*"), key=lambda f: f.stat().st_size if f.is_file() else 0)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))


def cut(newest):
    for file in [f for f in (newest / "opt_state").rglob("*") if f.parent.name == "d"]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (other_numbers, "its state is not the one"),
        (flipped, "has no manifest"),
        (cut, "cannot be read"),
        (lambda newest: shutil.rmtree(newest / "opt_state"), "cannot be read"),
    ],
)
def test_damage_is_noticed_without_a_manifest(saved, harm, problem):
    trainer, folder, said, _ = saved
    (folder / "2" / "manifest.json").unlink()
    harm(Path(folder / "2"))
    _, position = restore(trainer, folder, said)
    assert position["step"] == 1 and len(said) == 1 and problem in said[0] and "set aside as 2.damaged" in said[0]


def test_a_manifest_in_parts_is_whole_only_with_all_of_them(tmp_path):
    """Each process sums what it has written; a file that is in no part, or changed, is noticed."""
    folder = epath.Path(tmp_path)
    for name in ("_METADATA", "ocdbt.process_0/d/a", "ocdbt.process_1/d/b", "array_metadatas/process_1"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    manifest.seal(folder, {"step": 1}, 0, 2)
    assert not manifest.is_sealed(folder)
    manifest.seal(folder, {"step": 1}, 1, 2)
    assert manifest.is_sealed(folder) and manifest.damage(folder, {"step": 1}) is None
    own = json.loads((folder / "manifest-1.json").read_text())["files"]
    assert set(own) == {"ocdbt.process_1/d/b", "array_metadatas/process_1"}
    (folder / "ocdbt.process_1/d/b").write_text("x")
    assert "process_1/d/b has changed" in manifest.damage(folder, {"step": 1})
    (folder / "manifest-1.json").unlink()
    assert "it was not finished" in manifest.damage(folder, {"step": 1})


def write(text):
    return lambda newest: (newest / "manifest.json").write_text(text)


def without_an_entry(newest):
    record = json.loads((newest / "manifest.json").read_text())
    del record["files"][sorted(record["files"])[0]]
    (newest / "manifest.json").write_text(json.dumps(record))


def dangling(newest):
    file = newest / "position" / "metadata"
    file.unlink()
    file.symlink_to("/nowhere")


def a_file(newest):
    shutil.rmtree(newest)
    newest.write_text("")


def of_another_step(newest):
    shutil.rmtree(newest)
    shutil.copytree(newest.with_name("1"), newest)


def aside_already(newest):
    newest.with_name("2.damaged").symlink_to("/nowhere")
    (newest / "manifest.json").write_text("")


@pytest.mark.parametrize(
    "harm",
    [
        *map(write, ("", "[]", "null", "{}", '{"of": {"stage": "", "step": 2}, "files": {}}', "[" * 50_000, "\0")),
        without_an_entry,
        dangling,
        a_file,
        of_another_step,
        aside_already,
        lambda newest: (newest / "extra").write_text(""),
        lambda newest: os.symlink(newest, newest / "loop"),
        lambda newest: os.mkfifo(newest / "pipe"),
    ],
)
def test_a_checkpoint_that_is_not_what_its_manifest_must_say_is_set_aside(saved, harm):
    trainer, folder, said, _ = saved
    harm(Path(folder / "2"))
    _, position = restore(trainer, folder, said)
    assert position["step"] == 1 and len(said) == 1 and "set aside as 2.damaged" in said[0]


def test_a_checkpoint_of_another_stage_is_not_used(saved):
    trainer, folder, said, _ = saved
    saves = Checkpoints(folder, report=said.append, stage="another")
    assert saves.restore(trainer.abstract) is None and "not of stage another" in said[0]
    saves.close()


def test_without_any_sound_checkpoint_there_is_none(saved):
    trainer, folder, said, _ = saved
    for step in (1, 2):
        (folder / str(step) / "manifest.json").write_text("")
    assert restore(trainer, folder, said) is None and len(said) == 2


def test_a_relative_folder_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = trainer_on(MeshConfig(1, 1, 1), 1)
    _, state = steps(trainer, 1)
    saves = Checkpoints(epath.Path("run/checkpoints"))
    saves.save(1, state, {"seconds": 0.0})
    saves.close()
    found, _ = restore(trainer, epath.Path("run/checkpoints"), [])
    jax.tree.map(np.testing.assert_array_equal, found, state)


def test_rounding_at_random_has_the_right_mean_and_takes_only_the_two_nearest():
    x = jnp.float32(1.0 + 0.3 * 2**-7)  # bfloat16 has 1 and 1 + 2⁻⁷ around it
    drawn = np.asarray(precision.round_at_random(jnp.full(20_000, x), jax.random.key(1)), np.float64)
    assert set(np.unique(drawn)) == {1.0, 1.0 + 2**-7}
    assert drawn.mean() == pytest.approx(float(x), abs=4 * 2**-7 * (0.3 * 0.7 / 20_000) ** 0.5)
    exact = jnp.asarray([0.0, -0.0, 1.5, -3.0, jnp.inf, -jnp.inf, jnp.nan])
    np.testing.assert_array_equal(precision.round_at_random(exact, jax.random.key(2)).astype(jnp.float32), exact)


def test_a_second_moment_in_bfloat16_follows_its_gradients():
    """b2 = 0.999 for 1,000 steps from 0 to squares of 1: 1 − 0.999¹⁰⁰⁰ on average; rounded to the nearest it stops."""

    def run(narrow):
        def step(i, v):
            return narrow(0.999 * v.astype(jnp.float32) + 0.001, jax.random.fold_in(jax.random.key(0), i))

        start = jnp.zeros(4096, jnp.bfloat16)
        return float(jax.lax.fori_loop(0, 1000, step, start).astype(jnp.float32).mean())

    assert run(precision.round_at_random) == pytest.approx(1 - 0.999**1000, rel=0.01)
    assert run(lambda x, key: x.astype(jnp.bfloat16)) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("kept", "devices"), [("bfloat16_moments", 1), ("bfloat16", 2)])
def test_a_narrow_state_learns_as_float32_does(kept, devices):
    trainer = trainer_on(MeshConfig(fsdp=devices), devices, kept=kept)
    losses, state = steps(trainer, 12, batches=1)
    wide, _ = steps(trainer_on(MeshConfig(fsdp=devices), devices), 12, batches=1)
    assert {str(x.dtype) for x in jax.tree.leaves(state.params)} == {precision.find(kept).params}
    first, last, wanted = (each[0].sum() / each[1].sum() for each in (losses[0], losses[-1], wide[-1]))
    assert last < 0.8 * first and last == pytest.approx(wanted, rel=0.1)
    # the state stays as it was declared, or a restored one would be another
    for mine, declared in zip(jax.tree.leaves(state), jax.tree.leaves(trainer.abstract), strict=True):
        assert (mine.shape, mine.dtype) == (declared.shape, declared.dtype)


def test_a_narrow_state_is_resumed_bit_for_bit(tmp_path):
    trainer = trainer_on(MeshConfig(fsdp=2), 2, kept="bfloat16")
    _, half = steps(trainer, 2)
    saves = Checkpoints(epath.Path(tmp_path))
    saves.save(2, half, {})
    saves.close()
    restored = Checkpoints(epath.Path(tmp_path)).restore(trainer.abstract)[0]
    on_device = sharding.put_batch(trainer.mesh, batch(seed=2), 8)
    resumed, _ = trainer.train_step(restored, on_device, np.float32(1e-2))
    for mine, whole in zip(jax.tree.leaves(resumed), jax.tree.leaves(steps(trainer, 3)[1]), strict=True):
        np.testing.assert_array_equal(mine, whole)


def test_unknown_state_dtypes_name_the_nearest():
    with pytest.raises(UserError, match=r"optimizer\.state: .bfloat61.; did you mean .bfloat16.\?"):
        precision.find("bfloat61")


def test_metrics_of_a_cut_off_run_are_written_again(tmp_path):
    """From a checkpoint of step 10 on: its validation losses and all that came later are dropped."""
    lines = [{"step": 5, "validation_loss/a": 1.0}, {"step": 9, "loss": 1.0}, {"step": 10, "loss": 1.0}]
    later = [{"step": 10, "validation_loss/a": 1.0}, {"step": 11, "loss": 1.0}]
    text = "".join(json.dumps(line) + "\n" for line in lines + later)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 12, "lo')
    metrics.MetricsFile(epath.Path(tmp_path), 10, every=10).close()
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == lines


def metrics_after(tmp_path, text: str, start: int) -> list[dict]:
    (tmp_path / "metrics.jsonl").write_bytes(text.encode("latin-1"))
    metrics.MetricsFile(epath.Path(tmp_path), start, every=1).close()
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_metrics_hold_each_step_once_and_say_what_is_lost(tmp_path, capsys):
    lines = [f'{{"step": {step}, "loss": 1.0}}' for step in range(1, 7)]
    damaged = [
        *lines[:2],
        '{"step": 3, "lo',
        lines[3],
        "\xff\0",
        "[]",
        '{"step": "4", "loss": 1.0}',
        lines[3],
        *lines[4:],
    ]
    found = metrics_after(tmp_path, "\n".join(damaged) + "\n", 5)
    assert [record["step"] for record in found] == [1, 2, 4, 5]
    said = capsys.readouterr().err
    assert "left out what cannot be read (line 3, 5, 6, 7)" in said and "1 have no line (the first is 3)" in said
    assert [record["step"] for record in metrics_after(tmp_path, "\n".join(lines) + "\n", 4)] == [1, 2, 3, 4]
    assert not capsys.readouterr().err
    assert metrics_after(tmp_path, "", 2) == [] and "2 have no line" in capsys.readouterr().err


def test_metrics_in_an_object_store_survive_a_resume(monkeypatch, tmp_path):
    """There a file cannot be appended to: what is opened for it replaces what was there."""
    monkeypatch.setattr(metrics.files, "is_remote", lambda path: path.name == "metrics.jsonl")
    for start in (0, 2):
        written = metrics.MetricsFile(epath.Path(tmp_path), start, every=1)
        for step in (start + 1, start + 2):
            written.write({"step": step, "loss": 1.0})
        written.sync()  # and killed
    steps_ = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps_ == [1, 2, 3, 4]


def test_a_validation_batch_in_parts_has_the_losses_of_the_whole():
    whole, parts = trainer_on(MeshConfig(), 1), trainer_on(MeshConfig(), 1, grad_accum_steps=4)
    state, rows = steps(whole, 1)[1], sharding.put_batch(whole.mesh, batch(), 8)
    for mine, wanted in zip(parts.eval_step(state, rows), whole.eval_step(state, rows), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-6)
