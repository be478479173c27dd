"""Optimizers by name: all that are offered work on a mesh; weight decay leaves norms and biases out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import FLOAT32, SMALL, random_model
from etils import epath
from test_training import batch, steps

from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import decoder
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.training import optimizer, precision
from sftmix_jax.training.checkpoints import Checkpoints
from sftmix_jax.training.optimizer import OPTIMIZERS, OptimizerConfig, learning_rates, make_optimizer, make_schedule
from sftmix_jax.training.step import TrainState, make_trainer

RATE = 0.01
# One parameter of each kind, and the logical axes of each.
SHAPES = {
    "embed": ((12, 8), ("vocab", "embed")),
    "norm": ((8,), ("norm",)),
    "layers": {
        "o": ((2, 2, 4, 8), ("layers", "heads", "head", "embed")),
        "feed_forward_norm": ((2, 8), ("layers", "norm")),
        "up": ((2, 8, 16), ("layers", "embed", "feed_forward")),
    },
}


def gradients(params, seed: int):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), params)


def sharded_params():
    mesh = sharding.make_mesh(MeshConfig(1, 2, 2), jax.devices()[:4])
    rng = np.random.default_rng(0)

    def one(entry):
        shape, axes = entry
        return sharding.put(rng.standard_normal(shape).astype(np.float32), sharding.sharding(mesh, axes))

    return mesh, jax.tree.map(one, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def two_steps_then_a_third_from_a_checkpoint(name: str, kept: str, folder, **options) -> None:
    """As the training step treats an optimizer: sharded, jitted, its rate set, its moments rounded."""
    mesh, params = sharded_params()
    peak = 1.0 if name in optimizer.RATE_FREE else RATE
    made = make_optimizer(OptimizerConfig(name=name, learning_rate=peak, state=kept, options=options))
    moments = precision.find(kept).moments
    shapes = jax.eval_shape(made.init, params)
    everywhere = sharding.sharding(mesh, ())
    where = precision.map_moments(
        lambda x, param: param.sharding if x.shape == param.shape else everywhere, shapes, params, lambda _: everywhere
    )

    def init(params):
        return precision.cast_moments(params, made.init(params), moments)

    def update(state, grads, rate):
        opt_state = precision.cast_moments(state.params, state.opt_state, "float32")
        opt_state = optax.tree_utils.tree_set(opt_state, learning_rate=rate)
        updates, opt_state = made.update(grads, opt_state, state.params)
        opt_state = precision.narrow_moments(state.params, opt_state, moments, precision.step_key(opt_state))
        return TrainState(optax.apply_updates(state.params, updates), opt_state)

    state = TrainState(params, jax.jit(init, out_shardings=where)(params))
    shardings = TrainState(jax.tree.map(lambda x: x.sharding, params), where)
    step = jax.jit(update, in_shardings=(shardings, shardings.params, everywhere), out_shardings=shardings)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    for seed in range(2):
        state = step(state, gradients(params, seed), np.float32(peak))
    for mine, declared in zip(jax.tree.leaves(state), jax.tree.leaves(abstract), strict=True):
        assert (mine.shape, mine.dtype, mine.sharding) == (declared.shape, declared.dtype, declared.sharding)
        assert np.isfinite(np.asarray(mine, np.float32)).all()
    for mine, before in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        assert (np.asarray(mine) != np.asarray(before)).any()
    # the rate that the step sets is the one that is used
    third, other = (step(state, gradients(params, 2), np.float32(rate)).params for rate in (peak, 0))
    assert any(
        (np.asarray(a) != np.asarray(b)).any() for a, b in zip(*map(jax.tree.leaves, (third, other)), strict=True)
    )
    saves = Checkpoints(epath.Path(folder))
    saves.save(2, state, {})
    saves.close()
    restored = Checkpoints(epath.Path(folder)).restore(abstract)[0]
    resumed = step(restored, gradients(params, 2), np.float32(peak)).params
    jax.tree.map(np.testing.assert_array_equal, resumed, third)


@pytest.mark.parametrize(
    ("name", "kept", "options"),
    [("adafactor", "float32", {"min_dim_size_to_factor": 4}), ("muon", "float32", {}), ("sm3", "float32", {})],
)
def test_optimizers_with_states_of_other_shapes_work_on_a_mesh(name, kept, options, tmp_path):
    two_steps_then_a_third_from_a_checkpoint(name, kept, tmp_path, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_that_is_offered_works_on_a_mesh(name, tmp_path):
    two_steps_then_a_third_from_a_checkpoint(name, "float32", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_works_with_moments_in_bfloat16_or_says_that_it_does_not(name, tmp_path):
    if name in optimizer.RATE_FREE:
        with pytest.raises(UserError, match=r"optimizer\.state: .* measures the distance"):
            make_optimizer(OptimizerConfig(name=name, learning_rate=1.0, state="bfloat16"))
    else:
        two_steps_then_a_third_from_a_checkpoint(name, "bfloat16_moments", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kept"), [("adafactor", "bfloat16"), ("muon", "bfloat16_moments")])
def test_a_model_learns_with_them_on_a_mesh(name, kept):
    config = OptimizerConfig(name=name, learning_rate=RATE, state=kept, options={})
    mesh = sharding.make_mesh(MeshConfig(1, 2, 2), jax.devices()[:4])
    trainer = make_trainer(
        SMALL, FLOAT32, make_optimizer(config), mesh, domains=2, grad_accum_steps=1, kept=precision.find(kept)
    )
    losses, _ = steps(trainer, 8, batches=1)
    assert losses[-1][0].sum() < 0.95 * losses[0][0].sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_moves_every_parameter_and_lowers_the_loss(name):
    """Through the training step, on one batch; the rate-free ones begin with changes of a millionth."""
    config = OptimizerConfig(name=name, learning_rate=1.0 if name in optimizer.RATE_FREE else RATE)
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    trainer = make_trainer(
        SMALL, FLOAT32, make_optimizer(config), mesh, domains=2, grad_accum_steps=1, kept=precision.find("float32")
    )
    start = random_model()
    params = sharding.put_tree(jax.tree.map(np.copy, start), trainer.abstract.params)
    state, losses = TrainState(params, trainer.init_optimizer(params)), []
    on_device = sharding.put_batch(mesh, batch(), 8)
    for _ in range(7):
        state, measured = trainer.train_step(state, on_device, np.float32(config.learning_rate))
        losses.append(float(jax.device_get(measured.sums.loss).sum()))
    assert losses[-1] < losses[0]
    for mine, before in zip(jax.tree.leaves(state.params), jax.tree.leaves(start), strict=True):
        assert np.isfinite(mine).all() and (np.asarray(mine) != before).any()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lbfgs", "line search"),
        ("schedule_free_adamw", "evaluates other parameters"),
        ("rprop", "first step alone"),
        ("scale_by_learning_rate", "no optimizer"),
        ("ScaleByZoomLinesearchState", "no optimizer"),
        ("_deprecated_dpsgd", "no optimizer"),
        ("adamv", "did you mean 'adam"),
        ("AdamW", "mean 'adamw'"),
        ("inject_hyperparams", "no optimizer"),
    ],
)
def test_what_is_no_optimizer_or_needs_more_than_gradients_is_refused(name, said):
    with pytest.raises(UserError, match=rf"optimizer\.name: .*{said}"):
        make_optimizer(OptimizerConfig(name=name))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (OptimizerConfig(options={"weight_decay": 0.1}), r"set optimizer\.weight_decay"),
        (OptimizerConfig(options={"learning_rate": 0.1}), r"set optimizer\.learning_rate"),
        (OptimizerConfig(options={"mask": True}), "leaves norms and biases out"),
        (OptimizerConfig(name="muon", options={"adam_weight_decay": 0.1}), r"set optimizer\.weight_decay"),
        (OptimizerConfig(options={"b_2": 0.9}), "no argument 'b_2'; did you mean 'b2'"),
        (OptimizerConfig(options={"b1": None}), r"b1=None; must be a finite number, at least 0 and below 1"),
        (OptimizerConfig(options={"b2": True}), r"b2=True; must be a finite number, at least 0 and below 1"),
        (OptimizerConfig(options={"b2": 2}), r"b2=2; must be at least 0 and below 1"),
        (OptimizerConfig(options={"b1": 1}), r"b1=1; must be at least 0 and below 1"),
        (OptimizerConfig(options={"eps": -1}), r"eps=-1; must be at least 1e-30 and at most 1"),
        (OptimizerConfig(options={"nesterov": 1}), r"nesterov=1; must be True or False"),
        (OptimizerConfig(options={"mu_dtype": 1.0}), r"mu_dtype=1\.0; must be left out"),
        (OptimizerConfig(name="muon", options={"ns_steps": 2.5}), r"ns_steps=2\.5; must be a whole number"),
        (OptimizerConfig(name="rmsprop", options={"decay": 1.5}), r"decay=1\.5; must be at least 0 and below 1"),
        (OptimizerConfig(name="novograd", weight_decay=0.1), "none that leaves norms and biases out"),
        (OptimizerConfig(name="adafactor", weight_decay=0.1), "none that leaves norms and biases out"),
        (OptimizerConfig(name="prodigy", learning_rate=2e-5), "finds its own rate.*set it to 1"),
        (OptimizerConfig(schedule="cosin"), "did you mean 'cosine'"),
    ],
)
def test_options_that_training_could_not_use_are_refused(config, said):
    with pytest.raises(UserError, match=said):
        optimizer.check(config, 10)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("adam", {"eps_root": 1e30}, "change nothing"),
        ("adafactor", {"clipping_threshold": 1e-300}, "change nothing"),
        ("lars", {"trust_coefficient": 0.0}, "change nothing"),
        ("adafactor", {"weight_decay_rate": 1e30}, "not finite"),
        ("adamw", {"b2": 0.95, "eps": 1e-6}, ""),
    ],
)
def test_options_with_which_nothing_is_trained_are_refused(name, options, said):
    config = OptimizerConfig(name=name, learning_rate=1e-4, options=options)
    if not said:
        return optimizer.check(config, 10)
    with pytest.raises(UserError, match=rf"optimizer\.options: the updates of {name} .*{said}"):
        optimizer.check(config, 10)


def test_weight_decay_is_for_what_has_two_logical_axes_besides_the_layers():
    """All but the norm scales; so are embeddings, as in transformers' Trainer.get_decay_parameter_names."""
    _, params, axes = decoder.build(SMALL, FLOAT32)
    by_axes = jax.tree.map(lambda names: len(set(names) - {"layers"}) >= 2, axes, is_leaf=lambda x: type(x) is tuple)
    assert optimizer.decayed(params) == by_axes
    flat = {jax.tree_util.keystr(path): yes for path, yes in jax.tree_util.tree_leaves_with_path(by_axes)}
    assert {path for path, yes in flat.items() if not yes} == {
        "['norm']",
        "['layers']['attention_norm']",
        "['layers']['feed_forward_norm']",
    }
    bias = {"layers": {"q_bias": jnp.zeros((2, 4))}, "bias": jnp.zeros(4), "head": jnp.zeros((4, 4))}
    assert optimizer.decayed(bias) == {"layers": {"q_bias": False}, "bias": False, "head": True}


def test_muon_takes_the_layers_matrices_from_the_residual_stream_or_to_it():
    """Of every matrix one side is `embed` alone, and the other all axes but that and the layers."""
    _, params, axes = decoder.build(SMALL, FLOAT32)
    found = optimizer._matrices(params)
    assert found["embed"] is found["head"] is found["norm"] is found["layers"]["attention_norm"] is None
    for name, numbers in found["layers"].items():
        if not name.endswith("norm"):
            sides = [tuple(axes["layers"][name][i] for i in side) for side in numbers]
            assert ("embed",) in sides and sum(map(len, sides)) == len(axes["layers"][name]) - 1, name
            assert sides[name in ("o", "down")] == ("embed",), name


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_equals_torchs_with_norms_in_a_group_without_decay(weight_decay):
    torch = pytest.importorskip("torch")
    params = random_model()
    named = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    theirs = {name: torch.nn.Parameter(torch.from_numpy(x.copy())) for name, x in named.items()}
    groups = [
        {"params": [x for name, x in theirs.items() if ("norm" in name) is is_norm], "weight_decay": decay}
        for is_norm, decay in ((False, weight_decay), (True, 0.0))
    ]
    reference = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    made = make_optimizer(OptimizerConfig(learning_rate=RATE, weight_decay=weight_decay, clip_norm=0))
    state = made.init(params)
    for seed in range(4):
        grads = gradients(params, seed)
        updates, state = made.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for path, grad in jax.tree_util.tree_leaves_with_path(grads):
            theirs[jax.tree_util.keystr(path)].grad = torch.from_numpy(grad.copy())
        reference.step()
    for path, mine in jax.tree_util.tree_leaves_with_path(params):
        wanted = theirs[jax.tree_util.keystr(path)].detach().numpy()
        np.testing.assert_allclose(mine, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["adamw", "lion", "nadamw", "adan", "lamb", "muon", "lars"])
def test_decay_moves_matrices_and_no_norm(name):
    """With a gradient of 0: what moves is decayed."""
    params = jax.tree.map(lambda entry: np.ones(entry[0], np.float32), SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    made = make_optimizer(OptimizerConfig(name=name, learning_rate=RATE, weight_decay=0.5, clip_norm=0))
    updates, _ = made.update(jax.tree.map(np.zeros_like, params), made.init(params), params)
    moved = jax.tree.map(lambda x: bool(np.abs(x).max() > 0), updates)
    assert not moved["norm"] and not moved["layers"]["feed_forward_norm"]
    assert moved["layers"]["up"] and moved["layers"]["o"]
    assert moved["embed"] is (name != "muon")  # which leaves embeddings to an AdamW without decay


def test_one_step_of_adamw_with_decay_equals_float64():
    params = {"head": np.array([[1.5, -2.0], [0.25, 4.0]], np.float32), "norm": np.array([1.0, 0.5], np.float32)}
    grads = {"head": np.array([[0.3, -0.1], [2.0, 1e-3]], np.float32), "norm": np.array([0.2, -0.4], np.float32)}
    made = make_optimizer(
        OptimizerConfig(learning_rate=RATE, weight_decay=0.1, clip_norm=0, options={"b1": 0.8, "b2": 0.95})
    )
    updates, _ = made.update(grads, made.init(params), params)
    for name, decay in (("head", 0.1), ("norm", 0.0)):
        p, g = params[name].astype(np.float64), grads[name].astype(np.float64)
        mean, square = 0.2 * g / (1 - 0.8), 0.05 * g * g / (1 - 0.95)
        np.testing.assert_allclose(updates[name], -RATE * (mean / (np.sqrt(square) + 1e-8) + decay * p), rtol=2e-6)


@pytest.mark.parametrize(
    ("warmup", "count", "wanted"),
    [(0.03, 100, 3), (0.29, 100, 29), (1, 100, 1), (7, 100, 7), (500, 100, 99), (0.5, 1, 0), (3, 1, 0), (0.0, 10, 0)],
)
def test_warm_up_is_a_part_of_the_steps_or_their_number(warmup, count, wanted):
    """The rate rises for so many steps, and is at its peak at the last of them."""
    rates = learning_rates(OptimizerConfig(learning_rate=1.0, warmup=warmup, schedule="constant"), count)
    assert rates.shape == (count,) and rates[max(wanted - 1, 0) :] == pytest.approx(1.0)
    assert (np.diff(rates[:wanted]) > 0).all() and (rates > 0).all()
    if wanted:
        assert rates[0] == pytest.approx(1 / wanted, rel=1e-5)


@pytest.mark.parametrize("schedule", optimizer.SCHEDULES)
def test_a_stage_of_one_step_trains_at_the_peak(schedule):
    assert make_schedule(OptimizerConfig(learning_rate=0.5, schedule=schedule), 1)(0) == 0.5
