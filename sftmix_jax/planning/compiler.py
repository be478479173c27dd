"""The compiler in a process of its own: it may end the process that it runs in, and complains on its stderr."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import re
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from sftmix_jax.machine.errors import UserError
from sftmix_jax.planning.aot import Compiled, Topology

# libtpu's warnings; find_topology asks for fewer where nobody reads them.
_ENVIRONMENT = {"TPU_STDERR_LOG_LEVEL": "1", "TPU_MIN_LOG_LEVEL": "1"}
_RESHARDING = "Involuntary full rematerialization"
_FROM_TO = re.compile(r"from sharding (\{.*?\}) to (\{.*?\}) efficiently")
_OPERATION = re.compile(r'op_name="([^"]*)"')
_FAILED = re.compile(r"Check failed: [^\n]*\S")


class Compiler:
    """Compiles for one topology, in a process that begins with the first program and ends with this object."""

    def __init__(self, topology: Topology):
        self.topology = topology
        self._connection: Connection | None = None

    def __call__(self, compile: Callable[..., Compiled], *arguments: object, **named: object) -> Compiled:
        """`compile(*arguments, topology=…, **named)`, a function of `aot`, with what the compiler complained of.

        Where the compiler ends its process: a program that does not fit and says so. Raises what `compile` raises.
        """
        if self._connection is None:
            self._begin()
        assert self._connection is not None
        heard, begin = self._said.stat().st_size, time.monotonic()
        try:
            self._connection.send((compile, arguments, {**named, "topology": self.topology}))
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._connection = None
            message = f"the compiler itself failed: {_reason(self._said_since(heard))}"
            return Compiled(False, 0, 0, self.topology.limit, {}, time.monotonic() - begin, message)
        if isinstance(answer, Exception):
            raise answer
        return dataclasses.replace(answer, complaints=_complaints(self._said_since(heard)))

    def _begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._said = Path(self._folder.name, "said")
        self._said.touch()
        # A daemon, not an executor's worker, which an interrupted plan would wait for until its program is compiled.
        spawning = multiprocessing.get_context("spawn")
        self._connection, theirs = spawning.Pipe()
        spawning.Process(target=_serve, args=(theirs, self._said), daemon=True).start()
        theirs.close()

    def _said_since(self, heard: int) -> str:
        return self._said.read_bytes()[heard:].decode(errors="replace")


def _complaints(said: str) -> tuple[str, ...]:
    """The arrays that the compiler reports to gather, because it finds no cheaper way to their next sharding."""
    found = []
    for line in said.splitlines():
        if _RESHARDING in line:
            operation, way = _OPERATION.search(line), _FROM_TO.search(line)
            what = operation[1] if operation else line.strip()
            found.append(f"{what}, from {way[1]} to {way[2]}" if way else what)
    return tuple(dict.fromkeys(found))


def _reason(said: str) -> str:
    """Why the compiler ended its process, in its own words."""
    found = _FAILED.search(said)
    return found[0] if found else "it was ended from outside (is there memory enough on this machine?)"


def _serve(connection: Connection, said: Path) -> None:
    """Compile what is asked for until the other side is gone."""
    os.environ.update(_ENVIRONMENT)
    with said.open("ab") as stream:
        os.dup2(stream.fileno(), 2)
    while True:
        try:
            compile, arguments, named = connection.recv()
        except EOFError:
            return
        try:
            answer = compile(*arguments, **named)
        except UserError as error:
            answer = error
        except Exception:
            answer = RuntimeError(traceback.format_exc())
        connection.send(answer)
