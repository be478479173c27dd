"""Several processes on this machine's loopback, with two CPU devices each: one run, whoever of them ends."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from etils import epath
from safetensors.numpy import load_file, save_file
from test_train import CONFIG, config, done, train, wait_for_step  # noqa: F401 (config is a fixture)

from sftmix_jax.data import cache
from sftmix_jax.data.chat import Chat
from sftmix_jax.data.sources import Source
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment import stages
from sftmix_jax.machine import processes
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.processes import Place
from sftmix_jax.models import huggingface

EVALUATION = '        evaluation=EvaluationConfig(tasks=("tiny_math", "tiny_code"), limit=6),\n    )'


@pytest.fixture(scope="module")
def evaluated(config):  # noqa: F811
    """The same experiment, with an evaluation after every stage."""
    file = config.with_name("evaluated.py")
    text = config.read_text().replace("\n    )\n", "\n" + EVALUATION + "\n").replace("batch_size=4", "batch_size=8")
    file.write_text("from sftmix_jax.evaluation.config import EvaluationConfig\n" + text)
    return file


def free_port() -> int:
    """A port whose neighbour is free too."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def start_all(count: int, *arguments: str, devices: int = 2, come: int | None = None, **variables: str):
    """Processes of one run, as a launcher starts them; `come` of them do."""
    port = free_port()
    started = []
    for index in range(count if come is None else come):
        env = (
            os.environ
            | variables
            | {
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(index),
            }
        )
        command = [sys.executable, "-m", "sftmix_jax.train", *arguments]
        started.append(subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True))
    return started


def finish(started, timeout: float = 300) -> list[tuple[int, str]]:
    """Exit code and stderr of each."""
    try:
        said = [process.communicate(timeout=timeout)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


def run_all(count: int, *arguments: str, **settings) -> list[tuple[int, str]]:
    return finish(start_all(count, *arguments, **settings))


def losses(workdir) -> dict[str, list[dict[str, float]]]:
    """The losses of every step, by stage."""
    return {
        file.parent.name: [
            {key: value for key, value in json.loads(line).items() if key.startswith(("step", "loss", "held", "tok"))}
            for line in file.read_text().splitlines()
        ]
        for file in sorted(workdir.glob("stages/*/metrics.jsonl"))
    }


def assert_close(found, wanted) -> None:
    assert found.keys() == wanted.keys() and len(found) == 2
    for stage, lines in wanted.items():
        for mine, theirs in zip(found[stage], lines, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5), stage


@pytest.fixture(scope="module")
def alone(evaluated, tmp_path_factory):
    """What one process makes of it."""
    workdir = tmp_path_factory.mktemp("alone")
    result = train(evaluated, workdir)
    assert result.returncode == 0, result.stderr
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize(("count", "devices"), [(2, 2), (4, 1)])
def test_many_processes_train_and_evaluate_as_one(evaluated, alone, tmp_path, count, devices):
    ended = run_all(count, f"--config={evaluated}:0.25", f"--workdir={tmp_path}", devices=devices)
    assert [code for code, _ in ended] == [0] * count, ended
    assert "specialised" in ended[0][1] and not any("step" in said for _, said in ended[1:])
    assert_close(losses(tmp_path), losses(alone))
    for stage, record in done(alone).items():
        for key in ("ledger", "rows", "steps"):
            assert done(tmp_path)[stage][key] == record[key]
    scores = sorted(alone.glob("stages/*/eval/*/score.json"))
    assert len(scores) == 6
    for file in scores:
        found = json.loads((tmp_path / file.relative_to(alone)).read_text())
        assert found["questions"] == 6 and found["fixed_by"]["data"] == json.loads(file.read_text())["fixed_by"]["data"]


@pytest.mark.slow
def test_a_checkpoint_of_four_processes_goes_on_with_one_and_with_two(evaluated, alone, tmp_path):
    arguments = (f"--config={evaluated}:0.25", f"--workdir={tmp_path}")
    started = start_all(4, *arguments, devices=1)
    wait_for_step(tmp_path, 3)
    started[2].send_signal(signal.SIGTERM)  # one of them is told; all save after the same step
    ended = finish(started, timeout=60)
    assert [code for code, _ in ended] == [143] * 4, ended
    assert "the same command goes on" in ended[0][1]
    started = start_all(2, *arguments, devices=4)
    stopped = max(line["step"] for lines in losses(tmp_path).values() for line in lines)
    wait_for_step(tmp_path, stopped + 2)
    for process in started:
        process.send_signal(signal.SIGTERM)
    assert {code for code, _ in finish(started, timeout=60)} == {143}
    assert train(evaluated, tmp_path).returncode == 0
    assert_close(losses(tmp_path), losses(alone))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_all_end_and_the_same_command_goes_on(evaluated, alone, tmp_path, victim):
    arguments = (f"--config={evaluated}:0.25", f"--workdir={tmp_path}")
    started = start_all(2, *arguments)
    wait_for_step(tmp_path, 6)  # a checkpoint is there, of step 5
    begin = time.monotonic()
    started[victim].kill()
    ended = finish(started, timeout=60)
    assert time.monotonic() - begin < 60
    others = [said for i, (_, said) in enumerate(ended) if i != victim]
    assert all("has ended. All stop; the same command goes on from the last checkpoint" in said for said in others)
    assert train(evaluated, tmp_path).returncode == 0
    assert_close(losses(tmp_path), losses(alone))


def test_who_does_not_come_is_named(config, tmp_path):  # noqa: F811
    begin = time.monotonic()
    ended = run_all(4, f"--config={config}", f"--workdir={tmp_path}", come=2, JAX_JOIN_TIMEOUT="8")
    assert time.monotonic() - begin < 40
    for code, said in ended:
        assert code == 2 and "process 2, 3 of 4 did not report to 127.0.0.1:" in said and "within 8 s" in said, said
        assert "Traceback" not in said


def test_bad_input_is_said_and_all_end(config, tmp_path):  # noqa: F811
    ended = run_all(2, f"--config={config}", f"--workdir={tmp_path}", "--config.seeed=1")
    assert [code for code, _ in ended] == [2, 2], ended
    assert all(re.search(r"process \d: error: .*seeed", said) and "Traceback" not in said for _, said in ended)


def test_a_place_is_read_from_the_environment():
    assert processes.find_place({}) is None
    where = {"JAX_COORDINATOR_ADDRESS": "host-0:1234"}
    assert processes.find_place(where | {"JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}) == Place(
        3, 4, "host-0", 1234
    )
    assert processes.find_place(where | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}) == Place(
        1, 2, "host-0", 1234
    )
    for wrong in ({}, {"JAX_NUM_PROCESSES": "x", "JAX_PROCESS_ID": "0"}):
        with pytest.raises(UserError, match="JAX_NUM_PROCESSES"):
            processes.find_place(where | wrong)
    with pytest.raises(UserError, match="ids go from 0 to 1"):
        processes.find_place(where | {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"})


SEES = """
import jax
from jax._src import xla_bridge
from sftmix_jax.machine import processes
processes.join()
print(jax.process_count(), jax.process_index(), xla_bridge.CUDA_VISIBLE_DEVICES.value, flush=True)
processes.leave(0)
"""


READS = """
import json
import os
import sys
from pathlib import Path

from etils import epath

from sftmix_jax.data import cache, sources
from sftmix_jax.data.chat import Chat
from sftmix_jax.data.sources import Source
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment.stages import TINY
from sftmix_jax.machine import processes
from sftmix_jax.machine.errors import UserError
from sftmix_jax.models import huggingface

processes.join()
of_source, of_weights = sources.fingerprint, huggingface._sha256
sources.fingerprint = lambda source: read.append(Path(source.path).name) or of_source(source)
huggingface._sha256 = lambda file: read.append(file.name) or of_weights(file)
index, model, *cases = processes._place.index, *sys.argv[1:]
said = {}
for case in map(Path, cases):
    read, folder = [], case / str(index)
    if not folder.exists():
        folder = case / "0"
    os.environ["SFTMIX_CACHE"] = str(case / f"cache{index}")
    domains = {name: Source(f"{folder / name}.jsonl") for name in ("a", "b", "c")}
    try:
        found = {name: each.fingerprint for name, each in
                 cache.for_all_processes(domains, Chat("chatml", Tokenizer(str(TINY)))).items()}
        found["weights"] = huggingface.fingerprint(epath.Path(model))
    except UserError as error:
        found = str(error)
    said[case.name] = {"read": read, "found": found}
processes.say(json.dumps(said))
processes.leave(0)
"""


def write_rows(folder, **answers: str):
    folder.mkdir(parents=True)
    for name, answer in answers.items():
        (folder / f"{name}.jsonl").write_text(json.dumps({"instruction": "Say it.", "output": answer}) + "\n")
    return folder


def write_sharded(folder) -> None:
    """The tiny base with its weights in three files."""
    shutil.copytree(stages.TINY, folder)
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, where = sorted(whole), {}
    for i in range(3):
        file = f"model-0000{i + 1}-of-00003.safetensors"
        save_file({name: whole[name] for name in names[i::3]}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names[i::3], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


@pytest.fixture(scope="module")
def read_by_two(tmp_path_factory):
    """What each of two processes of READS says of three cases, one after the other, each with token caches of its own.

    The folder of a case holds 0/, the rows; 1/, those of process 1 where it has others; and cache0/ and cache1/.
    """
    root = tmp_path_factory.mktemp("read")
    write_sharded(root / "model")
    rows = {"a": "one", "b": "two", "c": "three"}
    cases = {"same": None, "other": rows | {"b": "too"}, "missing": {"a": "one", "c": "three"}}
    for case, others in cases.items():
        write_rows(root / case / "0", **rows)
        if others:
            write_rows(root / case / "1", **others)
    address, started = f"127.0.0.1:{free_port()}", []
    for index in range(2):
        env = os.environ | {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(index),
        }
        command = [sys.executable, "-c", READS, str(root / "model"), *(str(root / case) for case in cases)]
        started.append(subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True))
    ended = finish(started, timeout=120)
    assert [code for code, _ in ended] == [0, 0], ended
    said = [json.loads(re.search(r"process \d: (\{.*\})", text)[1]) for _, text in ended]
    return root, {case: [each[case] for each in said] for case in cases}


def test_each_file_is_hashed_by_one_process_and_known_to_all(read_by_two):
    root, said = read_by_two
    rows, (first, second) = root / "same" / "0", said["same"]
    weights = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert first["read"] == ["a.jsonl", "c.jsonl", weights[0], weights[2]] and second["read"] == ["b.jsonl", weights[1]]
    assert first["found"] == second["found"]
    chat = Chat("chatml", Tokenizer(str(stages.TINY)))
    alone = cache.for_all_processes({name: Source(f"{rows / name}.jsonl") for name in "abc"}, chat)
    assert first["found"] == {name: each.fingerprint for name, each in alone.items()} | {
        "weights": huggingface.fingerprint(epath.Path(root / "model"))
    }


def test_hosts_with_other_rows_do_not_train_together(read_by_two):
    root, said = read_by_two
    for found in said["other"]:
        assert "process 1 reads other rows than process 0 (domain 'b'); copy the same files" in found["found"]
    for index in range(2):  # what stands under a fingerprint that it may not have is not kept
        assert len([*root.glob(f"other/cache{index}/tokens/*")]) == 2


def test_a_file_that_only_one_process_misses_is_named_by_all(read_by_two):
    root, said = read_by_two
    for found in said["missing"]:
        assert str(root / "missing" / "1" / "b.jsonl") in found["found"]


def test_a_task_of_slurm_sees_all_gpus_of_its_node():
    """As srun --ntasks-per-node 1 starts two nodes. jax alone gives each task the GPU of its local number."""
    address, started = f"127.0.0.1:{free_port()}", []
    for index in range(2):
        env = os.environ | {
            "JAX_COORDINATOR_ADDRESS": address,
            "SLURM_JOB_ID": "77",
            "SLURM_STEP_NODELIST": "node[001-002]",
            "SLURM_NTASKS": "2",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_NUM_NODES": "2",
            "SLURM_PROCID": str(index),
            "SLURM_LOCALID": "0",
        }
        command = [sys.executable, "-c", SEES]
        started.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True))
    try:
        said = [process.communicate(timeout=60)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert said == ["2 0 all\n", ""]  # the others print nothing


def test_hosts_of_a_tpu_slice_meet_at_a_port_that_firewalls_pass(monkeypatch):
    def initialize(**_):
        assert os.environ["JAX_COORDINATOR_PORT"] in ("8470", "8471", "8474", "8476")

    monkeypatch.setattr(processes, "has_tpu", lambda: True)
    monkeypatch.setattr(processes, "_place", None)
    monkeypatch.setattr("jax.distributed.initialize", initialize)
    for name in ("JAX_COORDINATOR_PORT", "JAX_COORDINATOR_ADDRESS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    processes.join()


def test_processes_that_run_other_code_do_not_run_together():
    mine = {"index": 0, "host": "a", "time": time.time(), "versions": {"sftmix_jax": "1", "jax": "2"}}
    theirs = {**mine, "index": 1, "host": "b"}
    assert processes._difference(mine, theirs) == ""
    other = {**theirs, "versions": {"sftmix_jax": "1", "jax": "3"}}
    assert "process 1 on b runs jax 3, process 0 2" in processes._difference(mine, other)
    assert "the clock of process 1 on b is" in processes._difference(mine, {**theirs, "time": time.time() - 300})
