"""Leases: one process holds a job, dead ones are replaced, living ones are named."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT
from etils import epath

from sftmix_jax.machine import leases
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.leases import Leases, Lost

HOLD = """
import os, sys, time
from etils import epath
from sftmix_jax.machine.leases import Leases
with Leases(epath.Path(sys.argv[1])).take("job") as lease:
    print(bool(lease), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the job."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


def write(folder, number: int, record) -> None:
    (folder / f"job.{number}.json").write_text(record if isinstance(record, str) else json.dumps(record))


def test_one_lease_at_a_time(tmp_path):
    first, second = Leases(epath.Path(tmp_path)), Leases(epath.Path(tmp_path))
    with first.take("job") as mine, second.take("job") as theirs:
        assert mine and not theirs
        assert second.holder("job")["pid"] == os.getpid()
    assert second.holder("job") is None
    with second.take("job") as theirs:
        assert theirs


def test_a_second_trainer_ends_with_a_line_that_names_the_first(holder, tmp_path):
    said = rf"^general \(1a2b\) is being trained by process {holder.pid} on \S+ \(since 20"
    with pytest.raises(UserError, match=said), Leases(epath.Path(tmp_path)).insist("job", "general (1a2b)"):
        pass


def test_who_waits_names_the_holder_once_and_goes_on_when_it_has_ended(holder, tmp_path, capsys):
    ending = threading.Timer(1.2, holder.kill)  # after more than one look
    ending.start()
    with Leases(epath.Path(tmp_path)).wait("job", "tiny_math on base (1a2b)") as lease:
        assert lease.number == 1 and not ending.is_alive()
    said = capsys.readouterr().err
    assert re.fullmatch(rf"tiny_math on base \(1a2b\): waiting for process {holder.pid} on \S+ \(since 20.*\)\n", said)


def test_a_killed_holder_is_replaced_at_once_even_if_nobody_has_reaped_it(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    time.sleep(0.5)
    assert holder.returncode is None  # a zombie, as under a container's first process
    with Leases(epath.Path(tmp_path)).insist("job", "general") as lease:
        lease.check()


@pytest.mark.parametrize("text", ["", "null", "[]", '{"host": "h", "pi', '{"pid": "x"}'])
def test_a_half_written_lease_is_held_until_it_is_stale(tmp_path, monkeypatch, text):
    monkeypatch.setattr(leases, "STALE", 0.3)
    write(tmp_path, 0, text)
    mine = Leases(epath.Path(tmp_path))
    with mine.take("job") as lease:
        assert lease is None
    time.sleep(0.4)
    with mine.take("job") as lease:
        assert lease


def test_a_holder_elsewhere_is_replaced_when_it_gives_no_sign_of_life_and_named_when_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "STALE", 1.0)
    monkeypatch.setattr(leases, "_LOOK", 0.05)
    away = {"host": "far", "machine": "far", "pid": os.getpid(), "started": None, "since": 0.0, "beat": 1}
    write(tmp_path, 0, away)
    begin = time.monotonic()
    with Leases(epath.Path(tmp_path)).insist("job", "general"):
        assert time.monotonic() - begin > 0.9
    write(tmp_path, 2, away)
    mine, beats = Leases(epath.Path(tmp_path)), iter(range(2, 100))
    monkeypatch.setattr(leases.time, "sleep", lambda _: write(tmp_path, 2, away | {"beat": next(beats)}))
    with pytest.raises(UserError, match=r"process \d+ on far \(since"), mine.insist("job", "general"):
        pass


def test_a_process_id_of_another_process_namespace_proves_nothing(tmp_path):
    """A container may share its host's name and still count its own processes."""
    machine = leases._machine().rpartition(" ")[0] + " pid:[1]"
    write(tmp_path, 0, {"host": "h", "machine": machine, "pid": 999_999_999, "started": "1", "since": 0.0, "beat": 1})
    with Leases(epath.Path(tmp_path)).take("job") as lease:
        assert lease is None


def test_a_holder_that_was_replaced_may_not_save(tmp_path):
    with pytest.raises(Lost, match="process 7 on far"), Leases(epath.Path(tmp_path)).take("job") as lease:
        lease.check()
        write(tmp_path, 1, {"host": "far", "machine": "far", "pid": 7, "since": 0.0, "beat": 1})
        lease.check()
    assert json.loads((tmp_path / "job.1.json").read_text())["pid"] == 7  # and it does not release the other's
