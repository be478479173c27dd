"""Whole runs through the command line: resume, share, refuse, stop."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import jax
import pytest
from conftest import ROOT, SMALL, call, random_model, run, save_model
from etils import epath
from test_sources import write_lines

from sftmix_jax.analysis import curves
from sftmix_jax.data import packing
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment import runner as experiments
from sftmix_jax.experiment.opening import Opening, open_stage, stage_folders
from sftmix_jax.experiment.stages import TINY, Resolved
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.tiny import domains
from tests.campaigns import _scratch as scratch

CONFIG = """
from sftmix_jax.experiment import strategies
from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.experiment.config import CheckpointConfig, Experiment, LoggingConfig, ModelConfig, Stage
from sftmix_jax.training.optimizer import OptimizerConfig


def get_config(k="0.25"):
    batch, optimizer = BatchConfig(batch_size=4, seq_len=64), OptimizerConfig(learning_rate=1e-3)
    pattern = Stage(epochs=1, batch=batch, optimizer=optimizer)
    specialised = {"code": Share(count=60), "math": Share(count=60)}
    return Experiment(
        name="dmt" if float(k) else "mixed_sequential",
        domains={name: Source(f"tiny:{name},rows=100", validation_rows=8) for name in ("math", "code", "general")},
        stages=strategies.dmt(pattern, specialised, {"general": Share(count=60)}, float(k)),
        model=ModelConfig(init="hf:MODEL"),
        template="chatml",
        checkpoints=CheckpointConfig(every=5),
        logging=LoggingConfig(every=1, validation_every=10),
    )
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A two-stage experiment from a small random model with the toy's tokenizer."""
    folder = tmp_path_factory.mktemp("config")
    architecture = Architecture(1536, 16, 32, 2, 2, 1, 8, 128, tied=True)
    save_model(folder / "model", architecture, random_model(architecture))
    Tokenizer(str(TINY)).save(folder / "model")
    (folder / "config.py").write_text(CONFIG.replace("MODEL", str(folder / "model")))
    return folder / "config.py"


def train(config, workdir, *more: str, k: str = "0.25") -> subprocess.CompletedProcess:
    return run("sftmix_jax.train", f"--config={config}:{k}", f"--workdir={workdir}", *more)


def done(workdir) -> dict[str, dict]:
    """Each finished stage's done.json, by the folder's name."""
    return {file.parent.name: json.loads(file.read_text()) for file in workdir.glob("stages/*/done.json")}


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """The uninterrupted run."""
    workdir = tmp_path_factory.mktemp("finished")
    result = train(config, workdir)
    assert result.returncode == 0, result.stderr
    return workdir


def test_a_run_accounts_for_every_row_and_learns(finished):
    stages = done(finished)
    assert sorted(name.partition("-")[0] for name in stages) == ["general", "specialised"]
    for name, record in stages.items():
        for domain, rows in record["rows"].items():
            parts = [v for k, v in rows.items() if k not in ("stored", "of them truncated", "skipped")]
            assert sum(parts) + sum(rows["skipped"].values()) == rows["stored"] == 100, domain
        lines = [json.loads(line) for line in (finished / "stages" / name / "metrics.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines if "loss" in line]
        assert steps == list(range(1, record["steps"] + 1))
        assert {"validation_loss/math", "validation_loss/code", "validation_loss/general"} <= set(lines[-1])
        drawn = curves.of_stage(name, lines)
        assert drawn.validation.values.keys() == {f"validation_loss/{domain}" for domain in ("math", "code", "general")}
        assert {"loss", "grad_norm", "learning_rate", "tokens_per_second"} <= drawn.training.values.keys()
    general = next(r for n, r in stages.items() if n.startswith("general"))
    assert {d: a["examples"] for d, a in general["ledger"].items()} == {"general": 60, "code": 15, "math": 15}
    assert next(iter((finished / "experiments").iterdir())).name == "dmt.json"


@pytest.fixture
def one_device(monkeypatch):
    """As a command started by `run` has, for those in this process."""
    monkeypatch.setattr(experiment, "make_mesh", partial(experiment.make_mesh, devices=jax.devices()[:1]))


def test_the_same_command_again_does_nothing(config, finished, one_device):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("done.json")}
    again = call("train", f"--config={config}:0.25", f"--workdir={finished}")
    assert again.returncode == 0 and again.stderr.count("done already") == 2
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("done.json")}


def test_experiments_that_prompt_their_base_otherwise_have_a_base_each(config, tmp_path):
    """One with the same template shares the folder, wherever the same model lies."""
    copied = shutil.copytree(config.parent / "model", tmp_path / "model")
    asked = {
        "chatml": [],
        "vicuna_v1.1": ["--config.template=vicuna_v1.1"],
        "copy": [f"--config.model.init=hf:{copied}"],
        "bfloat16": ["--config.model.compute.dtype=bfloat16"],
    }
    workdir, folders = epath.Path(tmp_path / "w"), {}
    for name, more in asked.items():
        resolved = Resolved(experiment.read([f"--config={config}:0.25", *more]))
        folders[name] = experiments.write_base(resolved, workdir)
    assert folders["copy"] == folders["chatml"]
    assert len(set(folders.values())) == 3 == len(stage_folders(workdir, "base"))
    for name in ("chatml", "vicuna_v1.1"):
        assert open_stage(folders[name], Opening()).chat.name == name


def test_the_order_of_a_stages_domains_is_in_its_identity_as_it_decides_that_of_the_rows(config):
    resolved = [Resolved(experiment.read([f"--config={config}:0.25"])) for _ in range(2)]
    stage = resolved[1].experiment.stages["specialised"]
    stage.mixture = dict(reversed(stage.mixture.items()))
    plans = [one.plan(one.chain()[0].stage)[0] for one in resolved]
    rows = [
        {plan.names[d] + str(e) for d, e in zip(*order, strict=True)}
        for plan in plans
        for order in [(plan.order.domains[:20], plan.order.examples[:20])]
    ]
    assert rows[0] != rows[1]
    assert resolved[0].chain()[0].id != resolved[1].chain()[0].id


@pytest.mark.slow
def test_a_checkpoint_of_other_rows_than_the_plans_is_refused(tmp_path, monkeypatch):
    """As of a version that packed in another way: some rows would be trained on twice and others never."""
    monkeypatch.setattr(experiment, "make_mesh", partial(experiment.make_mesh, devices=jax.devices()[:1]))
    model, workdir = scratch.save_model(tmp_path / "model"), epath.Path(tmp_path)
    own = scratch.experiment(model, name="own")
    own.stages = {"first": own.stages["first"]}
    (folder,) = experiments.run(own, workdir)
    before = json.loads((folder / "done.json").read_text())
    (folder / "done.json").unlink()
    (folder / "checkpoints" / "6").rmtree()
    original = packing.best_fit
    with monkeypatch.context() as other:
        other.setattr(packing, "best_fit", lambda lengths, capacity: original(lengths, capacity)[::-1])
        with pytest.raises(UserError, match=r"after step 3 was trained on other rows than this .* plans \(\{'math"):
            experiments.run(own, workdir)
    experiments.run(own, workdir)
    assert json.loads((folder / "done.json").read_text())["params_sha256"] == before["params_sha256"]


@pytest.mark.slow
def test_experiments_that_share_a_stage_train_it_once(config, finished, tmp_path):
    workdir = tmp_path / "workdir"
    shutil.copytree(finished, workdir)
    before = set(done(workdir))
    other = train(config, workdir, k="0")
    assert other.returncode == 0 and other.stderr.count("done already") == 1, other.stderr
    new = set(done(workdir)) - before
    assert len(new) == 1 and next(iter(new)).startswith("general-")


def test_a_changed_config_is_not_continued(config, finished, one_device):
    flags = (f"--config={config}:0.25", f"--workdir={finished}", "--config.stages.general.optimizer.learning_rate=0.5")
    changed = call("train", *flags)
    assert changed.returncode == 2 and "Traceback" not in changed.stderr
    assert "stages.general.optimizer.learning_rate: 0.001 → 0.5" in changed.stderr


@pytest.mark.slow
def test_what_does_not_decide_the_result_is_not_in_the_identity(config, finished):
    other = train(config, finished, "--config.logging.every=7", "--config.checkpoints.every=9")
    assert other.returncode == 0 and other.stderr.count("done already") == 2


def start(config, workdir) -> subprocess.Popen:
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, "-m", "sftmix_jax.train", f"--config={config}:0.25", f"--workdir={workdir}"]
    return subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)


def wait_for_step(workdir, step: int, timeout: float = 120) -> None:
    begin = time.monotonic()
    while time.monotonic() - begin < timeout:
        if any(f'"step": {step},' in file.read_text() for file in workdir.glob("stages/*/metrics.jsonl")):
            return
        time.sleep(0.05)
    pytest.fail("the run never got there")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_exit_and_the_same_command_goes_on(config, finished, tmp_path, number, code):
    process = start(config, tmp_path)
    wait_for_step(tmp_path, 3)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code and len(done(tmp_path)) < 2  # it has not gone on to the end
    assert "the same command goes on" in said and "Traceback" not in said
    resumed = train(config, tmp_path)
    assert resumed.returncode == 0 and re.search(r"goes on after step [1-9]\d* of \d+", resumed.stderr)
    assert_equal(done(tmp_path), finished)


def assert_equal(found: dict[str, dict], finished) -> None:
    wanted = {name: record for name, record in done(finished).items() if name in found}
    assert len(found) == 2
    for name, record in found.items():
        for key in ("params_sha256", "ledger", "rows", "steps", "validation_loss"):
            assert record[key] == wanted[name][key], (name, key)


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(config, finished, tmp_path):
    """SIGKILL after a random time, ten times in all over as many runs as that takes; tests/campaigns/kills.py: 200."""
    rng = random.Random(0)
    begin = time.monotonic()
    assert train(config, tmp_path / "whole").returncode == 0
    length = time.monotonic() - begin
    kills = runs = 0
    while kills < 10:
        workdir = tmp_path / str(runs)
        runs += 1
        while True:
            process = start(config, workdir)
            try:
                process.communicate(timeout=rng.uniform(0.2 * length, length))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                continue
            assert process.returncode == 0
            break
        assert_equal(done(workdir), finished)


@pytest.mark.slow
def test_a_flipped_bit_in_the_newest_checkpoint_is_survived(config, finished, tmp_path):
    workdir = tmp_path / "workdir"
    shutil.copytree(finished, workdir)
    stage = next(workdir.glob("stages/general-*"))
    (stage / "done.json").unlink()
    victim = max((p for p in stage.glob("checkpoints/*/**/*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 16
    victim.write_bytes(bytes(data))
    again = train(config, workdir)
    assert again.returncode == 0 and "has changed since it was saved" in again.stderr
    assert_equal(done(workdir), finished)


@pytest.mark.slow
def test_stages_are_sampled_scored_and_exported(finished, tmp_path):
    sampled = run(
        "sftmix_jax.sample",
        f"--workdir={finished}",
        "--stage=specialised",
        "--prompt=Say apple.",
        "--json",
        "--max_new_tokens=5",
        "--num_samples=2",
        "--temperature=1",
    )
    lines = [json.loads(line) for line in sampled.stdout.splitlines()]
    assert len(lines) == 2 and all(set(line) == {"prompt", "response", "tokens", "finish_reason"} for line in lines)
    pairs = write_lines(tmp_path / "pairs.jsonl", [{"prompt": "Say apple.", "completion": "apple"}])
    scored = json.loads(run("sftmix_jax.sample", f"--workdir={finished}", f"--score={pairs}", "--json").stdout)
    assert scored["log_likelihood"] < 0 and scored["num_tokens"] >= 2
    evaluated = run("sftmix_jax.evaluate", f"--workdir={finished}", "--tasks=tiny_math", "--limit=4", "--json")
    records = json.loads(evaluated.stdout)
    assert len(records) >= 3 and all(record["metrics"]["strict"]["n"] == 4 for record in records)
    for key in ("task_version", "data", "template", "few_shot", "extraction", "decoding", "stops", "padding", "model"):
        assert all(key in record["fixed_by"] for record in records), key
    assert all(len(record["fixed_by"]["stops"]["tokens"]) >= 1 for record in records)
    for file in finished.glob("stages/*/eval/tiny_math/responses.jsonl"):
        assert len(file.read_text().splitlines()) == 4
    out = tmp_path / "export"
    assert run("sftmix_jax.export", f"--workdir={finished}", "--stage=specialised", f"--out={out}").returncode == 0
    stage = next(finished.glob("stages/specialised-*"))
    again = [
        run("sftmix_jax.sample", f"--model={model}", "--prompt=Say apple.", "--max_new_tokens=8", "--json").stdout
        for model in (out, stage)
    ]
    assert again[0] == again[1] != ""
    told = [
        run("sftmix_jax.sample", model, f"--score={pairs}", "--json").stdout
        for model in (f"--model={out}", f"--model={stage}")
    ]
    assert json.loads(told[0]) == json.loads(told[1])
    over = run("sftmix_jax.export", f"--workdir={finished}", f"--out={finished}")
    assert over.returncode == 2 and "not replaced" in over.stderr


BAD = [
    (["--config.model.init=hf:/nowhere"], "no model folder /nowhere"),
    (["--config.model.init=scratch:7b"], "config.model.tokenizer"),
    (["--config.model.init=banana"], "must be tiny, hf:"),
    (["--config.template=vicuna"], "did you mean 'vicuna_v1.1'"),
    (["--config.stages.general.batch.seq_len=4096"], "the model was made for 128"),
    (["--config.domains.math.path=nowhere.jsonl"], "no file nowhere.jsonl"),
    (["--config.mesh.data=3"], "mesh"),
    (
        ["--config.stages.general.batch.batch_size=3", "--config.stages.general.batch.grad_accum_steps=2"],
        "must divide batch_size=3",
    ),
    (["--config.domains.math.format=alpakka"], "did you mean 'alpaca'"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "said"), BAD)
def test_bad_input_ends_with_exit_code_2_and_a_message(config, tmp_path, flags, said):
    result = train(config, tmp_path / "workdir", *flags)
    assert result.returncode == 2 and said in result.stderr
    assert "Traceback" not in result.stderr and result.stderr.startswith("error: ")


@pytest.mark.slow
def test_a_tokenizer_larger_than_the_model_is_refused(config, tmp_path):
    save_model(tmp_path / "model", SMALL, random_model())
    Tokenizer(str(TINY)).save(tmp_path / "model")
    result = train(config, tmp_path / "workdir", f"--config.model.init=hf:{tmp_path / 'model'}")
    assert result.returncode == 2 and "has 1536 tokens, the model 61" in result.stderr


@pytest.mark.slow
def test_a_workdir_that_cannot_be_written_is_explained(config, tmp_path):
    (tmp_path / "file").write_text("")
    result = train(config, tmp_path / "file")
    assert result.returncode == 2 and "Traceback" not in result.stderr


def test_toy_rows_are_plain_rows(tmp_path):
    """The toy's rows are read like anyone's files."""
    from sftmix_jax.data.sources import Source, read_conversations

    for name in ("math", "code", "general"):
        path = write_lines(tmp_path / f"{name}.jsonl", domains.train_rows(name, 20))
        assert [m for _, m in read_conversations(Source(path))] == [
            m for _, m in read_conversations(Source(f"tiny:{name},rows=20"))
        ]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "said"), [("size=300k", "the disk is full"), ("size=1m,ro", "is read-only")])
def test_a_full_and_a_read_only_disk_are_named(config, tmp_path, options, said):
    if os.getuid() != 0 or not shutil.which("unshare"):
        pytest.skip("only root can mount a small disk")
    train = f"{sys.executable} -m sftmix_jax.train --config={config}:0.25 --workdir={tmp_path}/workdir"
    command = f"mount -t tmpfs -o {options} none {tmp_path} && exec {train}"
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": ""},
    )
    if "mount:" in ended.stderr:
        pytest.skip(f"cannot mount here: {ended.stderr}")
    assert ended.returncode == 2 and said in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
