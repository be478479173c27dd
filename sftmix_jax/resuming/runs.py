"""The processes of one run on this machine, as launch/local.sh starts them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TRAIN = (sys.executable, "-m", "sftmix_jax.train")
_PATIENCE = 90.0  # seconds for the other processes of a run to end after one is killed
_FORCED = re.compile(r"--xla_force_host_platform_device_count=(\d+)")
_OTHERS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_NUM_CPU_DEVICES")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How many processes a run has, and how many CPU devices each; 0: the devices that the machine gives."""

    processes: int
    devices: int = 0

    def __str__(self) -> str:
        each = f" × {self.devices} CPU device{'s' * (self.devices > 1)}" if self.devices else ""
        return f"{self.processes} process{'es' * (self.processes > 1)}{each}"


@dataclasses.dataclass(frozen=True)
class Failure:
    """The end of a process that failed."""

    code: int
    said: list[str]  # its last lines
    log: Path

    def __str__(self) -> str:
        return "\n    ".join([f"Exit code {self.code}; its last lines, of {self.log}:", *self.said])


def cpu_devices(environment: Mapping[str, str]) -> int:
    """CPU devices that a process started in this environment has."""
    if forced := _FORCED.findall(environment.get("XLA_FLAGS", "")):
        return int(forced[-1])
    return int(environment.get("JAX_NUM_CPU_DEVICES") or 1)


class Run:
    """One attempt at a run: all of its processes, their output in one log file each."""

    def __init__(self, command: Sequence[str], layout: Layout, log: Path):
        self.logs = [log.with_name(f"{log.name}.{i}" if layout.processes > 1 else log.name)
                     for i in range(layout.processes)]  # fmt: skip
        self._processes = []
        port = _free_port()
        for index, file in enumerate(self.logs):
            place = {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(layout.processes),
                "JAX_PROCESS_ID": str(index),
            }  # fmt: skip
            environment = _environment(layout) | (place if layout.processes > 1 else {})
            with file.open("wb") as output:
                # a session of its own: Ctrl-C is for the check, which then ends what it started
                process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True,
                )  # fmt: skip
            self._processes.append(process)
        self.begin = time.monotonic()

    def has_ended(self) -> bool:
        return all(map(_has_ended, self._processes))

    def kill(self, victims: Sequence[int]) -> bool:
        """SIGKILL some of the processes, and wait until all have ended. → whether all were running until then."""
        running = not any(map(_has_ended, self._processes))
        for victim in victims:
            self._processes[victim].kill()
        deadline = time.monotonic() + _PATIENCE
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.end()
        return running

    def end(self) -> None:
        """Leave nothing running, the workers of killed processes neither."""
        for process in self._processes:
            if process.returncode is None:  # not waited for yet, so its number is not another process's
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def failure(self) -> Failure | None:
        """How an ended run failed, or None."""
        self.end()
        for process, log in zip(self._processes, self.logs, strict=True):
            if process.returncode:
                return Failure(process.returncode, log.read_text(errors="replace").splitlines()[-3:], log)
        return None


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has ended; its number stays its own until `end` waits for it."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _environment(layout: Layout) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name not in _OTHERS}
    if not layout.devices:
        return clean
    flags = _FORCED.sub("", clean.get("XLA_FLAGS", ""))
    flags = f"{flags} --xla_force_host_platform_device_count={layout.devices}".strip()
    return clean | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def _free_port() -> int:
    """A port of the loopback device whose neighbour, where processes report to process 0, is free too."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                two.bind(("127.0.0.1", port + 1))
                return port
