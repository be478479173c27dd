"""A run that is killed and resumed is compared with one that is not; what differs is found and named."""

import copy
import dataclasses
import shutil
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT, random_model, run, save_model
from etils import epath

from sftmix_jax.data import loader
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment import runner as experiments
from sftmix_jax.experiment import stage_training
from sftmix_jax.experiment.stages import TINY, Resolved
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.parallel import sharding
from sftmix_jax.parallel.sharding import MeshConfig
from sftmix_jax.resuming import layouts, records, runs, verdict
from sftmix_jax.resuming.check import Check, Findings, Kill
from sftmix_jax.resuming.kills import Pace, Watch
from sftmix_jax.resuming.runs import Command, Layout
from sftmix_jax.resuming.shortening import Length, measure, shortened, write
from sftmix_jax.training.batch_hash import batch_hash
from sftmix_jax.training.checkpoints import Checkpoints

CONFIG = """
from sftmix_jax.experiment import strategies
from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment.config import Experiment, ModelConfig, Stage
from sftmix_jax.training.optimizer import OptimizerConfig


def get_config():
    batch, optimizer = BatchConfig(batch_size=4, seq_len=64), OptimizerConfig(learning_rate=1e-3)
    pattern = Stage(epochs=1, batch=batch, optimizer=optimizer)
    specialised = {"code": Share(count=60), "math": Share(count=60)}
    return Experiment(
        name="small",
        domains={name: Source(f"tiny:{name},rows=100", validation_rows=4) for name in ("math", "code", "general")},
        stages=strategies.dmt(pattern, specialised, {"general": Share(count=80)}, k=0.25),
        model=ModelConfig(init="hf:MODEL"),
        template="chatml",
    )
"""
RNG = np.random.default_rng(5)
BATCH = {name: RNG.integers(0, 1500, (4, 6)).astype(np.int32) for name in ("tokens", "targets", "loss_mask")}


def mix(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) % 2**32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) % 2**32
    return x ^ (x >> 16)


def by_hand(batch) -> str:
    """The hash in Python's integers, value by value."""
    words = ""
    for salt in (0x9E3779B9, 0x7F4A7C15):
        total = 0
        for number, name in enumerate(sorted(batch)):
            for (row, column), value in np.ndenumerate(batch[name]):
                total += mix(int(value) ^ mix(mix(mix(salt + number) ^ row) ^ column))
        words += f"{total % 2**32:08x}"
    return words


def test_a_batch_hash_does_not_depend_on_the_mesh():
    for data, fsdp, tensor in ((2, 2, 2), (1, 4, 2), (1, 1, 8)):
        placed = sharding.put_batch(sharding.make_mesh(MeshConfig(data, fsdp, tensor)), BATCH, 4)
        assert batch_hash(placed) == by_hand(BATCH)


def test_a_batch_hash_changes_with_every_value_and_with_the_order_of_rows():
    hashes = {batch_hash(jax.device_put(BATCH))}
    for name in BATCH:
        for place in np.ndindex(4, 6):
            changed = {key: value.copy() for key, value in BATCH.items()}
            changed[name][place] += 1
            hashes.add(batch_hash(jax.device_put(changed)))
    hashes.add(batch_hash(jax.device_put({name: value[[1, 0, 2, 3]] for name, value in BATCH.items()})))
    renamed = {"tokens": BATCH["targets"], "targets": BATCH["tokens"], "loss_mask": BATCH["loss_mask"]}
    hashes.add(batch_hash(jax.device_put(renamed)))
    assert len(hashes) == 1 + 3 * 24 + 2


# A run that is cut off behind a checkpoint and resumed, in this process and with one compiled trainer for all.


class Cut(Exception):
    """The end of a run that is cut off."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A shortened experiment of two stages, its uninterrupted run, and a workdir cut off at step 5 of the second."""
    folder = tmp_path_factory.mktemp("world")
    architecture = Architecture(1536, 16, 32, 1, 2, 1, 8, 128, tied=True)
    save_model(folder / "model", architecture, random_model(architecture))
    Tokenizer(str(TINY)).save(folder / "model")
    file = folder / "config.py"
    file.write_text(CONFIG.replace("MODEL", str(folder / "model")))
    whole = experiment.read([f"--config={file}"])
    config = shortened(whole, measure(whole, 6))
    with pytest.MonkeyPatch.context() as patch:
        share_trainer(patch)
        experiments.run(config, epath.Path(folder / "uninterrupted"))
        cut_at(patch, 5, stage=2)
        with pytest.raises(Cut):
            experiments.run(config, epath.Path(folder / "cut"))
    return whole, config, folder


TRAINERS: list = []


def share_trainer(patch) -> None:
    """All runs of this file train the same shapes on one device: trace and compile once."""
    make, mesh = stage_training.make_trainer, experiment.make_mesh
    patch.setattr(experiment, "make_mesh", lambda config, architecture: mesh(config, architecture, jax.devices()[:1]))

    def once(*arguments, **named):
        if not TRAINERS:
            TRAINERS.append(make(*arguments, **named))
        return TRAINERS[0]

    patch.setattr(stage_training, "make_trainer", once)


def cut_at(patch, step: int, stage: int) -> None:
    """Raise Cut in place of a step of the n-th stage."""
    batches, started = loader.batches, []

    def until(plan, config, first, stop, part):
        started.append(first)
        for number, batch in enumerate(batches(plan, config, first, stop, part), first + 1):
            if len(started) == stage and number == step:
                raise Cut
            yield batch

    patch.setattr(loader, "batches", until)


def resumed(world, tmp_path, monkeypatch) -> tuple[records.Difference | None, records.Difference | None]:
    """Go on from the cut. → the first difference in what was trained, and in all of the finished run."""
    _, config, folder = world
    shutil.copytree(folder / "cut", tmp_path / "resumed")
    share_trainer(monkeypatch)
    watch = Watch(tmp_path / "resumed")
    experiments.run(config, epath.Path(tmp_path / "resumed"))
    comparison = records.Comparison(records.read(folder / "uninterrupted"))
    found = records.read(tmp_path / "resumed")
    assert watch.trained() == {"general": 4}
    attempt = comparison.attempt(found, watch.trained())
    assert comparison.lines == 3
    return attempt, comparison.whole(found)


def test_a_resumed_run_is_equal(world, tmp_path, monkeypatch):
    assert resumed(world, tmp_path, monkeypatch) == (None, None)


def restart_data(patch):
    batches = loader.batches
    patch.setattr(
        loader, "batches", lambda plan, config, start, stop, part: batches(plan, config, 0, stop - start, part)
    )


def repeat_a_batch(patch):
    batches = loader.batches
    patch.setattr(
        loader, "batches", lambda plan, config, start, stop, part: batches(plan, config, start - 1, stop - 1, part)
    )


def swap_rows(patch):
    put = sharding.put_batch
    patch.setattr(
        sharding, "put_batch", lambda mesh, batch, rows: put(mesh, {k: v[::-1] for k, v in batch.items()}, rows)
    )


def forget_optimizer(patch):
    restore = Checkpoints.restore

    def forgetting(self, abstract):
        state, position = restore(self, abstract)
        return state._replace(opt_state=jax.tree.map(lambda x: x * 0, state.opt_state)), position

    patch.setattr(Checkpoints, "restore", forgetting)


def change_parameters(patch):
    restore = Checkpoints.restore

    def changing(self, abstract):
        state, position = restore(self, abstract)
        return state._replace(params=jax.tree.map(lambda x: x * (1 + 2**-20), state.params)), position

    patch.setattr(Checkpoints, "restore", changing)


def restart_schedule(patch):
    rates = stage_training.learning_rates
    patch.setattr(stage_training, "learning_rates", lambda config, steps: np.roll(rates(config, steps), 3))


def count_a_row_twice(patch):
    """Behind the checkpoint: what it says itself is compared when it is restored."""
    ledger = loader.Plan.ledger

    def wrong(self, step):
        account = ledger(self, step)
        account["general"]["examples"] += step > 3
        return account

    patch.setattr(loader.Plan, "ledger", wrong)


def change_seed(patch):
    """Of the batches alone: a plan of another seed is refused by the checkpoint's ledger."""
    plan, batches, others = Resolved.plan, loader.batches, {}

    def both(self, stage):
        right = plan(self, stage)
        self.experiment.seed += 1
        try:
            others[right[0]], _ = plan(self, stage)
        finally:
            self.experiment.seed -= 1
        return right

    patch.setattr(Resolved, "plan", both)
    patch.setattr(loader, "batches", lambda plan, *more: batches(others[plan], *more))


SABOTAGE = {
    restart_data: (4, "was trained on another batch, that of step 1"),
    repeat_a_batch: (4, "was trained on another batch, that of step 3"),
    swap_rows: (4, "was trained on another batch"),
    forget_optimizer: (5, "the optimizer's state was not"),
    change_parameters: (4, "the parameters are not those that were saved"),
    restart_schedule: (4, ", that of step 1"),
    change_seed: (4, "was trained on another batch"),
}


@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_what_a_resume_gets_wrong_is_found_and_named(world, tmp_path, monkeypatch, sabotage):
    step, said = SABOTAGE[sabotage]
    sabotage(monkeypatch)
    attempt, whole = resumed(world, tmp_path, monkeypatch)
    assert (attempt.stage, attempt.step) == (whole.stage, whole.step) == ("general", step)
    assert said in attempt.text
    assert attempt.measured == (sabotage in (forget_optimizer, change_parameters))


def test_a_wrong_ledger_and_lost_lines_are_found_in_the_finished_run(world, tmp_path, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        count_a_row_twice(patch)
        attempt, whole = resumed(world, tmp_path, patch)
    assert attempt is None and whole.text.startswith("ledger general examples is ") and not whole.measured
    _, _, folder = world
    metrics = next((tmp_path / "resumed").glob("stages/general-*/metrics.jsonl"))
    done = metrics.with_name("done.json")
    done.write_text(next(folder.glob("uninterrupted/stages/general-*/done.json")).read_text())
    comparison = records.Comparison(records.read(folder / "uninterrupted"))
    assert comparison.whole(records.read(tmp_path / "resumed")) is None
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(lines[:1] + lines[2:]))
    assert str(comparison.whole(records.read(tmp_path / "resumed"))) == (
        "stage 'general', step 2: metrics.jsonl has lost its steps line"
    )


def test_rounding_is_allowed_in_measured_numbers_alone():
    line = {
        "step": 1,
        "loss": 2.0,
        "grad_norm": 1.0,
        "learning_rate": 0.1,
        "tokens": 5,
        "trained_tokens": 4,
        "batch": "a",
    }
    done = {"steps": 1, "ledger": {}, "validation_loss": {"math": 3.0}, "params_sha256": "x"}

    def record(**changed):
        return {"only": records.StageRecord("only", "id", {1: line | changed}, {}, done)}

    comparison = records.Comparison(record())
    assert comparison.whole(record(loss=2.0 + 1e-6), 1e-4) is None and comparison.largest == pytest.approx(5e-7)
    assert comparison.whole(record(loss=2.0 + 1e-6)).measured
    for changed in (
        {"loss": 2.1},
        {"loss": float("nan")},
        {"batch": "b"},
        {"learning_rate": 0.1 + 1e-9},
        {"tokens": 6},
    ):
        assert comparison.whole(record(**changed), 1e-4) is not None


def test_a_copy_trains_on_the_first_rows_of_the_experiments_order(world):
    """By count and fraction, and by weight without a budget."""
    weights = dataclasses.replace(
        world[0].stages["general"], steps=20, mixture={"math": Share(weight=0.8), "code": Share(weight=0.2)}
    )
    by_weight = dataclasses.replace(copy.deepcopy(world[0]), stages={"weights": weights})
    for whole in (world[0], by_weight):
        lengths = measure(whole, 4)
        config = shortened(whole, lengths)
        for name, length in lengths.items():
            own, full = (Resolved(each).plan(each.stages[name])[0] for each in (config, whole))
            assert (config.stages[name].steps, own.num_steps) == (4, 4) and length.whole == full.num_steps > 4
            taken, first = own.packed.members, np.arange(len(own.packed.members))
            assert np.array_equal(np.sort(taken), first)
            for which in ("domains", "examples"):
                assert np.array_equal(getattr(own.order, which)[first], getattr(full.order, which)[first])


def test_a_stage_shorter_than_asked_for_is_not_made_longer(world):
    lengths = measure(world[0], 10_000)
    assert all(length.steps == length.whole < 10_000 for length in lengths.values())


# The verb.


def test_process_counts_share_their_devices(world, monkeypatch):
    whole = world[0]
    monkeypatch.setattr(layouts.host_memory, "has_accelerator", lambda: False)
    monkeypatch.setenv("XLA_FLAGS", "")
    assert layouts.find_layouts("1", whole) == [Layout(1)]
    assert layouts.find_layouts("1,2", whole) == [Layout(1, 2), Layout(2, 1)]
    assert layouts.find_layouts("2,4", whole) == [Layout(2, 2), Layout(4, 1)]
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    assert layouts.find_layouts("2", whole) == [Layout(2, 4)]
    for wrong in ("", "0", "1,1", "two", "1, 2", "-1"):
        with pytest.raises(UserError, match="--processes"):
            layouts.find_layouts(wrong, whole)
    with pytest.raises(UserError, match=r"config\.stages\.specialised: a batch of 4 rows cannot be divided among 3"):
        layouts.find_layouts("1,3", whole)
    monkeypatch.setattr(layouts.host_memory, "has_accelerator", lambda: True)
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(UserError, match="JAX_PLATFORMS=cpu"):
        layouts.find_layouts("1,2", whole)


def test_a_verdict_is_narrow_and_says_what_differs(world):
    folder = world[2]
    reference = records.read(folder / "uninterrupted")
    lengths = {name: Length(6, 1000) for name in reference}
    kill = Kill("in a save", "general", 3, Layout(2, 1), 1)
    found = Findings(reference, Pace(1.0, 0.1, 0.1, 9.0, 12), [kill], 1, 20, [Layout(1, 2), Layout(2, 1)])
    spec = "a_config_with_a_rather_long_name.py --config.stages.general.optimizer.learning_rate=1e-4 --config.seed=3"
    for difference, log in ((None, None), (records.Difference("general", 4, "was trained on another batch"), folder)):
        found.difference, found.log, found.where = difference, log, "killed run 1, start 2"
        lines = verdict.lines(found, spec, lengths, 3, 100.0)
        assert all(len(line) <= 80 or str(folder) in line for line in lines)
        text = " ".join(" ".join(lines).split())
        assert lines[0] == ("resume_check: DIFFERENT" if difference else "resume_check: EQUAL")
        assert (
            "1 in a save" in text and jax.__version__ in text and spec in text and "1 process × 2 CPU devices" in text
        )
        assert ("stage 'general', step 4: was trained on another batch" in text) == bool(difference)
        assert all(f"{name}-{record.id}" in text for name, record in reference.items())


def test_bad_input_ends_before_anything_is_started(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    ended = run("sftmix_jax.resume_check", "--config=quickstart.py", f"--workdir={tmp_path / 'full'}")
    assert ended.returncode == 2 and "holds something already" in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr and not ended.stdout


ALONE = (Layout(1),)
SABOTAGED = """
import sys
import sftmix_jax.train as train
from sftmix_jax.machine import command
from sftmix_jax.data import loader

batches = loader.batches
loader.batches = lambda plan, config, start, stop, part: batches(plan, config, 0, stop - start, part)
command.run(train.main, train.Options, together=True)
"""


def check(world, tmp_path, launch, kills: int, layouts=ALONE) -> tuple[Findings, list[str]]:
    folder, heard = world[2], []
    write(tmp_path / "shortened.py", [f"--config={folder / 'config.py'}"], "config.py", measure(world[0], 6))
    found = Check(tmp_path / "shortened.py", tmp_path, layouts, kills, launch=launch, say=heard.append).run()
    return found, heard


@pytest.mark.slow
def test_a_data_stream_that_restarts_is_found_in_killed_runs(world, tmp_path):
    """The training command as users start it, but that the loader begins at step 0 after a resume."""
    (tmp_path / "sabotaged.py").write_text(SABOTAGED)

    def launch(arguments, environment, log):
        environment = {**environment, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}  # one device, not the tests' eight
        return Command([sys.executable, str(tmp_path / "sabotaged.py"), *arguments], environment, log)

    # Kills are at random moments: on a busy machine all eight may come before a checkpoint that a run resumes from.
    for number in range(5):
        (runs := tmp_path / f"runs{number}").mkdir()
        found, _ = check(world, runs, launch, 8)
        if found.difference:
            break
    assert "was trained on another batch, that of step" in found.difference.text
    assert not found.difference.measured and found.log.exists() and found.kills


@pytest.mark.slow
def test_kills_on_one_and_two_processes_change_nothing(world, tmp_path):
    found, heard = check(world, tmp_path, runs.train, 4, [Layout(1, 2), Layout(2, 1)])
    assert found.difference is None and len(found.kills) == 4, found
    assert found.hits()["in a save"] >= 1 and found.lines >= 12
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # runs that were equal are deleted
    assert heard[-1].strip() == "finished: equal"
