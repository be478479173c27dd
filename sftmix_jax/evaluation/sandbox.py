"""Run model-written code against hidden tests, without trust in it.

contained/judge.py says how: the code has a process of its own without network, files, or anybody to speak to,
and the tests see plain values alone. A nonce over a private pipe is the only sign of success; an exit code or
output means nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import secrets
import select
import signal
import subprocess
import sys
from pathlib import Path

_CONTAINED = Path(__file__).parent / "contained"
_START = f"import sys; sys.path.insert(0, {str(_CONTAINED)!r}); import judge; del sys.path[0]; judge.main()"


@dataclasses.dataclass(frozen=True)
class Verdict:
    passed: bool
    reason: str  # passed, timed out, an exception's name and message, or how the process ended
    walls: tuple[str, ...] = ()  # that stood around the code, as far as it came


@functools.cache
def walls() -> tuple[str, ...]:
    """What stands around code on this machine."""
    return run("def f():\n    return 1", "f", "assert f() == 1", seconds=30).walls


def is_safe() -> bool:
    """Whether model-written code is kept from the user's files and from the network."""
    return "landlock" in walls() and bool({"namespaces", "seccomp"} & set(walls()))


def run(program: str, name: str, tests: str, *, prelude: str = "", seconds: int = 5, memory: int = 1 << 30) -> Verdict:
    """Whether the function `name` of a program passes the tests: statements that call it, or `candidate`.

    `prelude` is trusted code that the tests may need. `memory` in bytes, `seconds` of the whole.
    """
    nonce = secrets.token_hex(16)
    job = {"program": program, "name": name, "tests": tests, "prelude": prelude, "nonce": nonce}
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _START, str(writer), str(memory), str(seconds)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={}, pass_fds=[writer],
        start_new_session=True,
    )  # fmt: skip
    os.close(writer)
    try:
        assert process.stdin
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode())
            process.stdin.close()
        if not select.select([reader], [], [], seconds + 1)[0]:
            return Verdict(False, "timed out")
        return _verdict(os.read(reader, 1 << 16), nonce, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # nothing outlives its run
        process.wait()
        os.close(reader)


def _verdict(message: bytes, nonce: str, process: subprocess.Popen[bytes]) -> Verdict:
    if not message:
        code = process.wait()
        return Verdict(False, f"killed by {signal.Signals(-code).name}" if code < 0 else "ended without a verdict")
    report = json.loads(message)
    if report.get("passed") == nonce:
        return Verdict(True, "passed", tuple(report["walls"]))
    return Verdict(False, str(report.get("error", "a forged verdict")), tuple(report.get("walls", ())))
