"""The live page: a real server over real records, what it refuses, and records that are being written."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import ROOT, run
from etils import epath
from test_outputs import BROWSER, PLANTED, SHOWN, Parsed
from test_outputs import workdir as planted  # noqa: F401  a fixture
from test_report import workdir as scored  # noqa: F401  a fixture

from sftmix_jax.machine.leases import Leases
from sftmix_jax.studies import live

pytest.importorskip("starlette", reason="starlette is not installed: pip install -e '.[live]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install -e '.[live]'")


def start(workdir, *more: str) -> tuple[subprocess.Popen, str]:
    clean = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    command = [sys.executable, "-m", "sftmix_jax.report", f"--workdir={workdir}", "--serve=0", *more]
    server = subprocess.Popen(command, cwd=ROOT, env=clean, stdout=subprocess.PIPE, text=True)
    return server, server.stdout.readline().strip()


@pytest.fixture
def served():
    """Starts a server of a workdir → its address."""
    servers = []

    def of(workdir, *more: str) -> str:
        server, address = start(workdir, *more)
        servers.append(server)
        return address

    yield of
    for server in servers:
        server.terminate()
        server.wait()


def ask(url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_the_page_is_the_report_with_what_is_going_on(scored, served):  # noqa: F811
    before = {file: file.read_bytes() for file in Path(scored).rglob("*") if file.is_file()}
    address = served(scored)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    status, page = ask(address)
    assert status == 200 and "Best set-up" in page and 'id="now"' in page
    assert 'href="tables/' not in page and 'href="figures/' not in page  # no files are written that could be fetched
    state = json.loads(ask(address + "live.json")[1])
    assert {stage["state"] for stage in state["stages"]} == {"done", "waiting"} and state["notes"] == []
    assert {score["task"] for score in state["scores"]} == {"tiny_code", "tiny_general", "tiny_math"}
    assert ask(address + "plotly.min.js")[0] == 200
    assert {file: file.read_bytes() for file in Path(scored).rglob("*") if file.is_file()} == before


def test_it_only_reads_and_only_for_its_own_hosts(scored, served):  # noqa: F811
    address = served(scored, "--hosts=report.example")
    port = address.rstrip("/").rpartition(":")[2]
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert ask(address, method)[0] == ask(address + "live.json", method)[0] == 405
    for path in ("stages", "../experiments", "%2e%2e/etc/passwd", "docs", "openapi.json"):
        assert ask(address + path)[0] == 404
    for host, wanted in (("evil.example", 400), (f"evil.example:{port}", 400), ("127.0.0.1.evil.example", 400),
                         ("report.example", 200), (f"localhost:{port}", 200)):  # fmt: skip
        assert ask(address + "live.json", Host=host)[0] == wanted, host


def test_records_that_are_being_written_are_read_again(scored):  # noqa: F811
    """A cut last line of metrics, a half-written record of an experiment, and one of a failure."""
    (file,) = scored.glob("stages/general-dmt0/metrics.jsonl")
    file.write_text(file.read_text() + '{"step": 3, "lo')
    experiment = scored / "experiments" / "dmt-s1.json"
    whole = experiment.read_text()
    experiment.write_text(whole[:20])
    (scored / "failures").mkdir()
    (scored / "failures" / "x.json").write_text("{")
    state = live.state(epath.Path(scored))
    assert len(state["notes"]) >= 2 and any("dmt-s1.json" in note for note in state["notes"])
    assert {name for stage in state["stages"] for name in stage["experiments"]} == {
        "dmt-s0", "mixed_sequential-s0", "mixed_sequential-s1"
    }  # fmt: skip
    experiment.write_text(whole)
    again = live.state(epath.Path(scored))
    assert "dmt-s1" in {name for stage in again["stages"] for name in stage["experiments"]}


def test_an_empty_workdir_has_a_page(tmp_path, served):
    (tmp_path / "experiments").mkdir()
    status, page = ask(served(tmp_path))
    assert status == 200 and 'id="now"' in page
    assert live.state(epath.Path(tmp_path))["stages"] == []


def test_speed_and_time_left_by_hand(tmp_path):
    """Two steps per second of 100 tokens each, 30 steps of 50 to go; the lease is this process's."""
    folder, id = tmp_path / "stages" / "first-0123456789ab", "0123456789ab"
    folder.mkdir(parents=True)
    record = {"name": "first", "id": id, "model": {}, "template": "", "tokenizer": "", "dtype": "float32"}
    (folder / "stage.json").write_text(json.dumps({**record, "run": {"steps": 50, "devices": 4}}))
    lines = [{"step": n, "loss": 1.0, "loss/math": 2.0, "tokens": 100, "seconds": n / 2} for n in range(1, 21)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "experiments").mkdir()
    stages = {"experiment": {}, "base": "b", "stages": {"first": id, "second": "ba9876543210"}}
    (tmp_path / "experiments" / "one.json").write_text(json.dumps(stages))
    with Leases(epath.Path(tmp_path / "claims")).take(id) as lease:
        assert lease
        first, second = live.state(epath.Path(tmp_path))["stages"]
    assert first["state"] == "training" and str(os.getpid()) in first["worker"] and second["state"] == "waiting"
    assert (first["step"], first["steps"], first["losses"]) == (20, 50, {"math": 2.0})
    assert first["tokens_per_second"] == pytest.approx(200) and first["seconds_left"] == pytest.approx(15)
    assert first["device_hours"] == pytest.approx(4 * 10 / 3600)
    assert live.state(epath.Path(tmp_path))["stages"][0]["state"] == "stopped"  # the lease was given back


def test_records_of_any_form_leave_a_page(scored, served):  # noqa: F811
    """A number that JSON lacks, seconds that are none, and a stage's record whose fields have other types."""
    first, second = (next(scored.glob(f"stages/{name}-*")) for name in ("general", "specialised"))
    line = {"step": 1, "loss": 1.0, "loss/math": float("nan"), "tokens": 10, "seconds": 1.0}
    (first / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (second / "metrics.jsonl").write_text(json.dumps({**line, "loss/math": 1.0, "seconds": "long"}) + "\n")
    status, text = ask(served(scored) + "live.json")
    state = json.loads(text, parse_constant=pytest.fail)
    by_id = {stage["id"]: stage for stage in state["stages"]}
    assert status == 200 and by_id[first.name.rpartition("-")[2]]["losses"] == {"math": None}
    assert any(second.name in note and "cannot be read" in note for note in state["notes"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--serve=0", "--address=::1"), "--address ::1: an IPv6 address"),
        (("--serve=0", "--address=no.such.host.invalid"), "or an address of this machine"),
        (("--serve=0", "--hosts=name:8000"), "without a port"),
        (("--serve=0", "--inline"), "--inline has no effect: --serve writes no file"),
        (("--address=0.0.0.0",), "--address has no effect: --serve is not given"),
    ],
)
def test_options_that_would_do_nothing_are_refused(flags, said, tmp_path):
    ended = run("sftmix_jax.report", f"--workdir={tmp_path}", *flags)
    assert ended.returncode == 2 and said in ended.stderr and "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_refused(scored, served):  # noqa: F811
    port = served(scored).rstrip("/").rpartition(":")[2]
    ended = run("sftmix_jax.report", f"--workdir={scored}", f"--serve={port}")
    assert ended.returncode == 2 and "cannot listen on 127.0.0.1" in ended.stderr


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_planted_string_as_text(planted, served, tmp_path):  # noqa: F811
    """In stages, scores and failures that the page's script has drawn."""
    address = served(planted)
    found = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
         "--virtual-time-budget=6000", f"--user-data-dir={tmp_path}/browser", address],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "CONSOLE" not in found.stderr, [line for line in found.stderr.splitlines() if "CONSOLE" in line]
    drawn = Parsed(found.stdout)
    now = found.stdout.partition('id="now"')[2].partition("</section>")[0]
    assert Parsed(now).text.count(SHOWN) > 3 and PLANTED not in drawn.text
    assert not re.search(r"<title>\s*pwned\s*</title>", found.stdout)
    assert "img" not in drawn.tags and not [name for _, name, _ in drawn.attributes if name.startswith("on")]


@pytest.mark.slow
def test_a_run_is_followed_while_it_trains(tmp_path, served):
    clean = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    flags = ["--config=quickstart.py", f"--workdir={tmp_path}", "--config.evaluation.tasks="]
    training = subprocess.Popen(
        [sys.executable, "-m", "sftmix_jax.train", *flags], cwd=ROOT, env=clean, stderr=subprocess.DEVNULL
    )
    try:
        address, seen = None, {}
        for _ in range(240):
            if address is None and (tmp_path / "experiments").is_dir():
                address = served(tmp_path)
            if address:
                for stage in json.loads(ask(address + "live.json")[1])["stages"]:
                    if stage["state"] == "training" and stage["step"] > 20:
                        seen = stage
            if seen:
                break
            time.sleep(0.5)
    finally:
        training.kill()
        training.wait()
    assert seen["steps"] == 554 and seen["tokens_per_second"] > 0 and seen["seconds_left"] > 0
    assert set(seen["losses"]) <= {"math", "code"} and str(training.pid) in seen["worker"]
