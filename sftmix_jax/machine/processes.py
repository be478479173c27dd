"""The processes of one run: that all of them come, run the same code, and end when one of them does.

A process is told its place by the environment: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
JAX_PROCESS_ID, or Slurm's variables for the last two. On a TPU pod jax reads the metadata of the machine instead.

Before jax starts, every process reports to process 0 at the port behind the coordinator's. The connections stay open:
the system closes those of a process that ends, whatever ended it, so that the others need not wait for a heartbeat.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sftmix_jax import __version__
from sftmix_jax.machine import terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.host_memory import has_tpu
from sftmix_jax.machine.ranges import Integer, Number

T = TypeVar("T")

_PATIENCE = 300.0  # seconds to wait for the others; JAX_JOIN_TIMEOUT
_TIMEOUT = Number(at_least=1, at_most=86_400)
_PORT = Integer(at_least=1, at_most=65_534)
_TPU_PORT = "8476"  # firewalls of older TPU pods do not open 8482, the default port of newer versions of jax
_HEARTBEAT = 30  # seconds after which jax gives up a machine that has gone without a word
_GRACE = 5.0  # seconds for this process to end on its own, if what ended the other is its error too
_DONE, _FAILED = b"done", b"failed"  # last words
_CLOSING = 10.0  # seconds for trackers to close when another process has ended
_CLOCKS = 60.0  # seconds that two machines' clocks may differ


@dataclasses.dataclass(frozen=True)
class Place:
    """Which of how many processes this is, and where process 0 listens."""

    index: int
    count: int
    host: str
    port: int


_place: Place | None = None
_watch: _Watch | None = None
_closers: list[Callable[[], None]] = []


def is_first() -> bool:
    """Whether this process speaks and writes for all; true where there is only one."""
    return _place is None or _place.index == 0


def are_many() -> bool:
    """Whether there are others."""
    return _place is not None and _place.count > 1


def find_place(environment: Mapping[str, str]) -> Place | None:
    """The place that the environment gives this process, or None if it is alone. Raises UserError."""
    address = environment.get("JAX_COORDINATOR_ADDRESS", "")
    if not address:
        return None
    count = environment.get("JAX_NUM_PROCESSES") or environment.get("SLURM_STEP_NUM_TASKS") or ""
    index = environment.get("JAX_PROCESS_ID") or environment.get("SLURM_PROCID") or ""
    host, _, port = address.rpartition(":")
    if not (count.isdigit() and index.isdigit() and port.isdigit() and host):
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS={address} wants HOST:PORT, with JAX_NUM_PROCESSES={count or '?'} and "
            f"JAX_PROCESS_ID={index or '?'} as numbers beside it"
        )
    if int(index) >= int(count):
        raise UserError(f"JAX_PROCESS_ID={index} of JAX_NUM_PROCESSES={count}: ids go from 0 to {int(count) - 1}")
    if rule := _PORT.broken(int(port)):
        raise UserError(f"JAX_COORDINATOR_ADDRESS={address}: port {port}; {rule} (the port after it is used as well)")
    return Place(int(index), int(count), host, int(port))


def join() -> None:
    """Join the other processes of this run, if the environment names any; else nothing.

    Raises UserError if one does not come, or runs other code. From here on only process 0 prints.
    """
    global _place, _watch
    import jax

    place = find_place(os.environ)
    try:
        patience = _TIMEOUT.parse(os.environ.get("JAX_JOIN_TIMEOUT", str(_PATIENCE)))
    except UserError as error:
        raise UserError(f"JAX_JOIN_TIMEOUT: {error}") from None
    if place is not None and place.count > 1:
        _place = place
        _watch = _lead(place, patience) if place.index == 0 else _follow(place, patience)
        jax.distributed.initialize(
            f"{place.host}:{place.port}",
            place.count,
            place.index,
            cluster_detection_method="deactivate",  # from Slurm it would take one GPU a process, by SLURM_LOCALID
            initialization_timeout=int(patience),
            heartbeat_timeout_seconds=_HEARTBEAT,
        )
    elif place is None and has_tpu():
        os.environ.setdefault("JAX_COORDINATOR_PORT", _TPU_PORT)
        jax.distributed.initialize(initialization_timeout=int(patience), heartbeat_timeout_seconds=_HEARTBEAT)
        _place = Place(jax.process_index(), jax.process_count(), "", 0)
    if not is_first():
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (open to the end)


def leave(code: int) -> None:
    """End this process. After a success the others go on; otherwise they are told, and end too."""
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    if are_many():
        stopped_together = code in (0, 143)
        if _watch is not None:
            _watch.part(_DONE if stopped_together else _FAILED)
        if stopped_together:
            import jax

            jax.distributed.shutdown()  # waits for the others
        elif is_first() and _watch is not None:
            _watch.wait(2 * _GRACE)  # jax aborts a process whose coordinator, which is this one, has gone before it
    elif code:
        sys.exit(code)
    else:
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):  # as of `… | head`
                stream.flush()
    # Of many processes, jax's own farewell waits for those that will not come. Of one, XLA's threads may abort it while
    # the interpreter is taken down (seen with jax 0.11): a command that succeeded would end with code 134.
    os._exit(code)


def on_early_end(close: Callable[[], None]) -> None:
    """Has `close` called if this process must end because another one has."""
    _closers.append(close)


def forget_early_end(close: Callable[[], None]) -> None:
    """Takes back `on_early_end`."""
    if close in _closers:
        _closers.remove(close)


def _close_early() -> None:
    """What is open is closed, if it takes no longer than _CLOSING."""
    threads = [threading.Thread(target=close, daemon=True) for close in _closers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _CLOSING
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))


def hear_of_deaths() -> None:
    """Time for the watch to end this process if another one has died: a broken collective is heard of first."""
    if _watch is not None:
        time.sleep(2 * _GRACE)


def say(message: str) -> None:
    """To stderr from any process: what only that one knows."""
    name = f"process {_place.index}: " if _place is not None and are_many() else ""
    terminal.err(f"{name}{message}", sys.__stderr__)


def wait_for_all(reason: str) -> None:
    """Until every process is here; nothing where there is only one."""
    if are_many():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(reason)


def first_says(value: int) -> int:
    """Process 0's number, in every process."""
    if not are_many():
        return value
    import numpy as np
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def divided(work: Callable[[T], str], items: Sequence[T]) -> list[str]:
    """`work` of every item, each done by one process and given to all; so all must have the same items.

    Raises UserError in every process where one of them does.
    """
    if not are_many():
        return [work(item) for item in items]
    import jax

    index, count = jax.process_index(), jax.process_count()
    mine: list[str | None] = []
    problem = ""
    for item in items[index::count]:
        try:
            mine.append(work(item))
        except UserError as error:
            mine.append(None)
            problem = problem or str(error)
    said = [json.loads(text) for text in all_say(json.dumps({"found": mine, "problem": problem}))]
    for theirs in said:
        if theirs["problem"]:
            raise UserError(theirs["problem"])
    return [said[i % count]["found"][i // count] for i in range(len(items))]


def all_say(text: str) -> list[str]:
    """The text of every process, in every process."""
    if not are_many():
        return [text]
    import numpy as np
    from jax.experimental import multihost_utils

    mine = text.encode()
    sizes = multihost_utils.process_allgather(np.int32(len(mine)))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(mine)] = np.frombuffer(mine, np.uint8)
    everyone = multihost_utils.process_allgather(padded)
    return [bytes(each[:size]).decode() for each, size in zip(everyone, sizes, strict=True)]


def any_of_them(value: bool) -> bool:
    """Whether it is true in any process."""
    if not are_many():
        return value
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.bool_(value)).any())


def asked_to_stop(step: int) -> bool:
    """Whether all shall stop after this step, as one of them was sent SIGTERM; all hear it at the same step."""
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)


class _Watch:
    """Open connections to the others; when one of them closes unannounced, this process ends."""

    def __init__(self, connections: Mapping[int, socket.socket]):
        self._connections = dict(connections)
        self._parted = False
        self._listening = [
            threading.Thread(target=self._listen, args=each, daemon=True) for each in connections.items()
        ]
        for thread in self._listening:
            thread.start()

    def _listen(self, index: int, connection: socket.socket) -> None:
        last = b""
        try:
            while received := connection.recv(64):
                last += received
        except OSError:
            pass
        if _DONE in last or self._parted:
            return
        if _FAILED in last:
            time.sleep(_GRACE)  # its error may be this process's too: then that is what is said here
            if self._parted:  # it has been said, and this process waits for the others
                return
        # Process 0 hears of everybody and ends; its own connections then close, and so all the others hear.
        who = f"process {index}" if is_first() else "process 0, or one that it has lost,"
        say(f"{who} has ended. All stop; the same command goes on from the last checkpoint")
        _close_early()
        os._exit(1)

    def wait(self, seconds: float) -> None:
        """Until the others have closed their connections, as they do when they end, but no longer than this."""
        deadline = time.monotonic() + seconds
        for thread in self._listening:
            thread.join(max(deadline - time.monotonic(), 0))

    def part(self, word: bytes) -> None:
        """Say that this process ends, and whether as it should."""
        self._parted = True
        for connection in self._connections.values():
            try:
                connection.sendall(word)
            except OSError:
                continue


def _hello(place: Place) -> dict[str, Any]:
    import jax

    versions = {"sftmix_jax": __version__, "jax": jax.__version__, "python": sys.version.split()[0]}
    return {"index": place.index, "host": socket.gethostname(), "time": time.time(), "versions": versions}


def _lead(place: Place, patience: float) -> _Watch:
    """Process 0: wait for the others' reports, and tell them what came of it."""
    mine = _hello(place)
    connections: dict[int, socket.socket] = {}
    problem = ""
    deadline = time.monotonic() + patience
    with socket.create_server(("", place.port + 1), backlog=place.count) as listener:
        while len(connections) < place.count - 1 and not problem:
            listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                missing = [str(i) for i in range(1, place.count) if i not in connections]
                problem = (
                    f"process {', '.join(missing)} of {place.count} did not report to {place.host}:{place.port + 1} "
                    f"within {patience:.0f} s; look at its own output, and whether it can reach that address"
                )
                break
            connection.settimeout(patience)
            theirs = json.loads(connection.makefile().readline())
            if theirs["index"] in connections:
                problem = (
                    f"two processes say that they are process {theirs['index']}; each needs its own JAX_PROCESS_ID"
                )
            connections[theirs["index"]] = connection
            problem = problem or _difference(mine, theirs)
    for connection in connections.values():
        connection.settimeout(None)
        connection.sendall(f"{problem or 'go'}\n".encode())
    if problem:
        raise UserError(problem)
    return _Watch(connections)


def _follow(place: Place, patience: float) -> _Watch:
    """Any other process: report to process 0, and hear whether all have."""
    deadline = time.monotonic() + patience
    while True:
        try:
            connection = socket.create_connection((place.host, place.port + 1), timeout=5)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"process 0 does not listen at {place.host}:{place.port + 1} ({error}) for {patience:.0f} s; "
                    "look at its own output"
                ) from None
            time.sleep(0.2)
    connection.settimeout(patience + 10)
    connection.sendall(f"{json.dumps(_hello(place))}\n".encode())
    answer = b""
    while not answer.endswith(b"\n"):
        received = connection.recv(4096)
        if not received:
            raise UserError("process 0 ended before all were there; look at its own output")
        answer += received
    if answer != b"go\n":
        raise UserError(answer.decode().strip())
    connection.settimeout(None)
    return _Watch({0: connection})


def _difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What keeps two processes from running together, or nothing."""
    where = f"process {theirs['index']} on {theirs['host']}"
    for name, version in mine["versions"].items():
        if theirs["versions"][name] != version:
            return f"{where} runs {name} {theirs['versions'][name]}, process 0 {version}; install the same everywhere"
    apart = abs(time.time() - theirs["time"])
    if apart > _CLOCKS:
        return f"the clock of {where} is {apart:.0f} s away from that of process 0; set them by NTP"
    return ""
