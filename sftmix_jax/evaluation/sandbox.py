"""Run model-written code: a fresh interpreter without network, environment, or anything to write to.

Layers, each where the kernel gives it: a network namespace of its own (no interface is up), Landlock
(writes below its own empty folder only), resource limits, a process group that is killed as a whole.
The verdict comes over a private pipe as a nonce, never as an exit code or as output.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time

_GUARD = r"""
import ctypes, os, resource, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def isolate(folder, memory, seconds):
    layers = []
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(0x50000000) == 0:  # CLONE_NEWUSER | CLONE_NEWNET
        layers.append("network namespace")
    elif libc.unshare(0x40000000) == 0:
        layers.append("network namespace")
    class Ruleset(ctypes.Structure):
        _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64)]
    class Beneath(ctypes.Structure):
        _pack_ = 1
        _fields_ = [("allowed", ctypes.c_uint64), ("fd", ctypes.c_int32)]
    version = libc.syscall(444, None, 0, 1)
    if version >= 1:
        writes = 0b1111111110010  # write, remove, make: Landlock ABI 1
        if version >= 2: writes |= 1 << 13
        if version >= 3: writes |= 1 << 14
        tcp = 3 if version >= 4 else 0
        rules = Ruleset(writes, tcp)
        fd = libc.syscall(444, ctypes.byref(rules), 16 if version >= 4 else 8, 0)
        own = os.open(folder, os.O_PATH)
        rule = Beneath(writes, own)
        libc.syscall(445, fd, 1, ctypes.byref(rule), 0)
        libc.prctl(38, 1, 0, 0, 0)
        if libc.syscall(446, fd, 0) == 0:
            layers.append("landlock")
        os.close(fd); os.close(own)
    limits = {resource.RLIMIT_AS: memory, resource.RLIMIT_CPU: seconds + 1, resource.RLIMIT_FSIZE: 1 << 20,
              resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 64}
    for which, most in limits.items():
        resource.setrlimit(which, (most, most))
    try: resource.setrlimit(resource.RLIMIT_NPROC, (64, 64))
    except ValueError: pass
    layers.append("limits")
    return layers
"""

_RUN = (
    _GUARD
    + r"""
import json
job = json.loads(sys.stdin.buffer.read())
verdict = os.dup(int(sys.argv[1])); os.close(int(sys.argv[1]))
os.chdir(job["folder"])
null = os.open(os.devnull, os.O_RDWR)
layers = isolate(job["folder"], job["memory"], job["seconds"])
for fd in (0, 1, 2): os.dup2(null, fd)
program, nonce, report, leave = job.pop("program"), job.pop("nonce"), os.write, os._exit
try:
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
except BaseException as error:
    report(verdict, json.dumps({"error": type(error).__name__ + ": " + str(error)[:200]}).encode())
else:
    report(verdict, json.dumps({"passed": nonce}).encode())
leave(0)
"""
)

_PROBE = _GUARD + "print(','.join(isolate(sys.argv[1], 1 << 30, 5)))"


@dataclasses.dataclass(frozen=True)
class Verdict:
    passed: bool
    reason: str  # passed, timed out, an exception's name and message, or how the process ended


@functools.cache
def layers() -> tuple[str, ...]:
    """Which layers are active on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        probe = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROBE, folder], capture_output=True, text=True, env={}, timeout=30
        )
    return tuple(filter(None, probe.stdout.strip().split(",")))


def is_safe() -> bool:
    """Whether model-written code is kept from the network and from the user's files."""
    return {"network namespace", "landlock"} <= set(layers())


def run(program: str, seconds: int = 5, memory: int = 1 << 30) -> Verdict:
    """Run a program to its end; it passes if it ends without an exception within the limits."""
    nonce = secrets.token_hex(16)
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        job = {"program": program, "nonce": nonce, "folder": folder, "seconds": seconds, "memory": memory}
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _RUN, str(writer)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={}, pass_fds=[writer], start_new_session=True, close_fds=True,
        )  # fmt: skip
        os.close(writer)
        try:
            assert process.stdin
            try:
                process.stdin.write(json.dumps(job).encode())
                process.stdin.close()
            except BrokenPipeError:
                pass
            try:
                process.wait(timeout=seconds + 1)
            except subprocess.TimeoutExpired:
                return Verdict(False, "timed out")
            return _verdict(_drain(reader), nonce, process.returncode)
        finally:
            _kill_group(process)
            os.close(reader)


def _drain(reader: int) -> bytes:
    os.set_blocking(reader, False)
    try:
        return os.read(reader, 1 << 16)
    except BlockingIOError:
        return b""


def _verdict(message: bytes, nonce: str, code: int) -> Verdict:
    try:
        report = json.loads(message)
    except ValueError:
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else "ended without a verdict"
        return Verdict(False, ended)
    if isinstance(report, dict) and report.get("passed") == nonce:
        return Verdict(True, "passed")
    return Verdict(False, str(report.get("error", "a forged verdict"))[:200] if isinstance(report, dict) else "forged")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Nothing that the program started outlives it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for _ in range(100):
        if process.poll() is not None:
            return
        time.sleep(0.01)
