"""Run model-written code against hidden tests, without trust in it.

contained/judge.py says how: the code has a process of its own without network, files, or anybody to speak to,
and the tests see plain values alone. A nonce over a private pipe is the only sign of success; an exit code or
output means nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sftmix_jax.machine.errors import UserError

PACKAGES = ("numpy",)  # beside the standard library; human-eval, EvalPlus and bigcode all install it
_CONTAINED = Path(__file__).parent / "contained"
_START = f"import sys; sys.path.insert(0, {str(_CONTAINED)!r}); import judge; del sys.path[0]; judge.main()"


class TestsCannotRun(UserError):
    """The tests need what the sandbox does not have, or fail by themselves.

    `reason` is that of a `Verdict`, for a caller who knows that the answer is at fault.
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether an answer passed, and if not, why.

    A reason is `kind: detail`. Kinds: SyntaxError, wrong value, timed out, missing module, not a plain value, memory,
    output, no reply, killed, exited, or the name of an exception that the answer raised.
    """

    passed: bool
    reason: str
    walls: tuple[str, ...] = ()  # that stood around the code, as far as it came


@functools.cache
def walls() -> tuple[str, ...]:
    """What stands around code on this machine."""
    return run("def f():\n    return 1", "f", "assert f() == 1", seconds=30).walls


def is_safe() -> bool:
    """Whether model-written code is kept from the user's files and from the network."""
    return "landlock" in walls() and bool({"namespaces", "seccomp"} & set(walls()))


def run(
    program: str,
    name: str,
    tests: str,
    *,
    prelude: str = "",
    names: Sequence[str] = (),
    seconds: int = 5,
    each: float = 0,
    memory: int = 1 << 30,
) -> Verdict:
    """Whether the function `name` of a program passes the tests: statements that call it, or `candidate`.

    `prelude` is trusted code that the tests may need; `names` are further functions and classes of the program that
    they use. `seconds` bound each process' processor time and, with one more, the whole run; `each` bounds one call (0:
    it has no bound of its own; tests change it by `limit_call(seconds)`); `memory` is in bytes.
    Raises `TestsCannotRun`, and `UserError` if the sandbox itself fails.
    """
    nonce = secrets.token_hex(16)
    job = {
        "program": program,
        "name": name,
        "tests": tests,
        "prelude": prelude,
        "names": list(names),
        "each": each,
        "nonce": nonce,
    }
    text = json.dumps(job).encode()
    try:
        message, status = _asked(_take(), text, memory, seconds)
    except OSError:  # it has ended since its last run
        try:
            message, status = _asked(_Server(), text, memory, seconds)
        except OSError as error:
            raise UserError(f"the sandbox for model-written code failed, and nothing was scored: {error}") from None
    return Verdict(False, "timed out") if message is None else _verdict(message, nonce, status)


def _verdict(message: bytes, nonce: str, status: int) -> Verdict:
    if not message:
        code = os.waitstatus_to_exitcode(status)
        return Verdict(False, f"killed: by {signal.Signals(-code).name}" if code < 0 else "exited: without a verdict")
    try:
        report = json.loads(message)
    except ValueError:
        return Verdict(False, "exited: with a verdict that cannot be read")
    if "broken" in report:
        raise UserError(f"the sandbox for model-written code failed, and nothing was scored: {report['broken']}")
    if "missing" in report:
        raise TestsCannotRun(
            f"the tests need {report['missing']}, which cannot be imported where they run: there are the standard "
            f"library and {', '.join(PACKAGES)}",
            f"wrong value: the tests import {report['missing']}",
        )
    if "damaged" in report:
        said = report["damaged"]
        raise TestsCannotRun(
            f"the tests cannot run here, whatever the answer: {said}; leave the row out", f"wrong value: {said}"
        )
    if report.get("passed") == nonce:
        return Verdict(True, "passed", tuple(report["walls"]))
    return Verdict(False, str(report.get("error", "a forged verdict")), tuple(report.get("walls", ())))


@functools.cache
def _places() -> dict[str, str]:
    """Package → the folder that holds it."""
    found = {name: importlib.util.find_spec(name) for name in PACKAGES}
    return {name: str(Path(spec.origin).parents[1]) for name, spec in found.items() if spec and spec.origin}


class _Server:
    """An interpreter that forks a judge for each run (contained/judge.py), one at a time.

    It has no environment but a seed of hashes, so that an answer that depends on the order of a set has one score.
    """

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-S", "-c", _START, str(theirs.fileno()), json.dumps(_places())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0"},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()

    def run(self, job: bytes, memory: int, seconds: int) -> tuple[bytes | None, int]:
        """What the judge wrote (None: nothing in time) and how it ended. Raises OSError if the server is gone."""
        (job_reader, job_writer), (verdict_reader, verdict_writer) = os.pipe(), os.pipe()
        with os.fdopen(verdict_reader, "rb") as verdict:
            try:
                socket.send_fds(self._control, [_ASK.pack(memory, seconds)], [job_reader, verdict_writer])
            finally:
                os.close(job_reader)
                os.close(verdict_writer)
            with contextlib.suppress(BrokenPipeError), os.fdopen(job_writer, "wb") as stream:
                stream.write(job)
            pid = self._receive()
            ready = select.select([verdict], [], [], seconds + 1)[0]
            message = os.read(verdict_reader, 1 << 16) if ready else None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # nothing outlives its run
            self._control.sendall(b".")
            return message, self._receive()

    def _receive(self) -> int:
        answer = self._control.recv(_ANSWER.size, socket.MSG_WAITALL)
        if len(answer) < _ANSWER.size:
            raise OSError(f"the sandbox's server ended with code {self._process.wait()}")
        return _ANSWER.unpack(answer)[0]


_ASK, _ANSWER = struct.Struct("QQ"), struct.Struct("q")  # as in contained/judge.py
_idle: list[_Server] = []  # kept for the next run; they end when this process does, as their socket closes


def _asked(server: _Server, job: bytes, memory: int, seconds: int) -> tuple[bytes | None, int]:
    found = server.run(job, memory, seconds)
    _idle.append(server)  # one that failed is not asked again
    return found


def _take() -> _Server:
    try:
        return _idle.pop()
    except IndexError:
        return _Server()
