"""Leases: one process trains a stage, or scores a task, with take-over from dead processes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
from etils import epath

from sftmix_jax.machine import processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import matching

BEAT = 5.0  # seconds between signs of life
STALE = 45.0  # seconds without one after which a holder counts as dead
_LOOK = 0.5  # seconds between looks at a lease whose holder may be dead


class Lost(UserError):
    """Another process took the lease over; what this one does from then on must not be saved."""


@dataclasses.dataclass
class Lease:
    """A lease that this process holds: the `number`-th on `job`."""

    leases: Leases
    job: str
    number: int
    lost: bool = False

    def check(self) -> None:
        """Raises Lost if another process has taken the lease over, as after this one was suspended."""
        if self.lost or (self.leases._newest(self.job) or 0) > self.number:
            self.lost = True
            holder = describe(self.leases.holder(self.job))
            raise Lost(f"{self.job}: this process gave no sign of life and {holder} has taken over; this one stops")


class Leases:
    """Leases in a folder, local or at gs://; a lease is a file that is created only if it does not exist.

    The n-th lease on a job is `<job>.<n>.json`, so that taking over from a dead holder is again the creation of a file,
    in which one of several processes succeeds. Clocks of different machines are never compared: a holder is dead when
    its file has not changed for STALE seconds of the observer's own clock, or at once where its process has ended on
    the observer's machine.
    """

    def __init__(self, folder: epath.Path):
        self._folder = folder
        self._fs, self._path = fsspec.core.url_to_fs(os.fspath(folder))
        folder.mkdir(parents=True, exist_ok=True)
        self._first_seen: dict[str, str] = {}  # file → the content when it was first looked at
        self._seen: dict[str, tuple[str, float]] = {}  # file → its content, and when it last changed

    @contextlib.contextmanager
    def take(self, job: str) -> Iterator[Lease | None]:
        """The lease while this process holds it, None if another one holds it. Raises Lost if it was lost meanwhile."""
        number = self._next(job)
        if number is None or not self._make(job, number):
            yield None
            return
        lease = Lease(self, job, number)
        beating = _Heartbeat(lease)
        try:
            yield lease
        finally:
            beating.stop()
            if not lease.lost:
                self._write(job, number, {"released": True})
        if lease.lost:
            lease.check()

    @contextlib.contextmanager
    def insist(self, job: str, name: str) -> Iterator[Lease]:
        """The lease, or UserError as soon as its holder is known to be alive; waits until that is known.

        `name` is what the job is called in messages.
        """
        waiting = False
        while True:
            with self.take(job) as lease:
                if lease:
                    yield lease
                    return
            holder = self.holder(job)
            if holder is not None and self._is_alive(job, holder):
                raise UserError(
                    f"{name} is being trained by {describe(holder)}. Run this command again when that one has ended: "
                    "it goes on from what is saved, or does nothing if all is done"
                )
            if not waiting:
                waiting = True
                terminal.err(
                    f"{name}: {describe(holder)} holds it; waiting up to {STALE:.0f} s for a sign of life from it"
                )
            time.sleep(_LOOK)

    @contextlib.contextmanager
    def wait(self, job: str, name: str) -> Iterator[Lease]:
        """The lease, as soon as no other process holds it; `name` is what the job is called in messages."""
        waiting = False
        while True:
            with self.take(job) as lease:
                if lease:
                    yield lease
                    return
            if not waiting:
                waiting = True
                terminal.err(f"{name}: waiting for {describe(self.holder(job))}")
            time.sleep(_LOOK)

    def holder(self, job: str) -> dict[str, Any] | None:
        """Who holds the lease on a job, if anyone does."""
        newest = self._newest(job)
        if newest is None:
            return None
        record = self._read(job, newest)
        return None if record.get("released") else record

    def _next(self, job: str) -> int | None:
        """The number that a new lease would have; None while its holder may be alive."""
        newest = self._newest(job)
        if newest is None:
            return 0
        record = self._read(job, newest)
        if record.get("released"):
            return newest + 1
        if record.get("machine") == _machine() and not _runs(record.get("pid"), record.get("started")):
            return newest + 1
        file, text = f"{job}.{newest}", json.dumps(record)
        self._first_seen.setdefault(file, text)
        if self._seen.get(file, ("", 0.0))[0] != text:
            self._seen[file] = (text, time.monotonic())
        return newest + 1 if time.monotonic() - self._seen[file][1] > STALE else None

    def _is_alive(self, job: str, record: dict[str, Any]) -> bool:
        """True if the holder runs on this machine, or has given a sign of life since it was first looked at."""
        if record.get("machine") == _machine():
            return _runs(record.get("pid"), record.get("started"))
        first = self._first_seen.get(f"{job}.{self._newest(job)}")
        return first is not None and "beat" in record and first != json.dumps(record)

    def _newest(self, job: str) -> int | None:
        numbers = [file.name.split(".")[-2] for file in matching(self._folder, f"{job}.*.json")]
        return max((int(number) for number in numbers if number.isdigit()), default=None)

    def _make(self, job: str, number: int) -> bool:
        try:
            self._fs.pipe_file(f"{self._path}/{job}.{number}.json", _signed(0, time.time()), mode="create")
        except FileExistsError:
            return False
        return True

    def _write(self, job: str, number: int, record: dict[str, Any]) -> None:
        self._fs.pipe_file(f"{self._path}/{job}.{number}.json", json.dumps(record).encode())

    def _read(self, job: str, number: int) -> dict[str, Any]:
        try:
            record = json.loads((self._folder / f"{job}.{number}.json").read_bytes())
        except (ValueError, OSError):  # it is being written, or its writer died
            return {}
        return record if isinstance(record, dict) else {}


@contextlib.contextmanager
def for_all_processes(lease: contextlib.AbstractContextManager[Lease]) -> Iterator[Callable[[], None]]:
    """Process 0 holds a lease for all processes of its run. → raises Lost once another run has taken it over."""
    if not processes.is_first():
        processes.wait_for_all("leased")
        yield lambda: None
        return
    with lease as held:
        processes.wait_for_all("leased")
        yield held.check


def describe(holder: dict[str, Any] | None) -> str:
    """A holder in words: process, host, and since when by its own clock."""
    if not holder or "pid" not in holder:
        return "another process"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.get("since", 0)))
    return f"process {holder['pid']} on {holder.get('host')} (since {since})"


class _Heartbeat:
    """Rewrites a lease every few seconds, and notices when another process has taken it over."""

    def __init__(self, lease: Lease):
        self._lease, self._since = lease, time.time()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        lease, count = self._lease, 0
        while not self._end.wait(BEAT):
            count += 1
            try:
                if (lease.leases._newest(lease.job) or 0) > lease.number:
                    lease.lost = True
                    return
                file = f"{lease.leases._path}/{lease.job}.{lease.number}.json"
                lease.leases._fs.pipe_file(file, _signed(count, self._since))
            except Exception:  # a storage that fails for a moment must not end the signs of life
                continue

    def stop(self) -> None:
        self._end.set()
        self._thread.join()


def _signed(beat: int, since: float) -> bytes:
    pid = os.getpid()
    record = {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": pid,
        "started": _started(pid),
        "since": since,
        "beat": beat,
    }
    return json.dumps(record).encode()


def _machine() -> str:
    """Host, boot and process namespace: where a process id means the same process."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        with open("/proc/sys/kernel/random/boot_id") as file:
            parts.append(file.read().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _runs(pid: Any, started: str | None) -> bool:
    """True if this very process still runs: not another one with its number, nor one that only waits to be reaped."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError, TypeError, ValueError):
        return False
    except PermissionError:
        return True
    fields = _stat(int(pid))
    if fields is None:
        return True
    return fields[0] not in "ZX" and (started is None or fields[19] == started)


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; None where that cannot be known."""
    fields = _stat(pid)
    return fields[19] if fields else None


def _stat(pid: int) -> list[str] | None:
    """/proc/PID/stat from its third field, the state, on."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None
