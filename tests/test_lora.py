"""Adapters and frozen parameters: against PEFT and torch, against full fine-tuning, and through whole runs."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest
from conftest import FLOAT32, ROOT, SMALL, random_model, run, save_model
from etils import epath
from families import TOKENS, transformers_logits, transformers_model
from test_families import architecture, total
from test_llama import logits
from test_training import batch

from sftmix_jax.experiment import checks, opening, runner, stage_training, stages, tuning
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment.load_options import Opening
from sftmix_jax.experiment.stages import TINY
from sftmix_jax.experiment.tuning import Tuning
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import huggingface, lora, peft, table
from sftmix_jax.models.architecture import Lora, adapted
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.planning import costs
from sftmix_jax.training import trainable
from sftmix_jax.training.step import TrainState, make_trainer
from tests.campaigns import _scratch as scratch

ALL = tuple(table.LINEAR)
LORA = Lora(3, 6.0, ALL)


def parts(config, params, adapters=LORA):
    """The weights, and A and B."""
    names = {name for target in adapters.targets for name in table.adapter_names(target)}
    weights = {name: x for name, x in params["layers"].items() if name not in names}
    return {**params, "layers": weights}, {"layers": {name: params["layers"][name] for name in names}}


def in_peft(config, params, folder, adapters=LORA):
    """The model as PEFT reads it: a base that this package exports, and an adapter that it exports."""
    pytest.importorskip("torch")
    library = pytest.importorskip("peft")
    weights, own = parts(config, params, adapters)
    save_model(folder / "base", config, weights)
    peft.save(epath.Path(folder / "adapter"), config, adapters, own, str(folder / "base"))
    base = transformers_model(folder / "base")
    return library.PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)


@pytest.mark.parametrize(
    "case", [*(pytest.param(case, marks=pytest.mark.slow) for case in ("llama", "qwen3")), "gemma2", "phi3", "glm4"]
)
def test_an_adapter_gives_the_logits_that_peft_gives(case, tmp_path):
    """phi3 and glm4 keep several of our weights in one tensor, whose adapter has all their ranks."""
    config = architecture(case)
    params = random_model(adapted(config, LORA))
    found = logits(adapted(config, LORA), params, TOKENS)
    assert np.abs(found - logits(config, parts(config, params)[0], TOKENS)).max() > 0.1
    np.testing.assert_allclose(found, transformers_logits(in_peft(config, params, tmp_path), TOKENS), atol=1e-4)
    whole = lora.merged(params, LORA, parts(config, params)[0])
    np.testing.assert_allclose(logits(config, whole, TOKENS), found, atol=1e-4)


def test_some_targets_alone_are_adapted(tmp_path):
    config, some = architecture("phi3"), Lora(4, 2.0, ("q", "v", "down"))
    params = random_model(adapted(config, some))
    model = in_peft(config, params, tmp_path, some)
    found = logits(adapted(config, some), params, TOKENS)
    np.testing.assert_allclose(found, transformers_logits(model, TOKENS), atol=1e-4)
    assert json.loads((tmp_path / "adapter" / peft.CONFIG).read_text())["rank_pattern"] == {"qkv_proj": 8}


def test_gradients_of_an_adapter_are_torchs(tmp_path):
    config = architecture("qwen3")
    params = random_model(adapted(config, LORA))
    model = in_peft(config, params, tmp_path)
    import torch

    found = model(torch.tensor(TOKENS), use_cache=False).logits[:, :-1].reshape(-1, config.vocab_size)
    wanted = torch.tensor(TOKENS)[:, 1:].reshape(-1)
    torch.nn.functional.cross_entropy(found, wanted, reduction="sum").backward()
    theirs = {name: x.grad.numpy() for name, x in model.named_parameters() if x.requires_grad}
    grads = jax.device_get(jax.jit(jax.grad(lambda params: total(adapted(config, LORA), params)))(params))["layers"]
    for i in range(config.num_layers):
        for name, module in (("q", "self_attn.q_proj"), ("o", "self_attn.o_proj"), ("down", "mlp.down_proj")):
            for own, side in zip(table.adapter_names(name), "AB", strict=True):
                mine = grads[own][i]
                mine = mine.reshape(-1, LORA.rank).T if side == "A" else mine.reshape(LORA.rank, -1).T
                other = theirs[f"base_model.model.model.layers.{i}.{module}.lora_{side}.default.weight"]
                np.testing.assert_allclose(mine, other, atol=1e-4 * np.abs(other).max())
    assert len(theirs) == 2 * len(ALL) * config.num_layers


def trainer(adapters=None, names=(), frozen_dtype="float32", mesh=None, devices=1, optimizer=None, base=SMALL):
    how = Tuning(base, adapters, names, frozen_dtype)
    grid = sharding.make_mesh(mesh or MeshConfig(), jax.devices()[:devices])
    optimizer = optimizer or optax.inject_hyperparams(optax.adam)(learning_rate=0.0)
    made = make_trainer(
        how.architecture,
        FLOAT32,
        optimizer,
        grid,
        domains=2,
        grad_accum_steps=1,
        trainable=how.trainable,
        frozen_dtype=frozen_dtype,
    )
    return how, made


def begin(how, made, params) -> TrainState:
    trained, frozen = how.trainable.split(params)
    trained = sharding.put_tree(trained, made.abstract.params)
    frozen = None if frozen is None else sharding.put_tree(frozen, made.abstract.frozen)
    return TrainState(trained, made.init_optimizer(trained), frozen)


def trained(how, made, params, steps=3, rate=1e-2):
    state, losses = begin(how, made, params), []
    for seed in range(steps):
        state, measured = made.train_step(state, sharding.put_batch(made.mesh, batch(seed=seed), 8), np.float32(rate))
        losses.append(measured.sums.loss.sum())
    return jax.device_get(state), np.array(losses)


def test_only_adapters_are_trained_and_have_moments():
    params = random_model(adapted(SMALL, LORA))
    state, _ = trained(*trainer(LORA), params)
    weights, own = parts(SMALL, params)
    jax.tree.map(np.testing.assert_array_equal, state.frozen, weights)
    assert jax.tree.structure(state.params) == jax.tree.structure(own)
    assert all((x != y).any() for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(own), strict=True))
    size = sum(x.size for x in jax.tree.leaves(own))
    moments = sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim)
    assert moments == 2 * size
    by_hand = 3 * 2 * sum([32 + 32, 32 + 16, 32 + 16, 32 + 32, 32 + 48, 32 + 48, 48 + 32])  # rank × layers × (in + out)
    assert size == by_hand


SGD = optax.inject_hyperparams(optax.sgd)


@functools.cache
def whole_model(tied: bool):
    """After one step in which all is trained."""
    base = dataclasses.replace(SMALL, tied=tied)
    return trained(*trainer(optimizer=SGD(learning_rate=0.0), base=base), random_model(base), 1, 1.0)


@pytest.mark.parametrize(("tied", "name"), [(False, "layers"), (False, "head"), (False, "embed"), (True, "embed")])
def test_gradients_beside_frozen_weights_are_those_of_the_whole_model(tied, name):
    """Tied embeddings have the gradient of the head and that of the embedding."""
    base = dataclasses.replace(SMALL, tied=tied)
    params = random_model(base)
    full, losses = whole_model(tied)
    some, again = trained(*trainer(names=(name,), optimizer=SGD(learning_rate=0.0), base=base), params, 1, 1.0)
    np.testing.assert_allclose(losses, again, rtol=1e-6)
    for mine, wanted in zip(*(jax.tree.leaves(x[name]) for x in (some.params, full.params)), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-6)
    moved = jax.tree.map(lambda x, before: np.abs(x - before).max(), some.params[name], params[name])
    assert min(jax.tree.leaves(moved)) > 1e-3
    assert set(some.params) == {name} and set(some.frozen) == params.keys() - {name}


def test_full_rank_trains_as_full_fine_tuning():
    """With A the identity and B = 0, an SGD step of B moves A B as full fine-tuning moves W; with a small rate A stays
    near the identity."""
    sgd = optax.inject_hyperparams(optax.sgd)
    wide = Lora(32, 32.0, ("gate", "up"))  # inputs of 32: scale 1
    params = random_model(adapted(SMALL, wide))
    for name in wide.targets:
        a, b = table.adapter_names(name)
        params["layers"][a] = np.broadcast_to(np.eye(32, dtype=np.float32), (2, 32, 32)).copy()
        params["layers"][b] = 0 * params["layers"][b]
    state, losses = trained(*trainer(wide, optimizer=sgd(learning_rate=0.0)), params, steps=5, rate=1e-3)
    weights, _ = parts(SMALL, params, wide)
    names = tuple(f"layers.{name}" for name in wide.targets)
    full, wanted = trained(*trainer(names=names, optimizer=sgd(learning_rate=0.0)), weights, steps=5, rate=1e-3)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    whole = lora.merged({**weights, "layers": {**weights["layers"], **state.params["layers"]}}, wide, weights)
    for name in wide.targets:
        before = weights["layers"][name]
        moved = full.params["layers"][name] - before
        np.testing.assert_allclose(whole["layers"][name] - before, moved, atol=0.02 * np.abs(moved).max())


# The second has all three axes.
@pytest.mark.parametrize("mesh", [pytest.param(MeshConfig(1, 8, 1), marks=pytest.mark.slow), MeshConfig(2, 2, 2)])
def test_sharded_training_of_adapters_gives_the_losses_of_one_device(mesh):
    params = random_model(adapted(SMALL, LORA))
    wanted, losses = trained(*trainer(LORA), params)
    found, again = trained(*trainer(LORA, mesh=mesh, devices=8), params)
    np.testing.assert_allclose(again, losses, rtol=1e-5)
    for mine, other in zip(*(jax.tree.leaves(x.params) for x in (found, wanted)), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-4)


def test_some_layers_alone_are_trained():
    params = random_model()
    how, made = trainer(names=("layers.1-1", "embed"))
    state, losses = trained(how, made, params)
    assert np.isfinite(losses).all() and set(state.params) == {"layers", "embed"}
    whole = jax.device_get(how.trainable.joined(state.params, state.frozen))
    for name, x in whole["layers"].items():
        np.testing.assert_array_equal(x[0], params["layers"][name][0])
        assert (x[1] != params["layers"][name][1]).any()
    full = logits(SMALL, params, TOKENS)
    split = how.trainable.split(params)
    np.testing.assert_array_equal(logits(SMALL, how.trainable.joined(*split), TOKENS), full)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("layers.qq",), "no parameters 'layers.qq'; did you mean 'layers.q'"),
        (("layers.1-2",), "the layers of this model are layers.0-1"),
        (("layers.1-0",), "the layers of this model are layers.0-1"),
        (("lm_head",), "no parameters 'lm_head'"),
        (("layers.0-0", "layers.1-1"), "'layers.1-1' is a second range of layers"),
    ],
)
def test_names_that_are_no_parameters_are_refused(names, said):
    with pytest.raises(UserError, match=r"config\.model\.trainable") as error:
        trainable.find(SMALL, names)
    assert said in str(error.value)


def test_the_head_of_tied_embeddings_is_named_embed():
    with pytest.raises(UserError, match="the head of this model is its embedding; name embed"):
        trainable.find(dataclasses.replace(SMALL, tied=True), ("head",))


def test_names_select_the_same_in_any_order():
    named = (experiment.ModelConfig(trainable=names) for names in (("norm", "embed"), ["embed", "norm", "embed"]))
    first, second = (tuning.of_config(model, SMALL) for model in named)
    assert first == second and first.record == second.record


def test_weights_that_were_trained_beside_an_adapter_are_not_rounded_where_it_is_merged():
    """As a stage with a new adapter opens the stage before: frozen weights in bfloat16, trained ones in float32."""
    how = Tuning(SMALL, LORA, ("norm", "layers.q"), "bfloat16")
    whole = random_model(adapted(SMALL, LORA))
    weights, _ = parts(SMALL, whole)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = how.abstract_weights(FLOAT32, sharding.make_mesh(MeshConfig(), jax.devices()[:1]), "float32")
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), wanted)
    assert {str(wanted[name].dtype) for name in ("embed", "head")} == {"bfloat16"}
    on_device = jax.device_put((how.trainable.split(whole)[0], weights), one)
    found = how.whole(*on_device, wanted)
    np.testing.assert_array_equal(found["norm"], weights["norm"])
    assert on_device[0]["layers"]["q"].is_deleted()  # a weight in the wanted dtype is merged where it lies
    a, b = (whole["layers"][name] for name in table.adapter_names("q"))
    by_hand = np.einsum("ldr,lrnh->ldnh", a, b, dtype=np.float64) * LORA.scale + weights["layers"]["q"]
    np.testing.assert_allclose(found["layers"]["q"], by_hand, atol=1e-5)
    assert found["layers"]["up"].dtype == jax.numpy.bfloat16


@pytest.mark.parametrize("names", [(), ("norm", "layers.1-1")])
def test_weights_that_lie_on_many_devices_are_merged_where_they_lie(names, recwarn):
    how, mesh = Tuning(SMALL, LORA, names, "float32"), sharding.make_mesh(MeshConfig(2, 2, 2), jax.devices())
    whole = random_model(adapted(SMALL, LORA))
    weights, _ = parts(SMALL, whole)
    wanted = how.abstract_weights(FLOAT32, mesh, "float32")
    abstract = how.abstract_trained(wanted)
    adapters = [x for name, x in abstract["layers"].items() if "_lora_" in name]
    assert len(adapters) == 2 * len(ALL) and all(x.sharding.is_fully_replicated for x in adapters)
    trained = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), how.trainable.split(whole)[0], abstract)
    found = how.whole(trained, sharding.put_tree(weights, wanted), wanted)
    assert all(
        x.sharding.is_equivalent_to(like.sharding, x.ndim)
        for x, like in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    )
    by_hand = lora.merged(whole, LORA, weights)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), jax.device_get(found), by_hand)
    assert not [str(each.message) for each in recwarn if "donated" in str(each.message)]


@pytest.mark.parametrize(("state", "frozen"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_a_weight_that_is_trained_in_some_layers_is_read_in_the_wider_dtype(state, frozen):
    """Its frozen layers are then rounded no more than `frozen_dtype` does."""
    how = Tuning(SMALL, None, ("layers.1-1",), frozen)
    wanted = how.abstract_weights(FLOAT32, sharding.make_mesh(MeshConfig(), jax.devices()[:1]), state)
    assert wanted["layers"]["q"].dtype == np.float32 and wanted["embed"].dtype == frozen


def test_adapters_start_as_no_change_and_as_peft_draws_them():
    how = Tuning(SMALL, Lora(64, 64.0, ("up", "o")))
    abstract = trainer(how.lora)[1].abstract.params
    drawn = how.fresh(FLOAT32, 0, abstract)["layers"]
    assert (drawn["up_lora_b"] == 0).all() and (drawn["o_lora_b"] == 0).all()
    for name in ("up", "o"):
        a, bound = np.asarray(drawn[f"{name}_lora_a"]), 32**-0.5  # 32 inputs each
        assert np.abs(a).max() <= bound and np.abs(a).std() > 0
        assert a.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)


# Fewer rows than the example makes.
ROWS = (
    *(f"--config.domains.{name}.path=tiny:{name},rows=300" for name in ("math", "code", "general")),
    "--config.stages.specialised.mixture.math.count=100",
    "--config.stages.specialised.mixture.code.count=60",
    "--config.stages.general.mixture.general.count=200",
    "--config.stages.general.mixture.math.count=10",
    "--config.stages.general.mixture.code.count=6",
)
FLAGS = (
    *ROWS,
    "--config.model.lora.rank=4",
    "--config.evaluation.tasks=",
    "--config.checkpoints.every=3",
    "--config.stages.specialised.steps=8",
    "--config.stages.general.steps=8",
    "--config.logging.batch_hashes=true",
)


def train(workdir, *more):
    return run("sftmix_jax.train", "--config=quickstart.py", f"--workdir={workdir}", *FLAGS, *more)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A chain of two stages with one adapter on the bundled base."""
    workdir = tmp_path_factory.mktemp("tuned")
    result = train(workdir)
    assert result.returncode == 0, result.stderr
    return workdir


def folders(workdir) -> dict[str, epath.Path]:
    return {folder.name.rpartition("-")[0]: epath.Path(folder) for folder in (workdir / "stages").iterdir()}


def saved_bytes(folder) -> int:
    return sum(file.stat().st_size for file in pathlib.Path(folder / "checkpoints").rglob("*") if not file.is_dir())


@pytest.mark.slow
def test_a_checkpoint_holds_the_adapter_alone(tuned):
    """The base has 1.1 M parameters, 4.2 MB in float32; an adapter of rank 4 has 76,000, thrice with its moments."""
    for name in ("specialised", "general"):
        assert saved_bytes(folders(tuned)[name]) < 1.2e6 < (TINY / "model.safetensors").stat().st_size


@pytest.mark.slow
def test_a_stage_answers_with_its_adapter_and_so_does_its_export(tuned, tmp_path):
    """The merged weights against the adapter beside the base, and both exports in transformers and PEFT."""
    folder = folders(tuned)["general"]
    record = stages.read_stage(folder)
    base, config = huggingface.load(epath.Path(TINY)), stages.architecture(stages.read_stage(folder))
    adapters = Lora(4, 16.0, ALL)
    how = Tuning(config, adapters)
    own = jax.device_get(stages.trained_params(folder, how.abstract_trained(stages.on_one_device(config))))
    weights = base[1]
    layers = {**weights["layers"], **own["layers"]}
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 40))
    wanted = logits(adapted(config, adapters), {**weights, "layers": layers}, tokens)
    found = logits(config, jax.device_get(stages.stage_params(folder, stages.on_one_device(config))), tokens)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.abs(wanted - logits(config, weights, tokens)).max() > 0.1 and record["base"] == "tiny"

    assert run("sftmix_jax.export", f"--workdir={tuned}", f"--out={tmp_path / 'merged'}").returncode == 0
    result = run("sftmix_jax.export", f"--workdir={tuned}", f"--out={tmp_path / 'adapter'}", "--adapter")
    assert result.returncode == 0, result.stderr
    again = run("sftmix_jax.export", f"--workdir={tuned}", f"--out={tmp_path / 'adapter'}", "--adapter")
    assert again.returncode == 0, again.stderr
    pytest.importorskip("torch")
    library = pytest.importorskip("peft")
    np.testing.assert_allclose(transformers_logits(transformers_model(tmp_path / "merged"), tokens), wanted, atol=1e-4)
    model = library.PeftModel.from_pretrained(transformers_model(TINY), tmp_path / "adapter")
    np.testing.assert_allclose(transformers_logits(model, tokens), wanted, atol=1e-4)


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(tuned, tmp_path):
    command = [sys.executable, "-m", "sftmix_jax.train", "--config=quickstart.py", f"--workdir={tmp_path}", *FLAGS]
    clean = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    process = subprocess.Popen(command, cwd=ROOT, env=clean, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("stages/general-*/checkpoints/3/manifest.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = train(tmp_path)
    assert result.returncode == 0 and "goes on after step" in result.stderr
    for name, folder in folders(tuned).items():
        if name != "base":
            mine, wanted = (json.loads((each / "done.json").read_text()) for each in (folders(tmp_path)[name], folder))
            assert mine["params_sha256"] == wanted["params_sha256"] and mine["ledger"] == wanted["ledger"]


@pytest.mark.slow
def test_a_new_adapter_stands_on_the_merged_weights(tuned, tmp_path):
    """Its stage shares the first stage, answers with both adapters, and has no adapter to export for the base."""
    workdir = tmp_path / "work"
    shutil.copytree(tuned, workdir)
    result = train(workdir, "--config.stages.general.adapter=new", "--config.name=new")
    assert result.returncode == 0 and "done already" in result.stderr, result.stderr
    new = next(
        folder
        for folder in (workdir / "stages").glob("general-*")
        if json.loads((folder / "stage.json").read_text())["adapter"] == "new"
    )
    new = epath.Path(new)
    first, config = folders(workdir)["specialised"], stages.architecture(stages.read_stage(epath.Path(new)))
    where, how = stages.on_one_device(config), Tuning(config, Lora(4, 16.0, ALL))
    merged = jax.device_get(stages.stage_params(first, where))
    merged = jax.tree.map(lambda x: x.astype(jax.numpy.bfloat16).astype(np.float32), merged)  # as it was frozen
    own = jax.device_get(stages.trained_params(new, how.abstract_trained(where)))
    before = jax.device_get(stages.trained_params(first, how.abstract_trained(where)))
    alike = np.corrcoef(before["layers"]["up_lora_a"].ravel(), own["layers"]["up_lora_a"].ravel())[0, 1]
    assert abs(alike) < 0.1  # another A, so that both adapters together have twice the rank
    layers = {**merged["layers"], **own["layers"]}
    wanted = logits(how.architecture, {**merged, "layers": layers}, TOKENS)
    found = logits(config, jax.device_get(stages.stage_params(new, where)), TOKENS)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    refused = run(
        "sftmix_jax.export", f"--workdir={workdir}", f"--stage={new.name}", f"--out={tmp_path / 'a'}", "--adapter"
    )
    assert refused.returncode == 2 and "stands on the merged weights of specialised-" in refused.stderr
    model = opening.open_stage(new, Opening())
    assert model.sampler.stops["tokens"]


@pytest.fixture(scope="module")
def tuned_here(tmp_path_factory):
    """The same of a far smaller model, in this process, both stages with one program: the config, and the workdir."""
    folder = tmp_path_factory.mktemp("here")
    config = scratch.experiment(scratch.save_model(folder / "model"))
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, lora=lora.LoraConfig(rank=4)),
        stages={name: dataclasses.replace(config.stages["first"]) for name in config.stages},
    )
    with pytest.MonkeyPatch.context() as patch, scratch.quiet():
        one = functools.partial(experiment.make_mesh, devices=jax.devices()[:1])
        patch.setattr(experiment, "make_mesh", one)
        patch.setattr(stage_training, "make_trainer", scratch.compiled_once(stage_training.make_trainer))
        runner.run(config, epath.Path(folder / "work"))
    return config, folder / "work"


def check_a_moved_base(trained, changed, last, tmp_path):
    """`changed` names the model's new folder; stages stay as they are, but for where their frozen weights are."""
    workdir, model = epath.Path(tmp_path / "work"), pathlib.Path(changed.model.init.removeprefix("hf:"))
    shutil.copytree(trained, workdir)
    resolved = stages.Resolved(changed)
    runner.register(changed, resolved.base_id, resolved.chain(), workdir)
    folder = folders(workdir)[last]
    config = stages.architecture(stages.read_stage(folder))
    init, base = stages.base_below(folder, stages.read_stage(folder))
    assert init == f"hf:{model}" and base.folder == str(model)
    where = stages.on_one_device(config)
    mine, wanted = (stages.stage_params(each, where) for each in (folder, folders(trained)[last]))
    jax.tree.map(np.testing.assert_array_equal, mine, wanted)
    (model / "config.json").unlink()
    with pytest.raises(UserError, match=r"which cannot be read .*--config\.model\.init naming that place"):
        stages.stage_params(folder, where)


def test_a_base_that_was_moved_is_found_where_the_config_says(tuned_here, tmp_path):
    config, workdir = tuned_here
    shutil.copytree(config.model.init.removeprefix("hf:"), tmp_path / "moved")
    moved = dataclasses.replace(config.model, init=f"hf:{tmp_path / 'moved'}")
    check_a_moved_base(workdir, dataclasses.replace(config, model=moved), "second", tmp_path)


@pytest.mark.slow
def test_the_bundled_base_is_found_where_the_config_says(tuned, tmp_path):
    shutil.copytree(TINY, tmp_path / "moved")
    flags = [*FLAGS, f"--config.model.init=hf:{tmp_path / 'moved'}"]
    check_a_moved_base(tuned, experiment.read(["--config=quickstart.py", *flags]), "general", tmp_path)


def test_stages_that_differ_in_what_is_trained_are_counted_apart_before_their_data_is_here():
    flags = ([], ["--config.model.lora.rank=8"], ["--config.model.lora.rank=16"], ["--config.model.trainable=layers"])
    chains = [costs.stage_costs(experiment.read(["--config=dmt.py:size=7b", *more])) for more in flags]
    assert all(cost.expected for chain in chains for cost in chain)
    assert len(costs.distinct(chains)) == sum(map(len, chains)) == 8


def test_an_adapter_without_a_rank_is_said(tmp_path):
    changed = experiment.read(["--config=quickstart.py", *ROWS, "--config.model.lora.alpha=32"])
    resolved = stages.Resolved(changed)
    assert any("its rank, which is 0" in said for said in checks.warnings(resolved, resolved.chain()))
    plain = stages.Resolved(experiment.read(["--config=quickstart.py", *ROWS]))
    assert not any("rank" in said for said in checks.warnings(plain, plain.chain()))


@pytest.mark.slow
def test_an_adapter_on_a_stage_of_another_workdir(tuned, tmp_path):
    """It answers with both adapters; PEFT has no base to load it onto."""
    first = folders(tuned)["specialised"]
    result = train(tmp_path / "work", f"--config.model.init=stage:{first}")
    assert result.returncode == 0, result.stderr
    folder = folders(tmp_path / "work")["specialised"]
    config = stages.architecture(stages.read_stage(folder))
    where, how = stages.on_one_device(config), Tuning(config, Lora(4, 16.0, ALL))
    below = jax.tree.map(lambda x: x.astype("bfloat16").astype("float32"), stages.stage_params(first, where))
    own = stages.trained_params(folder, how.abstract_trained(where))
    wanted = lora.merged({**below, "layers": {**below["layers"], **own["layers"]}}, how.lora, below)
    jax.tree.map(np.testing.assert_array_equal, stages.stage_params(folder, where), wanted)
    refused = run("sftmix_jax.export", f"--workdir={tmp_path / 'work'}", f"--out={tmp_path / 'a'}", "--adapter")
    assert refused.returncode == 2 and "onto which PEFT cannot load it" in refused.stderr


def test_a_base_that_has_changed_is_refused(tuned_here, tmp_path):
    """The frozen weights are read from where they were, and must be those that were trained with."""
    first = folders(tuned_here[1])["first"]
    stage = json.loads((first / "stage.json").read_text())
    assert stage["parent"].startswith("base:")
    model = save_model(tmp_path / "model", SMALL, random_model())
    record = {**stage, "base": f"hf:{model}"}
    with pytest.raises(UserError, match="which has changed since"):
        stages.starting_weights(first, record, {})


def test_settings_that_do_not_fit_together_are_refused():
    said = {
        "--config.stages.general.adapter=new": "there are no adapters",
        "--config.model.lora.targets=q,wq": "targets",
        "--config.model.trainable=layers.q,layers.nothing": "no parameters 'layers.nothing'",
    }
    for flag, words in said.items():
        with pytest.raises(UserError, match=words):
            assert stages.Resolved(experiment.read(["--config=quickstart.py", flag])).tuning


@pytest.mark.parametrize(
    "name", ["muon", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adafactor", "lion"))]
)
def test_other_optimizers_train_adapters(name):
    """muon takes A and B for the matrices that they are."""
    from sftmix_jax.training.optimizer import OptimizerConfig, make_optimizer

    made = trainer(LORA, optimizer=make_optimizer(OptimizerConfig(name=name, learning_rate=1e-2)))
    params = random_model(adapted(SMALL, LORA))
    state, losses = trained(*made, params)
    assert np.isfinite(losses).all()
    before = parts(SMALL, params)[1]
    assert all((x != y).any() for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(before), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("state", ["bfloat16_moments", "bfloat16"])
def test_adapters_are_kept_in_the_precision_of_the_state(state):
    from sftmix_jax.training import precision

    how = Tuning(SMALL, LORA, (), "bfloat16")
    made = make_trainer(
        how.architecture,
        FLOAT32,
        optax.inject_hyperparams(optax.adam)(learning_rate=0.0),
        sharding.make_mesh(MeshConfig(), jax.devices()[:1]),
        domains=2,
        grad_accum_steps=2,
        kept=precision.find(state),
        trainable=how.trainable,
        frozen_dtype="bfloat16",
    )
    state, losses = trained(how, made, random_model(adapted(SMALL, LORA)))
    assert np.isfinite(losses).all() and {str(x.dtype) for x in jax.tree.leaves(state.frozen)} == {"bfloat16"}
    assert [x.dtype for x in jax.tree.leaves(state.params)] == [x.dtype for x in jax.tree.leaves(made.abstract.params)]
