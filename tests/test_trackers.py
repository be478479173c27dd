"""Trackers hold every step once, whatever ends the stage; read back by their file formats, without a network."""

import functools
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, call, random_model, save_model
from etils import epath

from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment import measuring, tracking
from sftmix_jax.experiment.stages import TINY
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models.architecture import Architecture
from sftmix_jax.training import trackers
from sftmix_jax.training.metrics import LoggingConfig, MetricsFile
from sftmix_jax.training.trackers import Trackers
from sftmix_jax.training.trackers.tracker import Tracked


def tensorboard_events(folder: Path) -> list:
    """The events of all files in the order in which TensorBoard reads them; TFRecord: length, CRC, data, CRC."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="tensorboardX is not installed")
    events = []
    for file in sorted((folder / "tensorboard").iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            events.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + size]))
            at += 12 + size + 4
    return events


def points(expected: list[tuple[int, float]]) -> list:
    """Float32 is what an event file keeps."""
    return [(step, pytest.approx(value)) for step, value in expected]


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows by tag: a START at step s removes what came before it of step s and later."""
    tags: dict[str, list[tuple[int, float]]] = {}
    for event in tensorboard_events(folder):
        if event.session_log.status == 1:
            tags = {tag: [(step, v) for step, v in known if step < event.step] for tag, known in tags.items()}
        for value in event.summary.value:
            tags.setdefault(value.tag, []).append((event.step, value.simple_value))
    return tags


def wandb_records(folder: Path) -> list[list]:
    """The records of each offline run of a stage, oldest first, once wandb's own process has written all of them."""
    deadline = time.monotonic() + 30
    while True:
        runs = [read_records(file) for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]
        ended = [any(record.WhichOneof("record_type") == "exit" for record in records) for records in runs]
        if all(ended) or time.monotonic() > deadline:
            return runs
        time.sleep(0.1)


def read_records(file: Path) -> list:
    """A .wandb file is a LevelDB log of protobuf records."""
    pb2 = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="wandb is not installed")
    data, at, part, records = file.read_bytes(), 7, b"", []
    assert data[:4] in (b":W&B", b"")
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:  # the end of a block is padding
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            records.append(pb2.Record.FromString(part))
            part = b""
    return records


def history(records: list) -> list[dict]:
    rows = [record.history.item for record in records if record.WhichOneof("record_type") == "history"]
    found = [{item.key or item.nested_key[0]: json.loads(item.value_json) for item in row} for row in rows]
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in found]


def header(records: list):
    return next(record.run for record in records if record.WhichOneof("record_type") == "run")


def exit_codes(records: list) -> list[int]:
    return [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]


def line(step: int) -> dict:
    return {"step": step, "loss": 1.0 / step, "loss/math": 2.0 / step, "tokens": 10 * step}


def tracked(folder: Path) -> Tracked:
    return Tracked(epath.Path(folder), "dmt", {"seed": 7, "mixture": {"math": {"count": 3}}})


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_DIR", raising=False)


BOARD, WANDB = LoggingConfig(tensorboard=True), LoggingConfig(wandb="sft mix")


def test_tensorboard_shows_every_step_of_a_resumed_run_once(tmp_path):
    """Killed at step 5 with a checkpoint of step 3, whose validation losses are measured again."""
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    killed = Trackers(tracked(tmp_path), BOARD)  # never closed
    metrics = MetricsFile(epath.Path(tmp_path), 0, killed, every=1)
    for step in range(1, 6):
        metrics.write(line(step))
        if step == 3:
            metrics.write({"step": 3, "validation_loss/math": 9.0})
    assert [step for step, _ in shown(tmp_path)["loss"]] == [1, 2, 3, 4, 5]  # on the disk without a close
    with Trackers(tracked(tmp_path), BOARD) as resumed:
        metrics = MetricsFile(epath.Path(tmp_path), 3, resumed, every=1)
        metrics.write({"step": 3, "validation_loss/math": 8.0})
        for step in range(4, 8):
            metrics.write(line(step))
        resumed.score({"score/tiny_math/accuracy": 0.5}, 7)
        metrics.close()
    found = shown(tmp_path)
    for tag in ("loss", "loss/math", "tokens"):
        assert found[tag] == points([(step, line(step)[tag]) for step in range(1, 8)])
    assert found["validation_loss/math"] == [(3, 8.0)] and found["score/tiny_math/accuracy"] == [(7, 0.5)]
    assert set(found) == {"loss", "loss/math", "tokens", "validation_loss/math", "score/tiny_math/accuracy"}


def test_wandb_has_a_run_per_stage_with_everything_in_it(tmp_path, offline):
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("specialised-0123", "general-4567"):
        folder = tmp_path / name
        folder.mkdir()
        with Trackers(tracked(folder), WANDB) as tracking:
            metrics = MetricsFile(epath.Path(folder), 0, tracking, every=1)
            for step in (10, 20):
                metrics.write(line(step))
            metrics.write({"step": 20, "validation_loss/math": 1.25})  # after the line of its step
            metrics.close()
            tracking.score({"score/gsm8k/accuracy": 0.75}, 20)
    for name in ("specialised-0123", "general-4567"):
        (records,) = wandb_records(tmp_path / name)
        about = header(records)
        assert (about.run_id, about.run_group, about.project) == (name, "dmt", "sft mix")
        config = {update.key: update.value_json for update in about.config.update}
        assert json.loads(config["seed"]) == 7 and json.loads(config["mixture"]) == {"math": {"count": 3}}
        assert history(records) == [
            line(10),
            line(20),
            {"step": 20, "validation_loss/math": 1.25},
            {"step": 20, "score/gsm8k/accuracy": 0.75},
        ]
        assert exit_codes(records) == [0]
        last = {}
        for record in records:
            if record.WhichOneof("record_type") == "summary":
                last |= {(u.key or u.nested_key[0]): u.value_json for u in record.summary.update}
        assert json.loads(last["score/gsm8k/accuracy"]) == 0.75


def test_a_resumed_stage_goes_on_in_its_wandb_run_and_loses_no_step(tmp_path, offline):
    """Stopped at step 5, resumed from a checkpoint of step 3: lower steps than the last one seen are kept."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    for start, steps in ((0, range(1, 6)), (3, range(4, 8))):
        try:
            with Trackers(tracked(tmp_path), WANDB) as tracking:
                metrics = MetricsFile(epath.Path(tmp_path), start, tracking, every=1)
                for step in steps:
                    metrics.write(line(step))
                metrics.close()
                if not start:
                    raise UserError("the loss is nan")
        except UserError:
            time.sleep(1.1)  # wandb names a run's folder by the second
    first, second = wandb_records(tmp_path)
    assert header(first).run_id == header(second).run_id == tmp_path.name
    assert [row["step"] for row in history(first)] == [1, 2, 3, 4, 5] and exit_codes(first) == [1]
    assert [row["step"] for row in history(second)] == [3, 4, 5, 6, 7] and exit_codes(second) == [0]


EARLY_END = """
import socket, time
from etils import epath
from sftmix_jax.machine import processes
from sftmix_jax.training.metrics import LoggingConfig
from sftmix_jax.training.trackers import Trackers
from sftmix_jax.training.trackers.tracker import Tracked

ours, theirs = socket.socketpair()
tracking = Trackers(Tracked(epath.Path({folder!r}), "dmt", {{}}), LoggingConfig(tensorboard=True, wandb="p"))
tracking.begin(0)
for step in range(1, 4):
    tracking.log({{"step": step, "loss": 1.0}})
processes._watch = processes._Watch({{1: ours}})
theirs.close()  # the other process dies
time.sleep(60)
"""


def test_trackers_are_closed_when_another_process_ends_this_one(tmp_path, offline):
    pytest.importorskip("wandb", reason="wandb is not installed")
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    done = subprocess.run(
        [sys.executable, "-c", EARLY_END.format(folder=str(tmp_path))],
        cwd=ROOT,
        timeout=100,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    (records,) = wandb_records(tmp_path)
    assert [row["step"] for row in history(records)] == [1, 2, 3] and exit_codes(records) == [1]
    assert shown(tmp_path)["loss"] == [(1, 1.0), (2, 1.0), (3, 1.0)]


def test_a_missing_package_is_named_before_anything_is_written(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    for logging, said in ((BOARD, r"logging\.tensorboard needs tensorboardX"), (WANDB, r"logging\.wandb needs wandb")):
        with pytest.raises(UserError, match=said):
            trackers.require(logging)
    trackers.require(LoggingConfig())


def test_no_tracker_is_opened_for_a_stage_with_nothing_new(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "KNOWN", (_Broken,))
    with Trackers(tracked(tmp_path), BOARD) as tracking:
        tracking.score({}, 5)
    with pytest.raises(AssertionError), Trackers(tracked(tmp_path), BOARD) as tracking:
        tracking.score({"score/a/b": 1.0}, 5)


class _Broken:
    @staticmethod
    def is_asked(logging):
        return True

    def __init__(self, *_):
        raise AssertionError("opened")


STOPPED_AND_RESUMED = """
import os, signal, sys, time
from etils import epath
from sftmix_jax.experiment import runner as experiments
from sftmix_jax.experiment import strategies
from sftmix_jax.machine import compilation
from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Share
from sftmix_jax.data.sources import Source
from sftmix_jax.evaluation.config import EvaluationConfig
from sftmix_jax.experiment.config import CheckpointConfig, Experiment, ModelConfig, Stage
from sftmix_jax.training.loop import Stopped
from sftmix_jax.training.metrics import LoggingConfig, MetricsFile

compilation.set_up()
pattern = Stage(steps=6, batch=BatchConfig(batch_size=2, seq_len=64))
config = Experiment(
    name="tracked",
    domains={name: Source(f"tiny:{name},rows=100", validation_rows=8) for name in ("math", "code")},
    stages=strategies.sequential(pattern, {"math": Share(count=60), "code": Share(count=60)}),
    model=ModelConfig(init="hf:" + sys.argv[1]),
    template="chatml",
    checkpoints=CheckpointConfig(every=2),
    logging=LoggingConfig(every=1, validation_every=2, tensorboard=True, wandb="p"),
    evaluation=EvaluationConfig(tasks=("tiny_math",), limit=1),
)
write = MetricsFile.write


def write_and_stop(metrics, record):
    write(metrics, record)
    if record["step"] == 3:
        os.kill(os.getpid(), signal.SIGTERM)


MetricsFile.write = write_and_stop
try:
    experiments.run(config, epath.Path(sys.argv[2]))
except Stopped as stopped:
    assert stopped.code == 143
    time.sleep(1.1)  # wandb names a run's folder by the second
else:
    raise AssertionError("not stopped")
MetricsFile.write = write
experiments.run(config, epath.Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def stopped_and_resumed(tmp_path_factory) -> Path:
    """A workdir of two stages and the base; SIGTERM while the first stage reports its step 3."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    workdir = tmp_path_factory.mktemp("tracked")
    architecture = Architecture(1536, 16, 32, 2, 2, 1, 8, 128, tied=True)
    save_model(workdir / "model", architecture, random_model(architecture))
    Tokenizer(str(TINY)).save(workdir / "model")
    done = tracked_run("-c", STOPPED_AND_RESUMED, str(workdir / "model"), str(workdir))
    assert done.returncode == 0, done.stderr
    return workdir


def tracked_run(*arguments: str, **more: str) -> subprocess.CompletedProcess:
    """Python on one device, with W&B offline."""
    environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "WANDB_DIR")}
    environment |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", **more}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        timeout=200,
        check=False,
        capture_output=True,
        text=True,
    )


def test_an_experiment_stopped_and_resumed_is_whole_in_both_trackers(stopped_and_resumed):
    """The reference is metrics.jsonl."""
    for name in ("math", "code"):
        (folder,) = stopped_and_resumed.glob(f"stages/{name}-*")
        lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
        runs = wandb_records(folder)
        assert {header(records).run_id for records in runs} == {folder.name}
        assert {header(records).run_group for records in runs} == {"tracked"}
        assert [exit_codes(records) for records in runs] == ([[143], [0]] if name == "math" else [[0]])
        rows = [row for records in runs for row in history(records)]
        assert all(any(text == row for row in rows) for text in lines)
        scores = tracking.scores(epath.Path(folder))
        assert {"score/tiny_math/strict"} <= set(scores) and rows[-1] == {"step": 6, **scores}
        board = shown(folder)
        for key in ("loss", f"validation_loss/{name}"):
            expected = [(text["step"], text[key]) for text in lines if key in text]
            assert board[key] == points(expected) and len(expected) >= 3
        assert {tag: board[tag] for tag in scores} == {tag: points([(6, value)]) for tag, value in scores.items()}
    (base,) = stopped_and_resumed.glob("stages/base-*")
    assert [history(records)[0]["step"] for records in wandb_records(base)] == [0]


def test_scores_of_evaluate_reach_the_trackers_of_their_stage(stopped_and_resumed, tmp_path, offline):
    """Two experiments hold each stage and ask for the same trackers: each score is sent once, and none again."""
    workdir = tmp_path / "workdir"
    shutil.copytree(stopped_and_resumed, workdir)
    record = json.loads((workdir / "experiments" / "tracked.json").read_text())
    record["experiment"]["name"] = "second"
    (workdir / "experiments" / "second.json").write_text(json.dumps(record))
    folders = {folder: 0 if folder.name.startswith("base") else 6 for folder in workdir.glob("stages/*")}
    known = {folder: len(wandb_records(folder)) for folder in folders}
    asked = (f"--workdir={workdir}", "--tasks=tiny_code", "--limit=1")
    for ask in (functools.partial(tracked_run, "-m", "sftmix_jax.evaluate"), functools.partial(call, "evaluate")):
        done = ask(*asked)
        assert done.returncode == 0 and "warning: scores" not in done.stderr, done.stderr
    assert len(folders) == 3
    for folder, step in folders.items():
        all_scores = tracking.scores(epath.Path(folder))
        scores = {tag: value for tag, value in all_scores.items() if tag.startswith("score/tiny_code/")}
        runs = wandb_records(folder)
        assert scores and len(runs) == known[folder] + 1
        about = header(runs[-1])
        assert (about.run_id, about.run_group, about.project) == (folder.name, "second", "p")
        assert history(runs[-1]) == [{"step": step, **scores}] and exit_codes(runs[-1]) == [0]
        board = shown(folder)
        for tag, value in scores.items():
            assert board[re.sub(r"[@, ]", "_", tag)] == points([(step, value)])  # as TensorBoard wants its tags
        assert board["score/tiny_math/strict"] == points([(step, all_scores["score/tiny_math/strict"])])


def test_evaluate_goes_on_without_a_tracker_that_it_cannot_open(stopped_and_resumed, tmp_path, offline, monkeypatch):
    workdir = tmp_path / "workdir"
    shutil.copytree(stopped_and_resumed, workdir)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "wandb" else find(name, *more))
    monkeypatch.setitem(sys.modules, "wandb", None)  # its import fails
    done = call("evaluate", f"--workdir={workdir}", "--stage=code", "--tasks=tiny_code", "--limit=1")
    (folder,) = workdir.glob("stages/code-*")
    assert done.returncode == 0 and (folder / "eval" / "tiny_code" / "score.json").exists(), done.stderr
    said = f"warning: scores of {folder.name} are not sent to its trackers: config.logging.wandb needs wandb: pip "
    assert done.stderr.count(said) == 1, done.stderr


def test_scores_are_sent_though_a_later_task_fails(tmp_path, monkeypatch):
    """The next run takes them from the disk, and finds nothing new."""
    stored: dict[str, float] = {}

    def run_task(model, name, config, judge):
        if name == "b":
            raise UserError("no data")
        stored["score/a/right"] = 0.5

    monkeypatch.setattr(measuring.runner, "run_task", run_task)
    monkeypatch.setattr(measuring, "judge_of", lambda *_: None)
    monkeypatch.setattr(tracking, "scores", lambda folder: dict(stored))
    model, sent = SimpleNamespace(folder=epath.Path(tmp_path)), []
    for _ in range(2):
        with pytest.raises(UserError):
            measuring.run_tasks(model, SimpleNamespace(tasks=("a", "b")), None, sent.append)
    assert sent == [{"score/a/right": 0.5}]
