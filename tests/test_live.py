"""The live page: a real server over real records, what it refuses, and records that are being written."""

import dataclasses
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import ROOT, call, run
from etils import epath
from test_outputs import BROWSER, PLANTED, SHOWN, Parsed
from test_outputs import workdir as planted  # noqa: F401  a fixture
from test_report import workdir as scored  # noqa: F401  a fixture

from sftmix_jax.experiment import config as experiment
from sftmix_jax.machine import terminal
from sftmix_jax.machine.leases import Leases
from sftmix_jax.planning import chips
from sftmix_jax.studies import jobs, live, watching
from sftmix_jax.studies.study import Run, Study
from sftmix_jax.workdir import records

pytest.importorskip("starlette", reason="starlette is not installed: pip install -e '.[live]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install -e '.[live]'")


def start(workdir, *more: str, env: dict[str, str] | None = None) -> tuple[subprocess.Popen, str]:
    clean = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | (env or {})
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
    assert len(state["scores"]) == 3 * (1 + 2 + 3)  # a stage that experiments share counts once
    assert not any("curve" in stage for stage in state["stages"])  # of a study of 40 they would be 300 KB at each look
    assert ask(address + "plotly.min.js")[0] == 200
    assert {file: file.read_bytes() for file in Path(scored).rglob("*") if file.is_file()} == before


def test_it_only_reads_and_only_for_its_own_hosts(scored, served):  # noqa: F811
    address = served(scored, "--hosts=report.example")
    port = address.rstrip("/").rpartition(":")[2]
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert ask(address, method)[0] == ask(address + "live.json", method)[0] == 405
    for path in ("stages", "../experiments", "%2e%2e/etc/passwd", "docs", "openapi.json"):
        assert ask(address + path)[0] == 404
    for host, wanted in (
        ("evil.example", 400),
        (f"evil.example:{port}", 400),
        ("127.0.0.1.evil.example", 400),
        ("report.example", 200),
        (f"localhost:{port}", 200),
    ):
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
        "dmt-s0",
        "mixed_sequential-s0",
        "mixed_sequential-s1",
    }
    experiment.write_text(whole)
    again = live.state(epath.Path(scored))
    assert "dmt-s1" in {name for stage in again["stages"] for name in stage["experiments"]}


def test_a_stage_that_failed_is_not_one_that_waits(scored):  # noqa: F811
    (scored / "failures").mkdir()
    failure = {"job": "general", "experiments": ["dmt-s1"], "error": "the loss of step 4 is nan"}
    (scored / "failures" / "dmt1.json").write_text(json.dumps(failure))
    state = live.state(epath.Path(scored))
    assert [stage["id"] for stage in state["stages"] if stage["state"] == "failed"] == ["dmt1"]
    assert state["failures"] == [failure] and not any(stage["state"] == "waiting" for stage in state["stages"])


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
    how = {"steps": 50, "devices": 4, "kind": "NVIDIA H100 80GB HBM3"}
    (folder / "stage.json").write_text(json.dumps({**record, "run": how}))
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
    again = live.state(epath.Path(tmp_path))
    assert again["stages"][0]["state"] == "stopped"  # the lease was given back
    assert again["dollars"] == pytest.approx(4 * 10 / 3600 * chips.CHIPS["h100"].price)
    (folder / "stage.json").write_text(json.dumps({**record, "run": {**how, "kind": "cpu"}}))
    assert live.state(epath.Path(tmp_path))["dollars"] is None


@pytest.mark.parametrize(
    ("kind", "chip"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100 80GB PCIe", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        *(
            (kind, "")
            for kind in (
                "cpu",
                "",
                "TPU v4 lite",
                "TPU v3",
                "NVIDIA A10",
                "NVIDIA L40",
                "NVIDIA GH200 480GB",
                "NVIDIA GeForce RTX 4090 D",
                "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
            )
        ),
    ],
)
def test_a_device_has_the_price_of_its_chip_alone(kind, chip):
    assert chips.price_of(kind) == (chips.CHIPS[chip].price if chip else None)


def test_a_chip_of_two_devices_is_shared_between_them():
    assert chips.price_of("TPU7x") == chips.CHIPS["tpu7x"].price / 2


@pytest.mark.slow
def test_watching_a_study_shows_step_loss_time_left_and_scores_at_80_columns(tmp_path):
    """Numbers by hand: 2 steps per second, 30 of 50 to go. Long names are cut, and no line wraps."""
    config = dataclasses.replace(experiment.read(["--config=quickstart.py"]), name="an-experiment-with-a-long-name")
    chosen, workdir = Study("s", "?", [Run(config, {"seed": 0})]), epath.Path(tmp_path)
    base, first, second = jobs.make_jobs(chosen, workdir)
    folder = first.folder(workdir)
    (folder / "eval" / "tiny_math").mkdir(parents=True)
    record = {"name": first.name, "id": first.id, "model": {}, "template": "", "tokenizer": "", "dtype": "float32"}
    (folder / "stage.json").write_text(json.dumps({**record, "run": {"steps": 50, "devices": 1, "kind": "cpu"}}))
    lines = [{"step": n, "loss": 3 - n / 10, "loss/math": 2.0, "tokens": 100, "seconds": n / 2} for n in range(1, 21)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = {"strict": {"value": 0.254, "n": 8, "low": 0.1, "high": 0.5, "best": 1.0}}
    fixed_by = {"task": "tiny_math", "metrics": metrics, "fixed_by": {}}
    records.write_score(folder / "eval" / "tiny_math" / "score.json", fixed_by)
    leases, scores, written = Leases(workdir / "claims"), watching.Scores(workdir), io.StringIO()
    console = terminal.Console(width=80, file=written)
    with leases.take(first.id) as lease:
        assert lease and scores.of(base) == "" and scores.of(first) == "tiny_math strict 25.4%"
        console.print(watching.states(chosen, [base, first, second], {base.id}, set(), workdir, leases, 0.0))
        console.print(*scores.newest())
    shown = written.getvalue().splitlines()
    (row,) = (line for line in shown if "20/50" in line)
    assert row.split()[0] == "specialised" and row.split()[2:5] == ["20/50", "1.000", "0:15"]
    assert "s: 1 of 3 stages done" in shown[0] and any("1 waiting" in line for line in shown)
    assert any(line.split()[-3:] == ["tiny_math", "strict", "25.4%"] for line in shown)
    assert all(len(line) <= 80 for line in shown)


def test_a_progress_line_is_drawn_once_per_second_within_the_width_and_ends_at_the_last_step():
    """In a real terminal of 60 columns; five domains would take more."""
    program = (
        "import time\nfrom sftmix_jax.training.metrics import Progress\n"
        "progress = Progress('specialised', 500)\n"
        "losses = {f'domain_{i}': 1.0 + i for i in range(5)}\n"
        "for step in range(1, 501):\n    progress.update(step, 100, losses)\n    time.sleep(0.003)\n"
        "progress.close()\n"
    )
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 60))
    env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    begin = time.monotonic()
    ended = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=env, stderr=follower, stdout=follower)
    os.close(follower)
    text = b""
    while True:
        try:
            text += os.read(leader, 4096)
        except OSError:  # the program has ended
            break
    os.close(leader)
    assert ended.wait() == 0
    drawn = text.decode().split("\r\x1b[K")[1:]
    assert 2 <= len(drawn) <= time.monotonic() - begin + 2 and all(len(line.rstrip("\r\n")) < 60 for line in drawn)
    assert "specialised 500/500" in drawn[-1] and "0:00 left" in drawn[-1] and drawn[-1].endswith("\r\n")


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
        (("--serve", "--serve"), "--serve is given twice"),
        (("--serve", "--inline"), "--inline has no effect: --serve writes no file"),
        (("--serve=0", "--inline"), "--inline has no effect: --serve writes no file"),
        (("--address=0.0.0.0",), "--address has no effect: --serve is not given"),
    ],
)
def test_options_that_would_do_nothing_are_refused(flags, said, tmp_path):
    ended = call("report", f"--workdir={tmp_path}", *flags)
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
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--dump-dom",
            "--virtual-time-budget=6000",
            f"--user-data-dir={tmp_path}/browser",
            address,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
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
