"""Who is at work on what: several workers on one workdir, none of whom does a stage twice."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import fsspec
from etils import epath

BEAT = 5.0  # seconds between signs of life
STALE = 45.0  # without one for so long, a worker is taken for dead


class Lost(Exception):
    """Another worker took the claim over; whatever this one does now must not count."""


class Claims:
    """Claims in a folder, local or at gs://; a claim is a file that is made only if it is not there.

    The n-th claim on a job is `<job>.<n>.json`, so that taking over from a dead worker is again the making of a file,
    which one of several can. No clock is compared with another machine's: a worker is dead when its file has stood
    still for STALE seconds of the observer's own clock, or at once where its process is gone from the same machine.
    """

    def __init__(self, folder: epath.Path):
        self._folder = folder
        self._fs, self._path = fsspec.core.url_to_fs(os.fspath(folder))
        folder.mkdir(parents=True, exist_ok=True)
        self._seen: dict[str, tuple[str, float]] = {}  # file → its content, and when it last changed

    @contextlib.contextmanager
    def take(self, job: str) -> Iterator[bool]:
        """True while the job is this worker's, False if it is another's. Raises Lost if it was lost on the way."""
        number = self._next(job)
        if number is None or not self._make(job, number):
            yield False
            return
        beating = _Heartbeat(self, job, number)
        try:
            yield True
        finally:
            beating.stop()
            if not beating.lost:
                self._write(job, number, {"released": True})
        if beating.lost:
            raise Lost(f"{job}: another worker took it over")

    def holder(self, job: str) -> dict[str, Any] | None:
        """Who works on a job, if it is claimed and not released."""
        newest = self._newest(job)
        if newest is None:
            return None
        record = self._read(job, newest)
        return None if record.get("released") else record

    def _next(self, job: str) -> int | None:
        """The number that a new claim would have; None while a living worker holds one."""
        newest = self._newest(job)
        if newest is None:
            return 0
        record = self._read(job, newest)
        if record.get("released"):
            return newest + 1
        if record.get("host") == socket.gethostname() and not _is_alive(record.get("pid", 0), record.get("started")):
            return newest + 1
        file, text = f"{job}.{newest}", json.dumps(record)
        if self._seen.get(file, ("", 0.0))[0] != text:
            self._seen[file] = (text, time.monotonic())
        return newest + 1 if time.monotonic() - self._seen[file][1] > STALE else None

    def _newest(self, job: str) -> int | None:
        numbers = [int(file.name.split(".")[-2]) for file in self._folder.glob(f"{job}.*.json")]
        return max(numbers, default=None)

    def _make(self, job: str, number: int) -> bool:
        try:
            self._fs.pipe_file(f"{self._path}/{job}.{number}.json", _signed(0), mode="create")
        except FileExistsError:
            return False
        return True

    def _write(self, job: str, number: int, record: dict[str, Any]) -> None:
        self._fs.pipe_file(f"{self._path}/{job}.{number}.json", json.dumps(record).encode())

    def _read(self, job: str, number: int) -> dict[str, Any]:
        try:
            return json.loads((self._folder / f"{job}.{number}.json").read_text())
        except (ValueError, FileNotFoundError):  # being written
            return {}


class _Heartbeat:
    """Rewrites a claim every few seconds, and notices when somebody else has taken it over."""

    def __init__(self, claims: Claims, job: str, number: int):
        self.lost = False
        self._claims, self._job, self._number = claims, job, number
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        count = 0
        while not self._end.wait(BEAT):
            count += 1
            if (self._claims._newest(self._job) or 0) > self._number:
                self.lost = True
                return
            self._claims._fs.pipe_file(f"{self._claims._path}/{self._job}.{self._number}.json", _signed(count))

    def stop(self) -> None:
        self._end.set()
        self._thread.join()


def _signed(beat: int) -> bytes:
    record = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid()), "beat": beat}
    return json.dumps(record).encode()


def _is_alive(pid: int, started: str | None) -> bool:
    """Whether this very process is still there, not another one with its number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return started is None or _started(pid) in (started, None)


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None where that cannot be told."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return None
