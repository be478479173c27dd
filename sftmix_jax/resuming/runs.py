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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

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


class Process(Protocol):
    """One process of a run."""

    def has_ended(self) -> bool: ...

    def kill(self) -> None:
        """SIGKILL, to this process alone."""

    def end(self) -> int:
        """Kill whatever is left of it, its own children too. → its exit code."""


# From arguments of the training command, environment and log file.
Launch: TypeAlias = Callable[[Sequence[str], Mapping[str, str], Path], Process]


class Command:
    """A command in a session of its own: Ctrl-C reaches the check alone, which then ends what it has started."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path):
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def has_ended(self) -> bool:
        if self._process.returncode is not None:
            return True
        # Not waited for before `end`: until then its number is not given to another process.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> int:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()


def train(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start the training command as a user does."""
    return Command([sys.executable, "-m", "sftmix_jax.train", *arguments], environment, log)


class Run:
    """One start of the training command: all of its processes, with a log file each."""

    def __init__(self, launch: Launch, arguments: Sequence[str], layout: Layout, log: Path):
        self.logs = [log]
        if layout.processes > 1:
            self.logs = [log.with_suffix(f".{index}{log.suffix}") for index in range(layout.processes)]
        self._processes: list[Process] = []
        port = _free_port()
        for index, file in enumerate(self.logs):
            place = {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(layout.processes),
                "JAX_PROCESS_ID": str(index),
            }
            environment = _environment(layout) | (place if layout.processes > 1 else {})
            self._processes.append(launch(arguments, environment, file))

    def has_ended(self) -> bool:
        return all(process.has_ended() for process in self._processes)

    def kill(self, victims: Sequence[int]) -> bool:
        """SIGKILL some of the processes, and wait until all have ended. → whether all were running until then."""
        running = not any(process.has_ended() for process in self._processes)
        for victim in victims:
            self._processes[victim].kill()
        deadline = time.monotonic() + _PATIENCE
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.end()
        return running

    def end(self) -> list[int]:
        """Leave nothing running. → exit codes."""
        return [process.end() for process in self._processes]

    def failure(self) -> Failure | None:
        """How an ended run failed, or None."""
        for code, log in zip(self.end(), self.logs, strict=True):
            if code:
                return Failure(code, log.read_text(errors="replace").splitlines()[-3:], log)
        return None


def cpu_devices(environment: Mapping[str, str]) -> int:
    """CPU devices that a process started in this environment has."""
    if forced := _FORCED.findall(environment.get("XLA_FLAGS", "")):
        return int(forced[-1])
    return int(environment.get("JAX_NUM_CPU_DEVICES") or 1)


def _environment(layout: Layout) -> dict[str, str]:
    if not layout.devices:
        return {name: value for name, value in os.environ.items() if name not in _OTHERS[:3]}
    clean = {name: value for name, value in os.environ.items() if name not in _OTHERS}
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
